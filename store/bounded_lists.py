"""The newest rows that meet filters, in pages that take a bounded time.

Where few rows meet a filter, its index finds them all. Where many do, the index would give them in
no order, and they may all be old or fail the other filters; so the rows themselves are looked
through from the newest on, some thousands a page. A page may then be short, or have nothing, and
yet not be the last.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Uuid, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from store.query_plans import estimated_rows
from store.tables import Label, Video

FEW: Final = 2000
"""As many rows as are read at once where an index finds them."""

LOOKING_SECONDS: Final = 0.03
"""How long a page that is not full goes on with another window."""

Row = TypeVar("Row", Video, Label)


@dataclass(frozen=True)
class Filters:
    """Conditions on the rows of a table, by what leads to them.

    Attributes:
        in_order: that an index meets in the order of the list.
        others: that are compared row by row.
        indexed: queries for the ids of all rows that may meet one of the others, led by its index;
            an id may come twice.
    """

    in_order: Sequence[ColumnElement[bool]]
    others: Sequence[ColumnElement[bool]]
    indexed: Sequence[Select[UUID]]


@dataclass(frozen=True)
class Found(Generic[Row]):
    """Part of a list.

    Attributes:
        rows: the newest first.
        go_on_before: the list goes on with rows older than this one; None at its end.
    """

    rows: Sequence[Row]
    go_on_before: UUID | None


def newest(
    session: Session,
    table: type[Row],
    wanted: Filters,
    *,
    before: UUID | None,
    limit: int,
    window: int,
    looking_seconds: float = LOOKING_SECONDS,
) -> Found[Row]:
    """Find the newest rows that meet filters.

    Args:
        session: in a transaction of the caller's.
        table: of the rows; their ids are in the order in which they came.
        wanted: the filters.
        before: only rows older than this one.
        limit: how many at most, at least 1.
        window: how many rows are looked through at once: some milliseconds.
        looking_seconds: how long a page that is not full looks further.

    Returns:
        As many as wanted, or fewer: all, if the list ends there, or those among the newest that
        could be looked through in a short time.
    """
    began = time.monotonic()
    query = select(table).where(*wanted.in_order, *wanted.others)
    few = _few(session, wanted)
    if few is not None:
        is_among = table.id == any_(literal(few, ARRAY(Uuid())))
        return _part(_first(session, table, query.where(is_among), before, limit + 1), limit)
    found: list[Row] = []
    edge = before
    while True:
        start, edge = edge, _edge(session, table, wanted, edge, window)
        within = query if edge is None else query.where(table.id >= edge)
        found += _first(session, table, within, start, limit + 1 - len(found))
        if edge is None or len(found) > limit:
            return _part(found, limit)
        if time.monotonic() >= began + looking_seconds:
            return Found(found, edge)


def _few(session: Session, wanted: Filters) -> Sequence[UUID] | None:
    """Find all rows that may meet one of the filters, where they are few; None if none is so."""
    for query in wanted.indexed:
        if estimated_rows(session, query) > FEW:
            continue
        ids = session.scalars(query.limit(FEW + 1)).all()
        # The planner may know nothing of what came in a moment ago.
        if len(ids) <= FEW:
            return ids
    return None


def _first(
    session: Session, table: type[Row], query: Select[Row], before: UUID | None, limit: int
) -> Sequence[Row]:
    query = query.order_by(table.id.desc()).limit(limit)
    if before is not None:
        query = query.where(table.id < before)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def _part(found: Sequence[Row], limit: int) -> Found[Row]:
    return Found(found[:limit], found[limit - 1].id if len(found) > limit else None)


def _edge(
    session: Session, table: type[Row], wanted: Filters, before: UUID | None, window: int
) -> UUID | None:
    """Find the last row of the next window; None if the list ends within it."""
    query = select(table.id).where(*wanted.in_order).order_by(table.id.desc())
    query = query.offset(window - 1).limit(1)
    return session.scalar(query if before is None else query.where(table.id < before))
