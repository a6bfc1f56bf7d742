"""Queue interactive: answer searches and questions, which people wait for."""

from celery import shared_task

from workers.child.lifecycle import looking, work_until_idle
from workers.dispatch import INTERACTIVE, LOOK_TASKS


@shared_task(name=LOOK_TASKS[INTERACTIVE])
def look(job_id: str | None = None) -> None:
    """Answer what is due."""
    # Imports torch, which the parent of this process must not have.
    from workers.answering.interactive import serve_people_or_trials, warm_up  # noqa: PLC0415

    with looking(INTERACTIVE, job_id) as context:
        if work_until_idle(context, serve_people_or_trials):
            context.doorbell.ring("search")
        else:
            warm_up(context)
