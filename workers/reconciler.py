"""Set right what went wrong: lost workers, lost messages, generations ready to be searched.

Rung by beat every few seconds. Any number of reconcilers may run at once.
"""

from collections import Counter
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from store.job_state import JobState
from store.jobs import JobRepository
from store.models import GenerationRepository
from store.tables import GenerationState, VideoState
from store.videos import VideoRepository
from workers.dispatch import MAX_RINGS, queue_of
from workers.lifecycle import Workplace

log = structlog.get_logger(__name__)


def reconcile(workplace: Workplace) -> None:
    """Return lost jobs, ring for jobs that wait unheard, and switch to a finished generation."""
    return_lost_jobs(workplace)
    ring_for_due_jobs(workplace)
    switch_generation(workplace)


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
    """Let searches use the building generation once it holds every sound video."""
    with workplace.sessions.begin() as session:
        generations = GenerationRepository(session)
        building = [
            generation
            for generation in generations.list()
            if generation.state == GenerationState.BUILDING
        ]
        for generation in building[:1]:  # the newest; an older one was overtaken by it
            coverage = generations.coverage(generation.id)
            if coverage.num_indexed < coverage.num_videos:
                continue
            generations.activate(generation.id)
            _mark_covered_ready(session, generation.id)
            log.info(
                "generation.activated",
                generation_id=str(generation.id),
                videos=coverage.num_indexed,
            )


def _mark_covered_ready(session: Session, generation_id: UUID) -> None:
    """Mark videos that were not searchable in the old generation and are in the new one."""
    videos = VideoRepository(session)
    page_token: str | None = None
    while True:
        page = videos.list(state=VideoState.PROCESSING, page_size=500, page_token=page_token)
        for video in page.items:
            if videos.clips(video.id, generation_id):
                videos.mark_ready(video.id)
        page_token = page.next_page_token
        if page_token is None:
            return
