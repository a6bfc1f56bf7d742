"""When and where the model runs: Celery workers over the jobs of the store."""
