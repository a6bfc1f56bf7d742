"""The newest rows that meet filters, in pages that take a bounded time.

Where few rows meet a filter, its index finds them all. Where many do, the index would give them in
no order, and they may all be old or fail the other filters; so the rows themselves are looked
through from the newest on, some thousands a page. A page may then be short, or have nothing, and
yet not be the last.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Uuid, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from store.query_plans import estimated_rows
from store.table_base import ListedTable

FEW: Final = 2000
"""As many rows as an index is asked for."""

PIECE: Final = 250
"""As many of these are looked through at once."""

LOOKING_SECONDS: Final = 0.03
"""How long a page that is not full goes on with another window."""

Row = TypeVar("Row", bound=ListedTable)


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
    *,
    wanted: Filters,
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
    if few is None:
        windows = _windows(session, table, wanted, before, window)
    else:
        windows = _pieces(table, few, before)
    found: list[Row] = []
    for within, edge in windows:
        query_within = query.where(*within).order_by(table.id.desc()).limit(limit + 1 - len(found))
        found += session.scalars(query_within.execution_options(populate_existing=True))
        if edge is None or len(found) > limit:
            break
        if time.monotonic() >= began + looking_seconds:
            return Found(found, edge)
    return Found(found[:limit], found[limit - 1].id if len(found) > limit else None)


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


def _pieces(
    table: type[Row], ids: Sequence[UUID], before: UUID | None
) -> Iterator[tuple[Sequence[ColumnElement[bool]], UUID | None]]:
    """Divide rows, of which the ids are known, into pieces that are looked through at once.

    Yields:
        The conditions of a piece, the newest first, and its oldest id; None if it is the last.
    """
    older = sorted({each for each in ids if before is None or each < before}, reverse=True)
    for start in range(0, len(older), PIECE):
        piece = older[start : start + PIECE]
        is_last = start + PIECE >= len(older)
        yield [table.id == any_(literal(piece, ARRAY(Uuid())))], None if is_last else piece[-1]


def _windows(
    session: Session, table: type[Row], wanted: Filters, before: UUID | None, window: int
) -> Iterator[tuple[Sequence[ColumnElement[bool]], UUID | None]]:
    """Divide all rows into windows, as _pieces does."""
    edge = before
    while True:
        older: list[ColumnElement[bool]] = [] if edge is None else [table.id < edge]
        query = select(table.id).where(*wanted.in_order, *older).order_by(table.id.desc())
        edge = session.scalar(query.offset(window - 1).limit(1))
        yield older if edge is None else [*older, table.id >= edge], edge
        if edge is None:
            return
