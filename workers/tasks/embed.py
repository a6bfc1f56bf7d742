"""Queue embed: run the model on new videos."""

from celery import shared_task

from workers.child.lifecycle import looking, work_until_idle
from workers.dispatch import EMBED, LOOK_TASKS


@shared_task(name=LOOK_TASKS[EMBED])
def look(job_id: str | None = None) -> None:
    """Embed what is due."""
    # Imports torch, which the parent of this process must not have.
    from workers.indexing.embedding import embed_next  # noqa: PLC0415

    with looking(EMBED, job_id) as context:
        if work_until_idle(context, embed_next):
            context.doorbell.ring("embed")
