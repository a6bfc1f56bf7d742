"""Videos that are indexed in a test's own process, without the ingest job before it."""

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from videos import write_counting_video

from clipbert.video.decode import probe_video
from policy.generations import embed_job
from policy.registration import follow_up, rollback_in
from store.database import Sessions
from store.jobs.records import BULK_PRIORITY
from store.jobs.repository import JobRepository
from store.media_files import hash_file
from store.models.repository import GenerationRepository
from store.models.tables import Promotion
from store.videos.repository import VideoRepository
from store.videos.tables import Clip, Video
from tests.workers.service import Service
from workers.child.context import WorkerContext
from workers.indexing.embedding import embed_next


def add_video(
    service: Service,
    path: Path,
    *,
    tags: tuple[str, ...] = (),
    priority: int = BULK_PRIORITY,
) -> tuple[UUID, UUID]:
    """Write the rows that an ingest job leaves. Returns the ids of the video and its embed job."""
    with service.sessions.begin() as session:
        video, _ = VideoRepository(session).create(
            uri=path.as_uri(),
            sha256=hash_file(path),
            probe=probe_video(path).to_json(),
            tags=tags,
        )
        generation = GenerationRepository(session).active()
        job = JobRepository(session).enqueue(embed_job(video.id, generation.id, priority=priority))
    return video.id, job.id


def write_long_video(folder: Path) -> Path:
    """Write a video of 256 clips.

    With ONE_FRAME_PASSES its embed job takes a few seconds, so that a test can meet it half done.
    """
    return write_counting_video(folder / "long.mp4", 1030, fps=1, gop=100)


def embed_all(context: WorkerContext) -> None:
    while embed_next(context):
        pass


def roll_back(
    sessions: Sessions, model_id: UUID, *, reason: str | None = None
) -> Sequence[Promotion]:
    """Bring back what served before a model, as the API does."""
    with sessions.begin() as session:
        changes = rollback_in(session, model_id, reason=reason)
    follow_up(sessions)
    return changes


def read_video(service: Service, video_id: UUID) -> Video:
    with service.sessions.begin() as session:
        return VideoRepository(session).get(video_id)


def read_clips(service: Service, video_id: UUID) -> list[Clip]:
    with service.sessions.begin() as session:
        generation = GenerationRepository(session).active()
        return list(VideoRepository(session).clips(video_id, generation.id))
