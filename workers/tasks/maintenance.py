"""Queue maintenance: set right what went wrong."""

from celery import shared_task

from policy.schedules import fire_due
from workers.child.lifecycle import looking
from workers.dispatch import MAINTENANCE, RECONCILE_TASK, SCHEDULES_TASK, SWEEP_TASK, TRIALS_TASK
from workers.maintenance.reconciler import reconcile as reconcile_once
from workers.maintenance.sweeping import sweep as sweep_once
from workers.maintenance.trials import put_trials


@shared_task(name=RECONCILE_TASK)
def reconcile() -> None:
    """Return lost jobs, ring for waiting ones, switch generations."""
    with looking(MAINTENANCE, None) as context:
        reconcile_once(context)


@shared_task(name=SCHEDULES_TASK)
def schedules() -> None:
    """Start the finetunes whose time has come."""
    with looking(MAINTENANCE, None) as context:
        if context.disk.check().has_room:  # else they stay due: a finetune needs much of it
            fire_due(
                context.sessions,
                ring=context.doorbell.ring,
                is_stopping=context.is_stopping,
            )


@shared_task(name=SWEEP_TASK)
def sweep() -> None:
    """Remove what is no longer needed."""
    with looking(MAINTENANCE, None) as context:
        sweep_once(context)


@shared_task(name=TRIALS_TASK)
def trials() -> None:
    """Put questions to unlabelled videos, to find where a label is worth most."""
    with looking(MAINTENANCE, None) as context:
        if context.disk.check().has_room:
            put_trials(context)
