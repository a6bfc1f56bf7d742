"""Videos that meet filters, the newest first, in pages that take a bounded time.

Where few videos meet a filter, its index finds them all. Where many do, the index would give them
in no order, and they may all be old or fail the other filters; so the videos themselves are looked
through from the newest on, a few thousand a page. A page may then be short, or have nothing, and
yet not be the last.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Uuid, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from store.name_parts import NameFilter
from store.query_plans import estimated_rows
from store.tables import Video, VideoState

_WINDOW: Final = 1000
"""Videos that are looked through at once: some milliseconds, with the jobs of each."""

_FEW: Final = 2000
"""As many as are read at once where an index finds them."""

_LOOKING_SECONDS: Final = 0.03
"""How long a page that is not full goes on with another window."""


@dataclass(frozen=True)
class VideoFilter:
    """Which videos are wanted; what is None is not asked.

    Attributes:
        state: only videos in this state; None: in any but superseded.
        missing: only videos whose file in place is not there, or only the others.
        tag: only videos with this tag.
        names: only videos that have a name of each kind.
    """

    state: VideoState | None = None
    missing: bool | None = None
    tag: str | None = None
    names: Sequence[NameFilter] = ()

    def leading(self) -> list[ColumnElement[bool]]:
        """Give the conditions with an index in the order of the list."""
        conditions: list[ColumnElement[bool]] = []
        if self.state is not None:
            conditions.append(Video.state == self.state)
        if self.missing:
            conditions.append(Video.missing_since.is_not(None))
        return conditions

    def others(self) -> list[ColumnElement[bool]]:
        """Give the other conditions, which are compared video by video."""
        conditions: list[ColumnElement[bool]] = []
        if self.state is None:
            conditions.append(Video.state != VideoState.SUPERSEDED)
        if self.missing is False:
            conditions.append(Video.missing_since.is_(None))
        if self.tag is not None:
            conditions.append(Video.tags.contains([self.tag]))
        return conditions + [names.condition() for names in self.names]


@dataclass(frozen=True)
class VideosFound:
    """Part of a list.

    Attributes:
        videos: the newest first.
        go_on_before: the list goes on with videos older than this one; None at its end.
    """

    videos: Sequence[Video]
    go_on_before: UUID | None


def list_videos(
    session: Session,
    wanted: VideoFilter,
    *,
    before: UUID | None,
    limit: int,
    looking_seconds: float = _LOOKING_SECONDS,
) -> VideosFound:
    """Find the newest videos that meet a filter.

    Args:
        session: in a transaction of the caller's.
        wanted: the filter.
        before: only videos older than this one.
        limit: how many at most, at least 1.
        looking_seconds: how long a page that is not full looks further.

    Returns:
        As many as wanted, or fewer: all, if the list ends there, or those among the newest that
        could be looked through in a short time.
    """
    began = time.monotonic()
    few = _few(session, wanted)
    if few is not None:
        return _part(_among(session, wanted, few, before, limit + 1), limit)
    found: list[Video] = []
    edge = before
    while True:
        start, edge = edge, _edge(session, wanted, edge)
        found += _within(session, wanted, edge, start, limit + 1 - len(found))
        if edge is None or len(found) > limit:
            return _part(found, limit)
        if time.monotonic() >= began + looking_seconds:
            return VideosFound(found, edge)


def _part(found: Sequence[Video], limit: int) -> VideosFound:
    return VideosFound(found[:limit], found[limit - 1].id if len(found) > limit else None)


def _edge(session: Session, wanted: VideoFilter, before: UUID | None) -> UUID | None:
    """Find the last video of the next window; None if the list ends within it."""
    query = select(Video.id).where(*wanted.leading()).order_by(Video.id.desc())
    query = query.offset(_WINDOW - 1).limit(1)
    return session.scalar(query if before is None else query.where(Video.id < before))


def _within(
    session: Session, wanted: VideoFilter, first: UUID | None, before: UUID | None, limit: int
) -> Sequence[Video]:
    """Find the videos of a window, from its first id on."""
    query = select(Video)
    if first is not None:
        query = query.where(Video.id >= first)
    return _newest(session, wanted, query, before, limit)


def _among(
    session: Session, wanted: VideoFilter, ids: Sequence[UUID], before: UUID | None, limit: int
) -> Sequence[Video]:
    """Find those of few videos that meet the whole filter."""
    query = select(Video).where(Video.id == any_(literal(ids, ARRAY(Uuid()))))
    return _newest(session, wanted, query, before, limit)


def _newest(
    session: Session, wanted: VideoFilter, query: Select[Video], before: UUID | None, limit: int
) -> Sequence[Video]:
    query = query.where(*wanted.leading(), *wanted.others())
    if before is not None:
        query = query.where(Video.id < before)
    return session.scalars(query.order_by(Video.id.desc()).limit(limit)).all()


def _few(session: Session, wanted: VideoFilter) -> Sequence[UUID] | None:
    """Find all videos that may meet one of the filters, where they are few; None if none is so."""
    queries: list[Select[UUID]] = [names.indexed() for names in wanted.names]
    if wanted.tag is not None:
        queries.append(select(Video.id).where(Video.tags.contains([wanted.tag])))
    for query in queries:
        if estimated_rows(session, query) > _FEW:
            continue
        ids = session.scalars(query.limit(_FEW + 1)).all()
        # The planner may know nothing of what came in a moment ago.
        if len(ids) <= _FEW:
            return ids
    return None
