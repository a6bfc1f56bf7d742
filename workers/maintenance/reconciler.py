"""Set right what went wrong: lost workers, lost messages, generations ready to be searched.

Rung by beat every few seconds. Any number of reconcilers may run at once.
"""

import time
from collections import Counter
from typing import Final

import structlog

from policy.library_walk import advance
from store.counts import FOLD_CHUNK, fold_batch_deltas, fold_counts
from store.database import run_in_transaction
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind, JobState
from workers.child.context import WorkerContext
from workers.dispatch import MAX_RINGS, queue_of
from workers.jobs.owners import is_gone

log = structlog.get_logger(__name__)

_FOLD_SECONDS: Final = 1.0
_WALK_SECONDS: Final = 2.0  # of every five


def reconcile(context: WorkerContext) -> None:
    """Return lost jobs, switch to a finished generation, and ring for jobs that wait unheard."""
    return_lost_jobs(context)
    # Before what may take longer: a lost message holds somebody up.
    ring_for_due_jobs(context)
    fold(context)
    switch_generation(context)


def return_lost_jobs(context: WorkerContext) -> None:
    """Put the jobs of dead or hung workers back, and quarantine those that kill their workers."""
    with context.sessions.begin() as session:
        owners = JobRepository(session).owners()
    gone = [owner for owner in owners if is_gone(owner)]
    if gone:
        run_in_transaction(
            context.sessions, lambda session: JobRepository(session).end_leases_of(gone)
        )
    lost = run_in_transaction(
        context.sessions,
        lambda session: JobRepository(session).return_lost(max_losses=context.settings.max_losses),
    )
    for job in lost:
        is_poison = job.state == JobState.QUARANTINED
        log.log(
            40 if is_poison else 30,
            "job.quarantined" if is_poison else "job.returned",
            job_id=str(job.id),
            kind=job.kind,
            state=job.state,
        )


def ring_for_due_jobs(context: WorkerContext) -> None:
    """Ring the queues that have due rows and few messages: the ones sent for them may be lost."""
    with context.sessions.begin() as session:
        due_by_kind = JobRepository(session).due_up_to(MAX_RINGS)
    due = Counter[str]()
    for kind, count in due_by_kind.items():
        due[queue_of(kind)] += count
    for queue, count in due.items():
        waiting = context.doorbell.queue_length(queue)
        if waiting is None:  # Redis is away; the rows wait
            continue
        missing = min(count, MAX_RINGS) - waiting
        for _ in range(missing):
            if not context.doorbell.ring_queue(queue):
                break
        if missing > 0:
            log.info("queue.rung", queue=queue, due=count, waiting=waiting)


def fold(context: WorkerContext) -> None:
    """Fold the changes of counts, for at most a second, in which busy workers make fewer."""
    give_up_at = time.monotonic() + _FOLD_SECONDS
    while time.monotonic() < give_up_at:
        with context.sessions.begin() as session:
            num_most = max(fold_counts(session), fold_batch_deltas(session))
        if num_most < FOLD_CHUNK:
            return


def switch_generation(context: WorkerContext) -> None:
    """Have searches use the building generation once it holds every video that it can hold.

    So it goes on with whatever passage through the library a promotion has begun.
    """
    num_enqueued = advance(context.sessions, seconds=_WALK_SECONDS)
    if num_enqueued:
        context.doorbell.ring_many(JobKind.EMBED, num_enqueued)
