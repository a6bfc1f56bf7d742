"""The service on one machine: PostgreSQL and Redis from wheels, supervised processes, their log."""
