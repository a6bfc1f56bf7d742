r"""Videos by a part of their file name, or of the name of a copy, in the library's order.

A part is any letters that follow one another in the name, in any case, as LIKE '%part%' has it. The
index is one of PostgreSQL's own full text, whose words are the trigrams of the name; what it finds
is compared in full. A part that many names have needs no index: the newest videos are looked
through first, and mostly fill the page.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, SelectBase, func, literal, select, text
from sqlalchemy.orm import Session

from store.job_state import JobKind
from store.tables import Job, Video

_NEWEST: Final = 2000
"""Videos that are looked through without the index: some milliseconds."""

_COPY_NAME: Final = Job.result["filename"].astext
_IS_COPY: Final = (Job.kind == JobKind.INGEST, Job.video_id.is_not(None))
_STEM: Final = r"\.[^.]*$"


def find_by_part(
    session: Session, query: Select[Video], part: str, *, before: UUID | None, limit: int
) -> Sequence[Video]:
    """Find the newest videos that have a part of a name.

    Args:
        session: in a transaction of the caller's.
        query: of videos, with all other conditions, without an order.
        part: of a file name.
        before: only videos older than this one.
        limit: how many at most.
    """
    newest_first = query.order_by(Video.id.desc()).limit(limit)
    edge = _edge_of_newest(session, before)
    if edge is None:
        return session.scalars(newest_first.where(Video.id.in_(_like(part)))).all()
    within = _like(part, Video.id >= edge, Job.video_id >= edge)
    found = session.scalars(newest_first.where(Video.id >= edge, Video.id.in_(within))).all()
    if len(found) == limit:
        return found
    return session.scalars(newest_first.where(Video.id.in_(_indexed(part)))).all()


def has_name(name: str) -> ColumnElement[bool]:
    """Give the condition that a video or a copy of it has just this file name."""
    stem = func.regexp_replace(literal(name), _STEM, "")
    own = select(Video.id).where(
        func.regexp_replace(Video.filename, text(f"'{_STEM}'"), text("''")) == stem,
        Video.filename == name,
    )
    copies = select(Job.video_id).where(
        *_IS_COPY,
        func.regexp_replace(_COPY_NAME, text(f"'{_STEM}'"), text("''")) == stem,
        name == _COPY_NAME,
    )
    return Video.id.in_(own.union(copies))


def _edge_of_newest(session: Session, before: UUID | None) -> UUID | None:
    """Find the last of the newest videos; None if there are not so many."""
    query = select(Video.id).order_by(Video.id.desc()).offset(_NEWEST).limit(1)
    return session.scalar(query if before is None else query.where(Video.id < before))


def _like(part: str, *conditions: ColumnElement[bool]) -> SelectBase:
    of_videos, of_copies = conditions or (literal(True), literal(True))
    own = select(Video.id).where(of_videos, Video.filename.icontains(part, autoescape=True))
    copies = select(Job.video_id).where(
        *_IS_COPY, of_copies, _COPY_NAME.icontains(part, autoescape=True)
    )
    return own.union(copies)


def _indexed(part: str) -> SelectBase:
    wanted = func.name_part_query(part)
    own = select(Video.id).where(
        func.name_trigrams(Video.filename).op("@@")(wanted),
        Video.filename.icontains(part, autoescape=True),
    )
    copies = select(Job.video_id).where(
        *_IS_COPY,
        func.name_trigrams(_COPY_NAME).op("@@")(wanted),
        _COPY_NAME.icontains(part, autoescape=True),
    )
    # Made whole before the videos are put in order, or the planner may go through all of those.
    return select(own.union(copies).cte("named").prefix_with("MATERIALIZED"))
