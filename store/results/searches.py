"""Searches: texts searched for, and what was found."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from store.errors import SearchNotFound
from store.jobs.locks import lock_jobs
from store.jobs.outputs import find_with_job, list_with_jobs, rows_with_jobs
from store.jobs.tables import Job
from store.pages import Page, PageTokens
from store.results.tables import Search


class SearchRepository:
    """Every query about searches.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, job: Job, *, text: str, input: Mapping[str, Any] | None = None) -> Search:
        """Insert the search of a job; it has the job's id.

        Args:
            job: of kind search.
            text: what is searched for.
            input: all that was asked, as JSON; None takes the job's.
        """
        search = Search(id=job.id, text=text, input=dict(job.input if input is None else input))
        self._session.add(search)
        self._session.flush()
        return search

    def complete(
        self,
        search_id: UUID,
        result: Mapping[str, Any],
        *,
        model_id: UUID | None = None,
        generation_id: UUID | None = None,
    ) -> None:
        """Write what was found, and by which model and generation.

        Raises:
            SearchNotFound: there is none with this id.
        """
        lock_jobs(self._session, Job.id == search_id)
        changed = self._session.scalar(
            update(Search)
            .where(Search.id == search_id)
            .values(
                result=dict(result),
                model_id=model_id,
                generation_id=generation_id,
                completed_at=func.now(),
            )
            .returning(Search.id)
            .execution_options(synchronize_session=False)
        )
        if changed is None:
            raise SearchNotFound(search_id)

    def get(self, search_id: UUID) -> tuple[Search, Job]:
        """Get a search with its job.

        Raises:
            SearchNotFound: there is none with this id.
        """
        found = find_with_job(self._session, Search, id_=search_id)
        if found is None:
            raise SearchNotFound(search_id)
        return found

    def list(
        self, *, page_size: int = 50, page_token: str | None = None
    ) -> Page[tuple[Search, Job]]:
        """List searches with their jobs, the newest first.

        Raises:
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        tokens, query = PageTokens("searches"), rows_with_jobs(Search)
        return list_with_jobs(
            self._session,
            Search,
            query=query,
            tokens=tokens,
            page_size=page_size,
            page_token=page_token,
        )
