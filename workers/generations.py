"""Which generations new videos are embedded for, and the jobs that do it. Never imports torch."""

from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.orm import Session

from store.job_state import JobKind
from store.jobs import NewJob
from store.models import GenerationRepository
from store.tables import Generation, GenerationState, VideoState
from store.videos import VideoRepository

_PAGE_SIZE: Final = 500
_REBUILD_PRIORITY: Final = 8  # after new videos, which somebody waits for


def generations_in_use(session: Session) -> Sequence[Generation]:
    """List the generations that a new video belongs into, the searched one first."""
    in_use = [
        generation
        for generation in GenerationRepository(session).list()
        if generation.state != GenerationState.RETIRED
    ]
    return sorted(in_use, key=lambda generation: generation.state != GenerationState.ACTIVE)


def embed_job(
    video_id: UUID, generation_id: UUID, *, priority: int = 5, batch_id: UUID | None = None
) -> NewJob:
    """Make the job that embeds a video for a generation; there is never more than one at a time."""
    return NewJob(
        kind=JobKind.EMBED,
        input={"video_id": str(video_id), "generation_id": str(generation_id)},
        priority=priority,
        batch_id=batch_id,
        video_id=video_id,
        dedupe_key=f"embed:{video_id}:{generation_id}",
    )


def rebuild_jobs(session: Session, generation_id: UUID) -> Iterator[NewJob]:
    """Make the jobs that embed every sound video for a generation."""
    page_token: str | None = None
    while True:
        page = VideoRepository(session).list(page_size=_PAGE_SIZE, page_token=page_token)
        for video in page.items:
            if video.state != VideoState.FAILED:
                yield embed_job(video.id, generation_id, priority=_REBUILD_PRIORITY)
        page_token = page.next_page_token
        if page_token is None:
            return
