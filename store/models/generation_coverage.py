"""Which videos a generation lacks and why, and what to remove of one that is searched no more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from psycopg.errors import LockNotAvailable
from sqlalchemy import exists, func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store.labels.tables import DatasetLabel
from store.models.repository import index_name
from store.models.tables import Generation, GenerationState
from store.videos.tables import SOUND_STATES, Clip, Video, VideoState

_LOCK_SECONDS = 2
_REVIVABLE = (VideoState.PROCESSING, VideoState.FAILED)

# Each video is looked up by itself, so that a part of the library costs as much as it is long.
_LOOK = """
SELECT seen.id, seen.state, clip.found IS NOT NULL AS has_clips,
       coalesce(embeds.is_waiting, false) AS is_waiting,
       coalesce(embeds.has_failed, false) AS has_failed
FROM (SELECT id, state FROM videos
      WHERE id > CAST(:after AS uuid) ORDER BY id LIMIT :limit) AS seen
LEFT JOIN LATERAL (
    SELECT true AS found FROM clips
    WHERE clips.generation_id = CAST(:generation_id AS uuid) AND clips.video_id = seen.id
    LIMIT 1) AS clip ON true
LEFT JOIN LATERAL (
    SELECT bool_or(jobs.state NOT IN ('succeeded', 'failed', 'cancelled', 'quarantined'))
               AS is_waiting,
           bool_or(jobs.state IN ('failed', 'cancelled', 'quarantined')) AS has_failed
    FROM jobs
    WHERE clip.found IS NULL AND jobs.video_id = seen.id AND jobs.kind = 'embed'
      AND jobs.input ->> 'generation_id' = CAST(:generation_id AS text)) AS embeds ON true
ORDER BY seen.id
"""

# Nearly always the first job answers it. One that embeds anew what has clips keeps nobody waiting.
_IS_WAITED_FOR = """
SELECT EXISTS (
    SELECT FROM jobs
    LEFT JOIN LATERAL (
        SELECT true AS found FROM clips
        WHERE clips.generation_id = CAST(:generation_id AS uuid)
          AND clips.video_id = jobs.video_id
        LIMIT 1) AS clip ON true
    WHERE jobs.kind = 'embed' AND jobs.input ->> 'generation_id' = CAST(:generation_id AS text)
      AND jobs.state NOT IN ('succeeded', 'failed', 'cancelled', 'quarantined')
      AND clip.found IS NULL)
"""

# In the order of the ids, as everybody locks videos.
_LOCK = """
SELECT id FROM videos WHERE id = ANY(CAST(:video_ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE
"""

# After the lock and in statements of their own, so that they see clips written a moment ago.
_MARK_READY = """
UPDATE videos SET state = 'ready', error_code = NULL, error_message = NULL, updated_at = now()
WHERE id = ANY(CAST(:video_ids AS uuid[])) AND state IN ('processing', 'failed')
  AND EXISTS (SELECT FROM clips WHERE clips.generation_id = CAST(:generation_id AS uuid)
                                  AND clips.video_id = videos.id)
"""

_MARK_PROCESSING = """
UPDATE videos SET state = 'processing', updated_at = now()
WHERE id = ANY(CAST(:video_ids AS uuid[])) AND state = 'ready'
  AND NOT EXISTS (SELECT FROM clips WHERE clips.generation_id = CAST(:generation_id AS uuid)
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
        AND input ->> 'generation_id' = CAST(:generation_id AS text)
      ORDER BY video_id, id DESC) AS last
WHERE videos.id = last.video_id AND videos.state IN ('processing', 'ready')
"""

_DELETE_CLIPS = """
DELETE FROM clips
WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM clips WHERE generation_id = :generation_id
    ORDER BY generation_id, video_id, index LIMIT :limit))
RETURNING tokens_key
"""

_BEFORE_ALL = UUID(int=0)


@dataclass(frozen=True)
class SeenVideos:
    """A part of the library, in the order of the ids, as one generation has it.

    Attributes:
        last: the last video of the part; None if no video comes after the part.
        waiting: sound videos without clips which a job is going to embed.
        failed: the same, whose job is over without success.
        forgotten: the same, which nothing is going to embed.
        to_be_ready: videos with clips that are not called searchable.
        to_be_processing: videos without clips that are called searchable.
    """

    last: UUID | None
    waiting: Sequence[UUID]
    failed: Sequence[UUID]
    forgotten: Sequence[UUID]
    to_be_ready: Sequence[UUID]
    to_be_processing: Sequence[UUID]


def check_videos(
    session: Session, generation_id: UUID, *, after: UUID | None = None, limit: int
) -> SeenVideos:
    """See which of some videos have no clips in a generation, and what becomes of them.

    Args:
        session: in a transaction of the caller's.
        generation_id: the generation.
        after: begin with the video after this one; None begins with the first.
        limit: how many videos are looked at.
    """
    parameters = {"generation_id": str(generation_id), "after": after or _BEFORE_ALL}
    rows = session.execute(text(_LOOK), parameters | {"limit": limit}).all()
    missing = [row for row in rows if not row.has_clips and row.state in SOUND_STATES]
    settled = [row for row in missing if not row.is_waiting]
    return SeenVideos(
        last=rows[-1].id if len(rows) == limit else None,
        waiting=[row.id for row in missing if row.is_waiting],
        failed=[row.id for row in settled if row.has_failed],
        forgotten=[row.id for row in settled if not row.has_failed],
        to_be_ready=[row.id for row in rows if row.has_clips and row.state in _REVIVABLE],
        to_be_processing=[row.id for row in missing if row.state == VideoState.READY],
    )


def is_waited_for(session: Session, generation_id: UUID) -> bool:
    """Whether a job is going to embed a video that a generation lacks."""
    parameters = {"generation_id": str(generation_id)}
    return bool(session.scalar(text(_IS_WAITED_FOR), parameters))


def settle_videos(
    session: Session, generation_id: UUID, *, seen: SeenVideos, failed: Sequence[UUID] = ()
) -> None:
    """Give some videos the state that they have in the generation which is searched.

    Args:
        session: in a transaction of the caller's.
        generation_id: the generation.
        seen: what was seen of the videos, in the same transaction.
        failed: those of them that the generation will not have, and whose jobs say why.
    """
    changed = sorted({*seen.to_be_ready, *seen.to_be_processing, *failed})
    if not changed:
        return
    session.execute(text(_LOCK), {"video_ids": changed})
    for statement, video_ids in (
        (_MARK_READY, seen.to_be_ready),
        (_MARK_PROCESSING, seen.to_be_processing),
        (_MARK_FAILED, failed),
    ):
        if video_ids:
            parameters = {"generation_id": str(generation_id), "video_ids": list(video_ids)}
            session.execute(text(statement), parameters)


def dataset_videos_without_clips(
    session: Session, dataset_id: UUID, *, generation_id: UUID
) -> Sequence[UUID]:
    """List the videos of a data set that are there and have no clips in a generation."""
    has_clips = exists().where(Clip.generation_id == generation_id, Clip.video_id == Video.id)
    of_dataset = select(DatasetLabel.video_id).where(DatasetLabel.dataset_id == dataset_id)
    query = select(Video.id).where(Video.id.in_(of_dataset), ~has_clips).order_by(Video.id)
    return session.scalars(query).all()


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
    """Mark a generation as gone for good, and drop its index.

    Returns:
        False if it is no longer retired, or if the table was too busy: to be tried later.
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
    """Delete some clips of a generation that is searched no more.

    Args:
        session: in a transaction of the caller's.
        generation_id: the generation.
        limit: at most so many clips, however many a video has.

    Returns:
        The keys of their tokens, to be removed after the commit; none when all clips are gone.
    """
    parameters = {"generation_id": generation_id, "limit": limit}
    return sorted(set(session.scalars(text(_DELETE_CLIPS), parameters)))
