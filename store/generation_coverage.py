"""Which videos a generation lacks and why, and what to remove of one that is searched no more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from psycopg.errors import LockNotAvailable
from sqlalchemy import delete, exists, func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store.models import index_name
from store.tables import Clip, DatasetLabel, Generation, GenerationState, Video

_LOCK_SECONDS = 2

_MISSING = """
SELECT videos.id,
       coalesce(bool_or(jobs.state NOT IN ('succeeded', 'failed', 'cancelled', 'quarantined')),
                false) AS is_waiting,
       coalesce(bool_or(jobs.state IN ('failed', 'cancelled', 'quarantined')), false) AS has_failed
FROM videos
LEFT JOIN jobs ON jobs.video_id = videos.id AND jobs.kind = 'embed'
              AND jobs.input ->> 'generation_id' = :generation_id
WHERE videos.state <> 'failed'
  AND NOT EXISTS (SELECT FROM clips WHERE clips.generation_id = CAST(:generation_id AS uuid)
                                      AND clips.video_id = videos.id)
GROUP BY videos.id
ORDER BY videos.id
"""

_MARK_READY = """
UPDATE videos SET state = 'ready', error_code = NULL, error_message = NULL, updated_at = now()
WHERE state <> 'ready'
  AND EXISTS (SELECT FROM clips WHERE clips.generation_id = :generation_id
                                  AND clips.video_id = videos.id)
"""

_MARK_PROCESSING = """
UPDATE videos SET state = 'processing', updated_at = now()
WHERE state = 'ready'
  AND NOT EXISTS (SELECT FROM clips WHERE clips.generation_id = :generation_id
                                      AND clips.video_id = videos.id)
"""

_MARK_FAILED = """
UPDATE videos SET
    state = 'failed',
    error_code = coalesce(last.error_code, 'cancelled'),
    error_message = coalesce(last.error_message, 'the job was cancelled'),
    updated_at = now()
FROM (SELECT DISTINCT ON (video_id) video_id, error_code, error_message
      FROM jobs
      WHERE kind = 'embed' AND state IN ('failed', 'cancelled', 'quarantined')
        AND video_id = ANY(CAST(:video_ids AS uuid[]))
        AND input ->> 'generation_id' = :generation_id
      ORDER BY video_id, id DESC) AS last
WHERE videos.id = last.video_id
"""


@dataclass(frozen=True)
class MissingVideos:
    """Sound videos that have no clips in a generation, each in one of three lists.

    Attributes:
        waiting: a job is going to embed them.
        failed: their job is over without success.
        forgotten: nothing is going to embed them.
    """

    waiting: Sequence[UUID]
    failed: Sequence[UUID]
    forgotten: Sequence[UUID]


def missing_videos(session: Session, generation_id: UUID) -> MissingVideos:
    """Find the sound videos that have no clips in a generation, and what becomes of them.

    Args:
        session: in a transaction of the caller's.
        generation_id: the generation.
    """
    waiting: list[UUID] = []
    failed: list[UUID] = []
    forgotten: list[UUID] = []
    for row in session.execute(text(_MISSING), {"generation_id": str(generation_id)}):
        (waiting if row.is_waiting else failed if row.has_failed else forgotten).append(row.id)
    return MissingVideos(waiting, failed, forgotten)


def dataset_videos_without_clips(
    session: Session, dataset_id: UUID, generation_id: UUID
) -> Sequence[UUID]:
    """List the videos of a data set that are there and have no clips in a generation."""
    has_clips = exists().where(Clip.generation_id == generation_id, Clip.video_id == Video.id)
    of_dataset = select(DatasetLabel.video_id).where(DatasetLabel.dataset_id == dataset_id)
    query = select(Video.id).where(Video.id.in_(of_dataset), ~has_clips).order_by(Video.id)
    return session.scalars(query).all()


def settle_videos(session: Session, generation_id: UUID, *, failed: Sequence[UUID] = ()) -> None:
    """Give every video the state that it has in a generation which is searched from now on.

    Args:
        session: in a transaction of the caller's.
        generation_id: the generation.
        failed: videos that it will not have, and whose jobs say why.
    """
    for statement in (_MARK_READY, _MARK_PROCESSING):
        session.execute(text(statement), {"generation_id": generation_id})
    parameters = {"generation_id": str(generation_id), "video_ids": list(failed)}
    session.execute(text(_MARK_FAILED), parameters)


def deletable_generations(session: Session, *, kept_for: timedelta) -> Sequence[UUID]:
    """List the generations that have not been searched for so long, or that were never finished.

    Args:
        session: in a transaction of the caller's.
        kept_for: how long a generation can be brought back at once.
    """
    query = select(Generation.id).where(
        Generation.state == GenerationState.RETIRED,
        func.coalesce(Generation.retired_at, Generation.created_at) < func.now() - kept_for,
    )
    return session.scalars(query.order_by(Generation.id)).all()


def mark_deleted(session: Session, generation_id: UUID) -> bool:
    """Say that a generation cannot be brought back, and drop its index.

    Returns:
        False if it is not retired any more, or if the table was too busy: to be tried later.
    """
    try:
        with session.begin_nested():
            # Whoever waits to lock the table lets all searches wait behind it.
            session.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
            marked = session.scalar(
                update(Generation)
                .where(Generation.id == generation_id, Generation.state == GenerationState.RETIRED)
                .values(state=GenerationState.DELETED)
                .returning(Generation.id)
                .execution_options(synchronize_session=False)
            )
            if marked is not None:
                session.execute(text(f"DROP INDEX IF EXISTS {index_name(generation_id)}"))
            session.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
    except OperationalError as error:
        if isinstance(error.orig, LockNotAvailable):
            return False
        raise
    return marked is not None


def generations_to_empty(session: Session) -> Sequence[UUID]:
    """List the deleted generations that still have clips."""
    has_clips = exists().where(Clip.generation_id == Generation.id)
    query = select(Generation.id).where(Generation.state == GenerationState.DELETED, has_clips)
    return session.scalars(query.order_by(Generation.id)).all()


def delete_clips(session: Session, generation_id: UUID, *, limit: int) -> Sequence[str]:
    """Delete the clips of some videos in a generation.

    Args:
        session: in a transaction of the caller's.
        generation_id: the generation.
        limit: at most so many videos.

    Returns:
        The keys of their tokens, to be removed after the commit; none when all are gone.
    """
    some = (
        select(Clip.video_id)
        .where(Clip.generation_id == generation_id)
        .distinct()
        .order_by(Clip.video_id)
        .limit(limit)
    )
    deleted = session.scalars(
        delete(Clip)
        .where(Clip.generation_id == generation_id, Clip.video_id.in_(some))
        .returning(Clip.tokens_key)
    )
    return sorted(set(deleted))
