"""Decisions over rows that the API and the workers share. Imports no torch and no Celery."""
