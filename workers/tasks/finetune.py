"""Queue finetune: train models on labels."""

from celery import shared_task

from workers.child.lifecycle import looking, work_until_idle
from workers.dispatch import FINETUNE, LOOK_TASKS


# Early: a finetune takes longer than any visibility timeout, after which Redis would hand the
# message of a running one to a second worker. A lost worker's job comes back by its lease.
@shared_task(name=LOOK_TASKS[FINETUNE], acks_late=False)
def look(job_id: str | None = None) -> None:
    """Run the finetune that is due."""
    # Imports numpy, which the parent of this process has no use for.
    from workers.finetuning.finetuning import finetune_next  # noqa: PLC0415

    with looking(FINETUNE, job_id) as context:
        if work_until_idle(context, finetune_next):
            context.doorbell.ring("finetune")
