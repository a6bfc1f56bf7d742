"""Queue ingest: look at new media."""

from celery import shared_task

from workers.child.lifecycle import looking, work_until_idle
from workers.dispatch import INGEST, LOOK_TASKS
from workers.indexing.ingestion import ingest_next


@shared_task(name=LOOK_TASKS[INGEST])
def look(job_id: str | None = None) -> None:
    """Ingest what is due."""
    with looking(INGEST, job_id) as context:
        if work_until_idle(context, ingest_next):
            context.doorbell.ring("ingest")
