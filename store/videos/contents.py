"""The blobs of a file's content: an upload and the thumbnails, named by the SHA-256.

Whoever adds content holds it until its rows are committed; whoever finds a content that nobody
holds and no row needs removes it. So a deletion never takes away what an upload has just brought.
"""

from datetime import timedelta

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, sessionmaker

from store.blobs import BlobStore
from store.idling import bear_idling
from store.jobs.state import ACTIVE_STATES, RETRYABLE_STATES, JobKind
from store.jobs.tables import Job
from store.videos.tables import Video

_REMOVAL_SECONDS = 600.0  # of up to three blobs, each tried several times

MEDIA = "media"
THUMBNAILS = "thumbnails"
TOKENS = "tokens"
"""The first part of the keys of a video's visual tokens, which end in its id."""
FINETUNES = "finetunes"
"""The first part of the keys of what a finetune shows: its curves."""
RUNS = "runs"
"""The first part of the keys of what a finetune goes on from, and of the folder beside the blobs
that has the same."""


def media_key(sha256: str) -> str:
    """Name the blob of an uploaded file."""
    return f"{MEDIA}/{sha256[:2]}/{sha256}"


def thumbnail_key(sha256: str, name: str) -> str:
    """Name the blob of a picture of a video: `poster.jpg` or `strip.jpg`."""
    return f"{THUMBNAILS}/{sha256}/{name}"


def curves_key(finetune_id: object, name: str) -> str:
    """Name the blob of a finetune's curves: `curves.png` or `curves.json`."""
    return f"{FINETUNES}/{finetune_id}/{name}"


def hold_content(session: Session, sha256: str) -> None:
    """Keep a content's blobs from being removed until the transaction ends.

    Any number may hold it at once. Waits for a removal that is under way: milliseconds.
    """
    session.execute(
        text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:sha256, 1))"),
        {"sha256": sha256},
    )


def remove_unneeded_content(
    sessions: sessionmaker[Session],
    blobs: BlobStore,
    *,
    sha256: str,
    retryable_for: timedelta = timedelta(0),
) -> None:
    """Remove a content's blobs that no video and no job needs, unless somebody is adding it now.

    Args:
        sessions: for a transaction of its own.
        blobs: where the blobs are.
        sha256: of the content.
        retryable_for: an upload whose job ended without success less than so long ago is kept,
            since the job may be retried.

    Raises:
        OSError: a blob could not be removed.
    """
    with sessions.begin() as session:
        # A blob may be removed far away: without the lock, that may meet one just put there.
        bear_idling(session, seconds=_REMOVAL_SECONDS)
        is_free = session.scalar(
            text("SELECT pg_try_advisory_xact_lock(hashtextextended(:sha256, 1))"),
            {"sha256": sha256},
        )
        if not is_free:
            return
        video = session.scalar(select(Video).where(Video.sha256 == sha256))
        if video is None:
            for name in ("poster.jpg", "strip.jpg"):
                blobs.delete(thumbnail_key(sha256, name))
        key = media_key(sha256)
        is_of_video = video is not None and video.blob_key == key
        if not is_of_video and not _is_named_by_job(session, key, retryable_for):
            blobs.delete(key)


def _is_named_by_job(session: Session, key: str, retryable_for: timedelta) -> bool:
    may_run = Job.state.in_(ACTIVE_STATES) | (
        Job.state.in_(RETRYABLE_STATES) & (Job.finished_at > func.now() - retryable_for)
    )
    query = select(Job.id).where(
        Job.kind == JobKind.INGEST, Job.input["blob_key"].astext == key, may_run
    )
    return session.scalar(query.limit(1)) is not None
