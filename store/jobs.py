"""Jobs: enqueued, claimed under a lease, written back with a fencing token, cancelled, retried.

Nothing here commits: whoever opened the session does. All instants are the database's, so that the
clocks of the workers do not matter.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import case, false, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from store import job_sql
from store.errors import IdempotencyConflict, IllegalMove, JobNotFound, LeaseLost
from store.identifiers import new_id
from store.job_records import ClaimedJob, LeaseStatus, LostJob, NewJob
from store.job_state import HELD_STATES, RETRYABLE_STATES, JobKind, JobState, can_move, is_terminal
from store.pages import Page, clamp_page_size, id_of_token, token_of_id
from store.tables import Job, JobEvent

__all__ = ["ClaimedJob", "JobRepository", "LeaseStatus", "LostJob", "NewJob"]

CHUNK = 1000
"""Rows of one INSERT of many: large enough to be fast, small enough to keep memory flat."""


class JobRepository:
    """Every query about jobs.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    # Enqueueing

    def enqueue(self, new: NewJob) -> Job:
        """Insert a job, unless it is there already.

        Returns:
            The new row; or the row with the same idempotency key, or with the same dedupe key and
            not over yet.

        Raises:
            IdempotencyConflict: the idempotency key is known from another job.
        """
        values = _columns(new)
        if new.error_code is not None:
            values |= {"state": JobState.FAILED, "finished_at": func.now()}
        inserted = insert(Job).values(**values).on_conflict_do_nothing().returning(Job.id)
        # Twice: the row in the way may end between the two statements.
        for _ in range(3):
            job_id = self._session.scalar(inserted)
            if job_id is not None:
                self._add_events([job_id], "queued" if new.error_code is None else "failed")
                # A video that had failed is on its way again with its new embed job.
                self._session.execute(text(job_sql.REVIVE_VIDEOS), {"ids": [job_id]})
                return self.get(job_id)
            found = self._find_known(new)
            if found is not None:
                return found
        raise IdempotencyConflict(new.idempotency_key or new.dedupe_key or str(new.id))

    def enqueue_many(self, new: Iterable[NewJob]) -> int:
        """Insert many jobs, in chunks; those that are there already are left out.

        Args:
            new: read once; may be a generator of any length.

        Returns:
            How many were inserted.
        """
        iterator, count = iter(new), 0
        while chunk := list(islice(iterator, CHUNK)):
            rows = [_columns(job) for job in chunk]
            parameters = {"rows": json.dumps(rows, default=_to_json)}
            result = self._session.execute(text(job_sql.INSERT_MANY), parameters)
            count += result.scalar_one()
        return count

    # Reading

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

        Raises:
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        size = clamp_page_size(page_size)
        query = select(Job).order_by(Job.id.desc()).limit(size + 1)
        if page_token is not None:
            query = query.where(Job.id < id_of_token(page_token))
        wanted: dict[Any, object] = {
            Job.kind: kind,
            Job.state: state,
            Job.batch_id: batch_id,
            Job.video_id: video_id,
        }
        for column, value in wanted.items():
            if value is not None:
                query = query.where(column == value)
        rows = self._session.scalars(query.execution_options(populate_existing=True)).all()
        more = len(rows) > size
        return Page(rows[:size], token_of_id(rows[size - 1].id) if more else None)

    def events(self, job_id: UUID, *, after: int = 0) -> Sequence[JobEvent]:
        """List what happened to a job, the oldest first, from the event after this number on."""
        query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
        return self._session.scalars(query.order_by(JobEvent.seq)).all()

    def due_counts(self) -> dict[JobKind, int]:
        """Count the jobs of each kind that could be claimed now; kinds with none are left out."""
        query = (
            select(Job.kind, func.count())
            .where(Job.state == JobState.QUEUED, Job.run_at <= func.now())
            .group_by(Job.kind)
        )
        return {row[0]: row[1] for row in self._session.execute(query)}

    def counts(self) -> dict[JobKind, dict[JobState, int]]:
        """Count all jobs by kind and state."""
        counts: dict[JobKind, dict[JobState, int]] = {}
        query = select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)
        for kind, state, count in self._session.execute(query):
            counts.setdefault(kind, {})[state] = count
        return counts

    # What workers do

    def claim(
        self,
        kinds: Sequence[JobKind],
        *,
        limit: int,
        owner: str,
        lease: timedelta,
        prefer_id: UUID | None = None,
    ) -> Sequence[ClaimedJob]:
        """Take due jobs, as no other worker can any more, by priority, then run_at, then id.

        Args:
            kinds: what the worker can do.
            limit: at most this many, at least 1.
            owner: who takes them, for people to read.
            lease: how long they are held unless extended.
            prefer_id: taken before all others if it is due.

        Returns:
            The jobs in order; empty if none is due.
        """
        parameters = {
            "kinds": list(kinds),
            "limit": limit,
            "owner": owner,
            "lease": lease,
            "prefer_id": prefer_id,
        }
        rows = self._session.execute(text(job_sql.CLAIM), parameters).mappings().all()
        return [
            ClaimedJob(
                id=row["id"],
                kind=JobKind(row["kind"]),
                input=row["input"],
                attempt=row["attempt"],
                lease_token=row["lease_token"],
                batch_id=row["batch_id"],
                video_id=row["video_id"],
                created_at=row["created_at"],
                cancel_requested=False,
            )
            for row in rows
        ]

    def extend(
        self, claims: Sequence[tuple[UUID, int]], *, lease: timedelta
    ) -> dict[UUID, LeaseStatus]:
        """Hold jobs for longer.

        Args:
            claims: the id and the lease token of each.
            lease: how long from now.

        Returns:
            For each id whether it is still held, and whether to stop.
        """
        parameters = {
            "ids": [job_id for job_id, _ in claims],
            "tokens": [token for _, token in claims],
            "lease": lease,
        }
        rows = self._session.execute(text(job_sql.EXTEND), parameters)
        held = {row.id: row.is_cancelling for row in rows}
        return {
            job_id: LeaseStatus(job_id in held, held.get(job_id, False)) for job_id, _ in claims
        }

    def report_progress(
        self, claim: ClaimedJob, *, done: int, total: int | None, stage: str
    ) -> None:
        """Say how far the work is. Raises LeaseLost."""
        row = self._session.execute(
            text(job_sql.REPORT_PROGRESS),
            {
                "id": claim.id,
                "token": claim.lease_token,
                "done": done,
                "total": total,
                "stage": stage,
            },
        ).one_or_none()
        if row is None:
            raise LeaseLost(claim.id, claim.lease_token)
        if row.stage_changed:
            self._add_events([claim.id], "stage", {"stage": stage})

    def finish(
        self, claim: ClaimedJob, result: dict[str, Any], *, video_id: UUID | None = None
    ) -> None:
        """Write the result; the job has succeeded. Raises LeaseLost.

        Args:
            claim: the job.
            result: JSON.
            video_id: the video that an ingest job turned out to be about.
        """
        values: dict[str, Any] = {"result": result, "error_code": None, "error_message": None}
        if video_id is not None:
            values["video_id"] = video_id
        self._write(claim, JobState.SUCCEEDED, "succeeded", **values)

    def fail(
        self, claim: ClaimedJob, *, code: str, message: str, detail: dict[str, Any] | None = None
    ) -> None:
        """Write down an error that trying again will not mend. Raises LeaseLost.

        A video that was waiting for this embed job fails with it.
        """
        self._write(
            claim,
            JobState.FAILED,
            "failed",
            data={"code": code, "message": message},
            error_code=code,
            error_message=message,
            error_detail=detail,
        )
        self._session.execute(text(job_sql.FAIL_VIDEOS), {"ids": [claim.id]})

    def retry_later(self, claim: ClaimedJob, *, run_at: datetime, code: str, message: str) -> None:
        """Give a job back to try again after an error that may pass. Raises LeaseLost.

        A job that is being cancelled becomes cancelled instead, here and in `snooze` and `release`.
        """
        self._give_back(
            claim,
            "retry_scheduled",
            {"code": code, "message": message, "run_at": run_at.isoformat()},
            run_at=run_at,
            error_code=code,
            error_message=message,
        )

    def snooze(self, claim: ClaimedJob, run_at: datetime) -> None:
        """Give a job back until an instant, as if it had not been started. Raises LeaseLost."""
        data = {"run_at": run_at.isoformat()}
        self._give_back(claim, "snoozed", data, run_at=run_at, attempt=Job.attempt - 1)

    def release(self, claim: ClaimedJob) -> None:
        """Give a job back at once, as if it had not been started. Raises LeaseLost."""
        self._give_back(claim, "released", {}, attempt=Job.attempt - 1)

    def mark_cancelled(self, claim: ClaimedJob) -> None:
        """Confirm that the work on a job has stopped for good. Raises LeaseLost."""
        self._write(claim, JobState.CANCELLED, "cancelled")
        self._session.execute(text(job_sql.FAIL_VIDEOS), {"ids": [claim.id]})

    # What people do

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
        asked = self._move_where(
            condition & (Job.state == JobState.RUNNING),
            JobState.CANCELLING,
            "cancel_requested",
            cancel_requested_at=func.now(),
        )
        cancelled = self._move_where(
            condition & Job.state.in_([JobState.QUEUED, JobState.PAUSED]),
            JobState.CANCELLED,
            "cancelled",
            cancel_requested_at=func.now(),
            finished_at=func.now(),
        )
        self._session.execute(text(job_sql.FAIL_VIDEOS), {"ids": cancelled})
        return len(asked) + len(cancelled)

    def retry_where(self, condition: ColumnElement[bool]) -> int:
        """Send round again, in one statement, all jobs that meet a condition and did not succeed.

        Returns:
            How many were queued.
        """
        retried = self._move_where(
            condition & Job.state.in_(RETRYABLE_STATES),
            JobState.QUEUED,
            "retried",
            attempt=0,
            worker_losses=0,
            run_at=func.now(),
            cancel_requested_at=None,
            error_code=None,
            error_message=None,
            error_detail=None,
            progress_done=0,
            progress_total=None,
            stage=None,
            finished_at=None,
        )
        self._session.execute(text(job_sql.REVIVE_VIDEOS), {"ids": retried})
        return len(retried)

    # What the reconciler does

    def return_lost(self, *, max_losses: int = 3) -> Sequence[LostJob]:
        """Take back the jobs of workers that stopped extending their leases.

        Args:
            max_losses: a job that lost so many workers is quarantined, with the code `worker_lost`:
                it may be what kills them.

        Returns:
            The jobs, each with the state it is in now: queued, cancelled or quarantined.
        """
        rows = self._session.execute(text(job_sql.RETURN_LOST), {"max_losses": max_losses}).all()
        lost = [LostJob(row.id, JobKind(row.kind), JobState(row.state)) for row in rows]
        over = [job.id for job in lost if is_terminal(job.state)]
        self._session.execute(text(job_sql.FAIL_VIDEOS), {"ids": over})
        return lost

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
        if job is None or job.idempotency_key is None or job.idempotency_key != new.idempotency_key:
            return job
        if (job.kind, job.input) != (new.kind, new.input):
            raise IdempotencyConflict(job.idempotency_key)
        return job

    def _lock(self, job_id: UUID) -> Job:
        query = select(Job).where(Job.id == job_id).with_for_update()
        job = self._session.scalar(query.execution_options(populate_existing=True))
        if job is None:
            raise JobNotFound(job_id)
        return job

    def _give_back(
        self, claim: ClaimedJob, event: str, data: dict[str, Any], **values: object
    ) -> None:
        is_cancelling = Job.state == JobState.CANCELLING
        state = self._write(
            claim,
            case((is_cancelling, JobState.CANCELLED.value), else_=JobState.QUEUED.value),
            event,
            data=data,
            finished_at=case((is_cancelling, func.now()), else_=None),
            **values,
        )
        if is_terminal(state):
            self._add_events([claim.id], "cancelled")
            self._session.execute(text(job_sql.FAIL_VIDEOS), {"ids": [claim.id]})

    def _write(
        self,
        claim: ClaimedJob,
        state: JobState | ColumnElement[str],
        event: str,
        *,
        data: dict[str, Any] | None = None,
        **values: object,
    ) -> JobState:
        if isinstance(state, JobState) and is_terminal(state):
            values.setdefault("finished_at", func.now())
        written = self._session.execute(
            update(Job)
            .where(
                Job.id == claim.id,
                Job.lease_token == claim.lease_token,
                Job.state.in_(HELD_STATES),
            )
            .values(
                state=state,
                lease_owner=None,
                lease_expires_at=None,
                updated_at=func.now(),
                **values,
            )
            .returning(Job.state)
            .execution_options(synchronize_session=False)
        ).scalar_one_or_none()
        if written is None:
            raise LeaseLost(claim.id, claim.lease_token)
        self._add_events([claim.id], event, data)
        return written

    def _move_where(
        self, condition: ColumnElement[bool], state: JobState, event: str, **values: object
    ) -> Sequence[UUID]:
        moved = self._session.scalars(
            update(Job)
            .where(condition)
            .values(state=state, updated_at=func.now(), **values)
            .returning(Job.id)
            .execution_options(synchronize_session=False)
        ).all()
        self._add_events(moved, event)
        return moved

    def _add_events(
        self, job_ids: Sequence[UUID], type_: str, data: dict[str, Any] | None = None
    ) -> None:
        parameters = {"ids": list(job_ids), "type": type_, "data": json.dumps(data or {})}
        self._session.execute(text(job_sql.ADD_EVENTS), parameters)


def _columns(new: NewJob) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "id": new.id or new_id(),
        "kind": new.kind,
        "input": new.input,
        "priority": new.priority,
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
