"""Jobs: enqueued, looked at, claimed by workers, cancelled, paused and retried by people.

Nothing here commits: whoever opened the session does.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Row,
    case,
    false,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.elements import ColumnElement

from store.counts import read_counts
from store.errors import IdempotencyConflict, IllegalMove, JobNotFound
from store.identifiers import new_id
from store.jobs import sql as job_sql
from store.jobs.leases import LeasedJobs
from store.jobs.locks import lock_jobs
from store.jobs.records import ClaimedJob, LeaseStatus, LostJob, NewJob
from store.jobs.state import (
    PAUSABLE_KINDS,
    RETRYABLE_STATES,
    JobKind,
    JobState,
    can_move,
    is_terminal,
)
from store.jobs.tables import Job, JobEvent
from store.lock_order import lock_videos
from store.pages import Page, PageTokens, clamp_page_size

__all__ = ["ClaimedJob", "JobRepository", "LeaseStatus", "LostJob", "NewJob"]

CHUNK = 1000
"""Rows of one INSERT of many: large enough to be fast, small enough to keep memory flat."""


class JobRepository(LeasedJobs):
    """Every query about jobs; those of workers are in LeasedJobs.

    Args:
        session: in a transaction of the caller's.
    """

    def enqueue(self, new: NewJob) -> Job:
        """Insert a job, unless it is there already.

        Returns:
            The new row; or the row with the same idempotency key, or with the same dedupe key and
            not over yet.

        Raises:
            IdempotencyConflict: the idempotency key is known from another job.
        """
        if new.kind == JobKind.EMBED and new.video_id is not None:
            lock_videos(self._session, [new.video_id])
        # Again: the row in the way may end between the two statements.
        for _ in range(3):
            for job_id in self._insert([new]):
                # A video that had failed is on its way again with its new embed job.
                self._session.execute(text(job_sql.REVIVE_VIDEOS), {"ids": [job_id]})
                return self.get(job_id)
            found = self._find_known(new)
            if found is not None:
                return found
        raise IdempotencyConflict(new.idempotency_key or new.dedupe_key or str(new.id))

    def find_repeated(self, new: NewJob) -> Job | None:
        """Find the job that the same request with the same idempotency key has made before.

        Raises:
            IdempotencyConflict: the key is known from another request.
        """
        if new.idempotency_key is None:
            return None
        query = select(Job).where(Job.idempotency_key == new.idempotency_key)
        job = self._session.scalar(query.execution_options(populate_existing=True))
        if job is not None:
            _check_repeated(job, new)
        return job

    def enqueue_many(self, new: Iterable[NewJob]) -> int:
        """Insert many jobs, in chunks; those that are there already are left out.

        Args:
            new: read once; may be a generator of any length.

        Returns:
            How many were inserted.
        """
        iterator, count = iter(new), 0
        while chunk := list(islice(iterator, CHUNK)):
            count += len(self._insert(chunk))
        return count

    def get(self, job_id: UUID) -> Job:
        """Get a job as it is now.

        Raises:
            JobNotFound: there is none with this id.
        """
        query = select(Job).where(Job.id == job_id).execution_options(populate_existing=True)
        job = self._session.scalar(query)
        if job is None:
            raise JobNotFound(job_id)
        return job

    def list(
        self,
        *,
        page_size: int = 50,
        page_token: str | None = None,
        kind: JobKind | None = None,
        state: JobState | None = None,
        batch_id: UUID | None = None,
        video_id: UUID | None = None,
    ) -> Page[Job]:
        """List jobs, the newest first.

        Trials, which nobody asked for, are among them only if they are the kind that is wanted.

        Raises:
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        size = clamp_page_size(page_size)
        tokens = PageTokens("jobs", kind=kind, state=state, batch_id=batch_id, video_id=video_id)
        query = select(Job).limit(size + 1)
        if page_token is not None:
            query = query.where(Job.id < tokens.id_of(page_token))
        columns: dict[Any, object] = {
            Job.kind: kind,
            Job.state: state,
            Job.batch_id: batch_id,
            Job.video_id: video_id,
        }
        given = {column: value for column, value in columns.items() if value is not None}
        if len(given) == 1 and video_id is None:
            # Spelled as a range and an order that only the column's own index has: where half of
            # the table fits, the planner would read the newest jobs until it has found some.
            [(column, value)] = given.items()
            query = query.where(column >= value, column <= value).order_by(column.desc())
        else:
            query = query.where(*(column == value for column, value in given.items()))
        query = query.order_by(Job.id.desc())
        if kind is None:
            query = query.where(Job.kind != JobKind.TRIAL)
        rows = self._session.scalars(query.execution_options(populate_existing=True)).all()
        more = len(rows) > size
        return Page(rows[:size], tokens.of_id(rows[size - 1].id) if more else None)

    def events(self, job_id: UUID, *, after: int = 0) -> Sequence[JobEvent]:
        """List what happened to a job, the oldest first, from the event after this number on."""
        query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
        return self._session.scalars(query.order_by(JobEvent.seq)).all()

    def due_counts(self) -> dict[JobKind, int]:
        """Count the jobs of each kind that could be claimed now; kinds with none are left out.

        Of each kind, at most 10,000 that wait for a later instant are told from those that are due.
        """
        rows = self._session.execute(text(job_sql.WAITING_FOR_LATER), {"kinds": list(JobKind)})
        later = {JobKind(row.kind): row.later for row in rows}
        queued = {kind: by.get(JobState.QUEUED, 0) for kind, by in self.counts().items()}
        due = {kind: count - later[kind] for kind, count in queued.items()}
        return {kind: count for kind, count in due.items() if count > 0}

    def due_up_to(self, most: int) -> dict[JobKind, int]:
        """Count the jobs of each kind that could be claimed now, up to a number of each.

        Args:
            most: as far as is counted, so that it takes no longer where a million wait.
        """
        parameters = {"kinds": list(JobKind), "most": most}
        rows = self._session.execute(text(job_sql.DUE_UP_TO), parameters)
        return {JobKind(row.kind): row.due for row in rows if row.due}

    def counts(self) -> dict[JobKind, dict[JobState, int]]:
        """Count all jobs by kind and state."""
        counts: dict[JobKind, dict[JobState, int]] = {}
        for name, count in read_counts(self._session, "jobs:").items():
            kind, state = name.split(":")
            counts.setdefault(JobKind(kind), {})[JobState(state)] = count
        return counts

    def request_cancel(self, job_id: UUID) -> Job:
        """Cancel a waiting job at once, or ask the worker of a running one to stop.

        Raises:
            JobNotFound: there is none with this id.
            IllegalMove: it is over.
        """
        job = self._lock(job_id)
        if job.state == JobState.CANCELLING:
            return job
        if is_terminal(job.state):
            raise IllegalMove(job_id, job.state, JobState.CANCELLED)
        self.cancel_where(Job.id == job_id)
        return self.get(job_id)

    def request_pause(self, job_id: UUID) -> Job:
        """Pause a waiting job at once, or ask the worker of a running one to pause it.

        Raises:
            JobNotFound: there is none with this id.
            IllegalMove: it is over or about to be, or its kind does not pause.
        """
        job = self._lock(job_id)
        if job.kind not in PAUSABLE_KINDS:
            kinds = " and ".join(f"{kind}s" for kind in PAUSABLE_KINDS)
            raise IllegalMove(job_id, job.state, JobState.PAUSED, f"only {kinds} can pause")
        if job.state == JobState.PAUSED or job.pause_requested_at is not None:
            return job
        if not can_move(job.state, JobState.PAUSED):
            raise IllegalMove(job_id, job.state, JobState.PAUSED)
        if job.state == JobState.RUNNING:
            self._move(job_id, "pause_requested", pause_requested_at=func.now())
        else:
            self._move(job_id, "paused", state=JobState.PAUSED)
        return self.get(job_id)

    def resume(self, job_id: UUID) -> Job:
        """Resume a paused job.

        Raises:
            JobNotFound: there is none with this id.
            IllegalMove: it is not paused.
        """
        job = self._lock(job_id)
        if job.state != JobState.PAUSED:
            raise IllegalMove(job_id, job.state, JobState.QUEUED, "only a paused job goes on")
        first = literal_column(
            job_sql.first_turn("jobs"), BigInteger
        )  # it has waited for its turn once
        self._move(job_id, "resumed", state=JobState.QUEUED, run_at=func.now(), turn=first)
        return self.get(job_id)

    def retry(self, job_id: UUID) -> Job:
        """Send a job that failed, was cancelled or quarantined round again, with a clean count.

        Raises:
            JobNotFound: there is none with this id.
            IllegalMove: it is not over, has succeeded, or another took its place meanwhile.
        """
        job = self._lock(job_id)
        if not can_move(job.state, JobState.QUEUED) or job.state not in RETRYABLE_STATES:
            raise IllegalMove(job_id, job.state, JobState.QUEUED)
        try:
            with self._session.begin_nested():
                self.retry_where(Job.id == job_id)
        except IntegrityError as error:
            why = "another job does the same work now"
            raise IllegalMove(job_id, job.state, JobState.QUEUED, why) from error
        return self.get(job_id)

    def cancel_where(self, condition: ColumnElement[bool]) -> int:
        """Cancel, in one statement, all jobs that meet a condition and are not over.

        Returns:
            How many were cancelled or asked to stop.
        """
        wanted = condition & Job.state.in_([JobState.QUEUED, JobState.PAUSED, JobState.RUNNING])
        if not lock_jobs(self._session, wanted):
            return 0
        # One statement: between two, a job could go from the one's states to the other's.
        is_running = Job.state == JobState.RUNNING
        moved = self._move_where(
            wanted,
            state=case((is_running, JobState.CANCELLING.value), else_=JobState.CANCELLED.value),
            cancel_requested_at=func.now(),
            pause_requested_at=None,  # whoever wants it over does not want it to stand still
            finished_at=case((is_running, None), else_=func.now()),
        )
        asked = [job for job in moved if job.state == JobState.CANCELLING]
        cancelled = [job for job in moved if job.state == JobState.CANCELLED]
        self._insert_events("cancel_requested", [(job.id, job.num_events) for job in asked])
        self._insert_events("cancelled", [(job.id, job.num_events) for job in cancelled])
        embeds = [job.id for job in cancelled if job.kind == JobKind.EMBED]
        self._session.execute(text(job_sql.FAIL_VIDEOS), {"ids": embeds})
        return len(moved)

    def retry_where(self, condition: ColumnElement[bool]) -> int:
        """Send round again, in one statement, all jobs that meet a condition and did not succeed.

        Returns:
            How many were queued.
        """
        wanted = condition & Job.state.in_(RETRYABLE_STATES)
        job_ids = lock_jobs(self._session, wanted)
        if not job_ids:
            return 0
        retried = list(self._session.scalars(text(job_sql.RETRY), {"ids": list(job_ids)}))
        self._session.execute(text(job_sql.REVIVE_VIDEOS), {"ids": retried})
        return len(retried)

    def _insert(self, new: Sequence[NewJob]) -> Sequence[UUID]:
        """Insert jobs at the ends of their queues, without those that are there already."""
        rows = [{"position": position, **_columns(job)} for position, job in enumerate(new)]
        parameters = {"rows": json.dumps(rows, default=_to_json)}
        return self._session.scalars(text(job_sql.INSERT_MANY), parameters).all()

    def _find_known(self, new: NewJob) -> Job | None:
        # Spelled with `false`: comparing a column with None would find every row without a key.
        known = or_(
            Job.idempotency_key == new.idempotency_key if new.idempotency_key else false(),
            (Job.dedupe_key == new.dedupe_key) & job_sql.is_active() if new.dedupe_key else false(),
            Job.id == new.id if new.id else false(),
        )
        # The one with the idempotency key comes first: it is the answer to this very request.
        order = case((Job.idempotency_key == new.idempotency_key, 0), else_=1)
        query = select(Job).where(known).order_by(order).limit(1)
        job = self._session.scalar(query.execution_options(populate_existing=True))
        if job is not None and job.idempotency_key == new.idempotency_key:
            _check_repeated(job, new)
        return job

    def _lock(self, job_id: UUID) -> Job:
        lock_jobs(self._session, Job.id == job_id)
        query = select(Job).where(Job.id == job_id)
        job = self._session.scalar(query.execution_options(populate_existing=True))
        if job is None:
            raise JobNotFound(job_id)
        return job

    def _move(self, job_id: UUID, event: str, **values: object) -> None:
        moved = self._move_where(Job.id == job_id, **values)
        self._insert_events(event, [(job.id, job.num_events) for job in moved])

    def _move_where(
        self, condition: ColumnElement[bool], **values: object
    ) -> Sequence[Row[UUID, int, JobKind, JobState]]:
        return self._session.execute(
            update(Job)
            .where(condition)
            .values(updated_at=func.now(), num_events=Job.num_events + 1, **values)
            .returning(Job.id, Job.num_events, Job.kind, Job.state)
            .execution_options(synchronize_session=False)
        ).all()


def _check_repeated(job: Job, new: NewJob) -> None:
    is_same = (job.kind, job.input, job.batch_id) == (new.kind, new.input, new.batch_id)
    if new.idempotency_key is not None and not is_same:
        raise IdempotencyConflict(new.idempotency_key)


def _columns(new: NewJob) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "id": new.id or new_id(),
        "kind": new.kind,
        "input": new.input,
        "priority": new.priority,
        "api_key_id": new.api_key_id,
        "batch_id": new.batch_id,
        "batch_index": new.batch_index,
        "video_id": new.video_id,
        "idempotency_key": new.idempotency_key,
        "dedupe_key": new.dedupe_key,
        "error_code": new.error_code,
        "error_message": new.error_message,
    }
    if new.run_at is not None:
        columns["run_at"] = new.run_at
    return columns


def _to_json(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{value!r} cannot be stored as JSON")
