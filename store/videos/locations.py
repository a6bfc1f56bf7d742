"""Where the content of videos lies in place: what is superseded, copied, missing or there again.

A location is the uri of a file under a media root. The bytes there may change at any time; a video
is its content. When other content is indexed at a location, what was there before is either known
at another location, and lives on there, or is superseded.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Text, cast, delete, func, select, text, update
from sqlalchemy.orm import Session

from store.jobs.repository import JobRepository
from store.jobs.state import JobKind
from store.jobs.tables import Job
from store.videos.tables import Clip, Video, VideoState

GROWING = "growing"
"""The event of an ingest job whose file was being written to when it was looked at."""

FORGET_COPIES = """
UPDATE jobs SET result = result - 'filename'
WHERE kind = 'ingest' AND video_id IS NOT NULL AND input ->> 'uri' = :uri AND video_id <> :but
"""

_MOST_COPIES = 16


@dataclass(frozen=True)
class CheckedLocation:
    """A video whose file is to be looked for."""

    video_id: UUID
    uri: str
    size_bytes: int | None
    is_missing: bool


class VideoLocations:
    """Queries about the locations of videos.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def lock(self, uri: str) -> None:
        """Be the only one to say what lies at a location, until the transaction ends.

        To be called first in a transaction, before any row is locked. Who then looks at the file
        itself and finds its own content knows that no one newer has been here.
        """
        self._session.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:uri, 2))"), {"uri": uri}
        )

    def others_at(self, uri: str, sha256: str) -> Sequence[Video]:
        """List the videos said to lie at a location that now has other content, by id."""
        query = select(Video).where(
            Video.uri == uri,
            Video.blob_key.is_(None),
            Video.sha256 != sha256,
            Video.state != VideoState.SUPERSEDED,
        )
        ordered = query.order_by(Video.id).execution_options(populate_existing=True)
        return self._session.scalars(ordered).all()

    def copies_of(self, video_id: UUID, *, but: str) -> Sequence[str]:
        """List the other locations where a video's content was found, the last one first."""
        uri = Job.input["uri"].astext
        query = (
            select(uri)
            .where(
                Job.video_id == video_id,
                Job.kind == JobKind.INGEST,
                uri.like("file:%"),
                uri != but,
            )
            .group_by(uri)
            .order_by(func.max(cast(Job.id, Text)).desc())
            .limit(_MOST_COPIES)
        )
        return self._session.scalars(query).all()

    def supersede(self, video_ids: Collection[UUID], *, by: UUID) -> Sequence[str]:
        """Retire videos whose content is no longer known anywhere.

        Their clips go, and their jobs are cancelled; labels, questions and searches stay with them.

        Args:
            video_ids: locked by the caller, by id.
            by: the video whose content lies there now.

        Returns:
            The keys of their tokens, to be removed after the commit.
        """
        ids = list(video_ids)
        JobRepository(self._session).cancel_where(
            Job.video_id.in_(ids) & (Job.kind != JobKind.INGEST)
        )
        keys = self._session.scalars(
            delete(Clip).where(Clip.video_id.in_(ids)).returning(Clip.tokens_key)
        )
        tokens_keys = sorted(set(keys))
        self._session.execute(
            update(Video)
            .where(Video.id.in_(ids))
            .values(
                state=VideoState.SUPERSEDED,
                superseded_by_id=by,
                missing_since=None,
                error_code=None,
                error_message=None,
                updated_at=func.now(),
            )
            .execution_options(synchronize_session=False)
        )
        return tokens_keys

    def forget_copies_at(self, uri: str, *, but: UUID) -> None:
        """Make the file name of a location stand for the video that lies there, and no other."""
        self._session.execute(text(FORGET_COPIES), {"uri": uri, "but": but})

    def keep_stamp(self, video_id: UUID, file_stamp: str | None) -> None:
        """Note how the file in place looks that has just been found to have the video's content."""
        self._session.execute(
            update(Video)
            .where(Video.id == video_id, Video.blob_key.is_(None))
            .values(file_stamp=file_stamp, missing_since=None, place_checked_at=func.now())
            .execution_options(synchronize_session=False)
        )

    def longest_unchecked(self, limit: int) -> Sequence[CheckedLocation]:
        """List the locations that were looked at longest ago."""
        query = (
            select(Video.id, Video.uri, Video.size_bytes, Video.missing_since.is_not(None))
            .where(Video.blob_key.is_(None), Video.state != text("'superseded'"))
            .order_by(Video.place_checked_at, Video.id)
            .limit(limit)
        )
        return [CheckedLocation(*row) for row in self._session.execute(query)]

    def note_checked(self, *, there: Collection[UUID], missing: Collection[UUID]) -> None:
        """Note which files were there, and which were not."""
        for ids, since in (
            (there, None),
            (missing, func.coalesce(Video.missing_since, func.now())),
        ):
            if ids:
                # In one order, and passing over what is being changed: it is looked at again soon.
                rows = select(Video.id).where(Video.id.in_(ids)).order_by(Video.id)
                held = rows.with_for_update(skip_locked=True, key_share=True)
                self._session.execute(
                    update(Video)
                    .where(Video.id.in_(held))
                    .values(missing_since=since, place_checked_at=func.now())
                    .execution_options(synchronize_session=False)
                )


def seconds_growing(session: Session, job_id: UUID) -> float:
    """For how long a job has found its file being written to, since it was last asked for."""
    query = text(
        "SELECT extract(epoch FROM clock_timestamp() - min(created_at)) FROM job_events "
        "WHERE job_id = :id AND type = :growing AND seq > coalesce("
        "(SELECT max(seq) FROM job_events WHERE job_id = :id AND type = 'retried'), 0)"
    )
    return float(session.scalar(query, {"id": job_id, "growing": GROWING}) or 0.0)
