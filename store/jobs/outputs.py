"""Rows that a job makes, and that have its id: a finetune, a question, a search."""

from typing import TypeVar
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from store.jobs.tables import Job, JobOutput
from store.pages import Page, PageTokens, clamp_page_size

Row = TypeVar("Row", bound=JobOutput)


def rows_with_jobs(table: type[Row]) -> Select[Row, Job]:
    """Select the rows of a table, each with its job."""
    query = select(table, Job).join(Job, Job.id == table.id)
    return query.execution_options(populate_existing=True)


def find_with_job(session: Session, table: type[Row], *, id_: UUID) -> tuple[Row, Job] | None:
    """Find the row with this id, with its job."""
    found = session.execute(rows_with_jobs(table).where(table.id == id_)).one_or_none()
    if found is None:
        return None
    row, job = found
    return row, job


def list_with_jobs(
    session: Session,
    table: type[Row],
    *,
    query: Select[Row, Job],
    tokens: PageTokens,
    page_size: int,
    page_token: str | None,
) -> Page[tuple[Row, Job]]:
    """List a page of rows with their jobs, the newest first.

    Args:
        session: in a transaction of the caller's.
        table: of the rows.
        query: which rows, made by `rows_with_jobs`.
        tokens: of the list with its filters.
        page_size: how many rows at most.
        page_token: of the page before; None begins the list.

    Raises:
        InvalidPageToken: page_token is not one of this list's.
        ValueError: page_size is below 1.
    """
    size = clamp_page_size(page_size)
    if page_token is not None:
        query = query.where(table.id < tokens.id_of(page_token))
    found = session.execute(query.order_by(table.id.desc()).limit(size + 1))
    rows = [(row, job) for row, job in found]
    more = len(rows) > size
    return Page(rows[:size], tokens.of_id(rows[size - 1][0].id) if more else None)
