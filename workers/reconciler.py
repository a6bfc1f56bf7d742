"""Set right what went wrong: lost workers, lost messages, generations ready to be searched.

Rung by beat every few seconds. Any number of reconcilers may run at once.
"""

from collections import Counter

import structlog

from store.job_state import JobState
from store.jobs import JobRepository
from workers import generations
from workers.dispatch import MAX_RINGS, queue_of
from workers.lifecycle import Workplace

log = structlog.get_logger(__name__)


def reconcile(workplace: Workplace) -> None:
    """Return lost jobs, switch to a finished generation, and ring for jobs that wait unheard."""
    return_lost_jobs(workplace)
    switch_generation(workplace)
    ring_for_due_jobs(workplace)


def return_lost_jobs(workplace: Workplace) -> None:
    """Put the jobs of dead or hung workers back, and quarantine those that kill their workers."""
    with workplace.sessions.begin() as session:
        lost = JobRepository(session).return_lost(max_losses=workplace.settings.max_losses)
    for job in lost:
        is_poison = job.state == JobState.QUARANTINED
        log.log(
            40 if is_poison else 30,
            "job.quarantined" if is_poison else "job.returned",
            job_id=str(job.id),
            kind=job.kind,
            state=job.state,
        )


def ring_for_due_jobs(workplace: Workplace) -> None:
    """Ring the queues that have due rows and few messages: the ones sent for them may be lost."""
    with workplace.sessions.begin() as session:
        due_by_kind = JobRepository(session).due_counts()
    due = Counter[str]()
    for kind, count in due_by_kind.items():
        due[queue_of(kind)] += count
    for queue, count in due.items():
        waiting = workplace.doorbell.queue_length(queue)
        if waiting is None:  # Redis is away; the rows wait
            continue
        missing = min(count, MAX_RINGS) - waiting
        for _ in range(missing):
            if not workplace.doorbell.ring_queue(queue):
                break
        if missing > 0:
            log.info("queue.rung", queue=queue, due=count, waiting=waiting)


def switch_generation(workplace: Workplace) -> None:
    """Let searches use the building generation once it holds every video that it can hold."""
    with workplace.sessions.begin() as session:
        generations.switch_generation(session)
