"""The Celery tasks, a file for each queue: they look for what is due."""
