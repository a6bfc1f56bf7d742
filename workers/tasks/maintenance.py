"""Queue maintenance: set right what went wrong."""

from celery import shared_task

from workers.dispatch import MAINTENANCE, RECONCILE_TASK, SWEEP_TASK
from workers.lifecycle import looking
from workers.reconciler import reconcile as reconcile_once
from workers.sweeping import sweep_blobs


@shared_task(name=RECONCILE_TASK)
def reconcile() -> None:
    """Return lost jobs, ring for waiting ones, switch generations."""
    with looking(MAINTENANCE, None) as workplace:
        reconcile_once(workplace)


@shared_task(name=SWEEP_TASK)
def sweep() -> None:
    """Remove the blobs that no row needs."""
    with looking(MAINTENANCE, None) as workplace:
        sweep_blobs(workplace)
