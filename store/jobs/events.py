"""Events of jobs, read by the part: one after another, of one type, or the last of many jobs."""

from collections.abc import Collection, Iterator, Sequence
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from store.jobs.tables import JobEvent

CHUNK = 1000
"""Rows that are in memory at once."""


class JobEventRepository:
    """Queries about the events of jobs.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def after(self, job_id: UUID, seq: int, *, limit: int) -> Sequence[JobEvent]:
        """List what happened to a job after the event with a number, the oldest first.

        Args:
            job_id: the job; one that does not exist has no events.
            seq: number of an event; 0 begins at the first.
            limit: at most so many.
        """
        query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > seq)
        return self._session.scalars(query.order_by(JobEvent.seq).limit(limit)).all()

    def of_types(self, job_id: UUID, types: Collection[str]) -> Iterator[JobEvent]:
        """Yield the events of some types, the oldest first, in memory that does not grow."""
        query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.type.in_(types))
        query = query.order_by(JobEvent.seq).execution_options(yield_per=CHUNK)
        yield from self._session.scalars(query)

    def latest(self, job_ids: Collection[UUID], type_: str, *, field: str) -> dict[UUID, JobEvent]:
        """Find for each job its last event of a type that has a field; jobs with none are left out.

        Args:
            job_ids: of the jobs.
            type_: of the events, such as `metrics`.
            field: of their data.
        """
        last = (
            select(JobEvent.job_id, func.max(JobEvent.seq))
            .where(
                JobEvent.job_id.in_(job_ids),
                JobEvent.type == type_,
                JobEvent.data.has_key(field),
            )
            .group_by(JobEvent.job_id)
        )
        query = select(JobEvent).where(tuple_(JobEvent.job_id, JobEvent.seq).in_(last))
        return {event.job_id: event for event in self._session.scalars(query)}
