"""A worker process: what it owns, its device, its start and its end."""
