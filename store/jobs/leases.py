"""Jobs in the hands of workers: claimed under a lease, written back with a fencing token.

A worker that is slow, stopped or cut off loses its lease; the job goes to another one, whose token
is higher, and what the first one writes after that is refused. All instants are the database's, so
that the clocks of the workers do not matter.

A process that dies takes along all that it holds, and only one of these jobs may have killed it.
Afterwards each is claimed with nothing beside it, so that the one is found and the others finish.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, case, func, literal_column, text, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from store.errors import LeaseLost
from store.jobs import sql as job_sql
from store.jobs.records import ClaimedJob, LeaseStatus, LostJob
from store.jobs.state import HELD_STATES, JobKind, JobState, is_terminal
from store.jobs.tables import Job
from store.lock_order import lock_videos

SUSPECT_PATIENCE: Final = timedelta(seconds=20)
"""How long a job that was lost with a worker waits for a process that holds nothing else."""

_FIRST_TURN: Final[ColumnElement[int]] = literal_column(job_sql.first_turn("jobs"), BigInteger)


class LeasedJobs:
    """What workers and the reconciler do with jobs; part of JobRepository.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def claim(
        self,
        kinds: Sequence[JobKind],
        *,
        limit: int,
        owner: str,
        lease: timedelta,
    ) -> Sequence[ClaimedJob]:
        """Take due jobs, which no other worker can then take: by priority, then by turn.

        Within a priority every queue, which is one API key's jobs of one batch, has a turn after
        the other; lost jobs come first. Kinds that are claimed together take turns too.

        A job that was lost with a worker is a suspect until it gets further than it was then (see
        `report_progress`), and may end the next process as well. So that it takes nobody along:

        - It is claimed alone: `claim` returns this one job, whatever the limit is.
        - A process that holds a suspect gets no other job until that is over or got further.
        - A process that holds other jobs gets a suspect only if that has waited for
          SUSPECT_PATIENCE, which is when no idle process is there to take it. It should work on
          the suspect alone meanwhile; if it is lost, only the suspect's loss counts.

        What a process holds is known by the owner, which is why no two may have the same.

        Args:
            kinds: what the worker can do.
            limit: at most this many, at least 1.
            owner: the process that takes them.
            lease: how long they are held unless extended.

        Returns:
            The jobs in order; empty if none is due.
        """
        parameters = {
            "kinds": list(kinds),
            "limit": limit,
            "owner": owner,
            "lease": lease,
            "suspect_patience": SUSPECT_PATIENCE,
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
                priority=row["priority"],
                api_key_id=row["api_key_id"],
                worker_losses=row["worker_losses"],
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
        held = {row.id: LeaseStatus(True, row.is_cancelling, row.is_pausing) for row in rows}
        return {job_id: held.get(job_id, LeaseStatus(False, False)) for job_id, _ in claims}

    def report_progress(
        self, claim: ClaimedJob, *, done: int, total: int | None, stage: str
    ) -> None:
        """Write down how far the work is. Raises LeaseLost.

        A job that gets further than it was when it lost a worker is no longer a suspect, and its
        losses are counted anew: a finetune that is preempted every hour finishes.
        """
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
            self._add_event(claim.id, "stage", {"stage": stage})

    def add_event(self, claim: ClaimedJob, type_: str, data: dict[str, Any]) -> None:
        """Write down something that happened to a job at work. Raises LeaseLost.

        Args:
            claim: the job.
            type_: what happened, such as `metrics`.
            data: JSON; no NaN and no infinity.
        """
        parameters = {
            "id": claim.id,
            "token": claim.lease_token,
            "type": type_,
            "data": json.dumps(data, allow_nan=False),
        }
        if self._session.scalar(text(job_sql.ADD_CLAIM_EVENT), parameters) is None:
            raise LeaseLost(claim.id, claim.lease_token)

    def finish(
        self, claim: ClaimedJob, result: dict[str, Any], *, video_id: UUID | None = None
    ) -> None:
        """Write the result; the job has succeeded. Raises LeaseLost.

        Args:
            claim: the job.
            result: JSON.
            video_id: the video that an ingest job turned out to be about.
        """
        if video_id is not None:
            # An item of a batch is counted by its video's state, which now stays until the commit.
            lock_videos(self._session, [video_id])
        values: dict[str, Any] = {
            "result": result,
            "error_code": None,
            "error_message": None,
            # The last report came before the last piece of work.
            "progress_done": func.coalesce(Job.progress_total, Job.progress_done),
        }
        if video_id is not None:
            values["video_id"] = video_id
        self._write(claim, JobState.SUCCEEDED, "succeeded", **values)

    def fail(
        self, claim: ClaimedJob, *, code: str, message: str, detail: dict[str, Any] | None = None
    ) -> None:
        """Write down an error that trying again will not mend. Raises LeaseLost.

        A video that was waiting for this embed job fails with it.
        """
        self._lock_video(claim)
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
        """Hand a job back to try again after an error that may pass. Raises LeaseLost.

        A job that is being cancelled becomes cancelled instead, and one that is to pause becomes
        paused; here and in `snooze`, `release` and `mark_paused`. It joins the end of its queue,
        while a job that was released or snoozed is the first of all: it had its turn once.
        """
        self._give_back(
            claim,
            "retry_scheduled",
            {"code": code, "message": message, "run_at": run_at.isoformat()},
            turn=literal_column(job_sql.next_turn("jobs")),
            run_at=run_at,
            error_code=code,
            error_message=message,
        )

    def snooze(self, claim: ClaimedJob, run_at: datetime) -> None:
        """Hand a job back until an instant, as if it had not been started. Raises LeaseLost."""
        data = {"run_at": run_at.isoformat()}
        self._give_back(
            claim, "snoozed", data, turn=_FIRST_TURN, run_at=run_at, attempt=Job.attempt - 1
        )

    def release(self, claim: ClaimedJob) -> None:
        """Hand a job back at once, as if it had not been started. Raises LeaseLost."""
        self._give_back(claim, "released", {}, turn=_FIRST_TURN, attempt=Job.attempt - 1)

    def mark_cancelled(self, claim: ClaimedJob) -> None:
        """Confirm that the work on a job has stopped for good. Raises LeaseLost."""
        self._lock_video(claim)
        self._write(claim, JobState.CANCELLED, "cancelled")
        self._session.execute(text(job_sql.FAIL_VIDEOS), {"ids": [claim.id]})

    def mark_paused(self, claim: ClaimedJob) -> None:
        """Confirm that the work on a job stands still, as if it had not been started.

        A job that is being cancelled becomes cancelled instead. Raises LeaseLost.
        """
        attempt = Job.attempt - 1
        self._give_back(claim, "paused", {}, state=JobState.PAUSED, attempt=attempt)

    def owners(self) -> Sequence[str]:
        """List the processes that hold jobs."""
        return self._session.scalars(text(job_sql.OWNERS)).all()

    def end_leases_of(self, owners: Sequence[str]) -> None:
        """End the leases of processes that are known to be gone, for return_lost.

        In a transaction of its own: return_lost locks videos first.
        """
        self._session.execute(text(job_sql.END_LEASES), {"owners": list(owners)})

    def return_lost(self, *, max_losses: int = 3) -> Sequence[LostJob]:
        """Take back the jobs of workers that stopped extending their leases.

        Args:
            max_losses: a job that lost so many workers without getting any further is quarantined,
                with the code `worker_lost`: it may be what kills them.

        Returns:
            The jobs, each with the state it is in now: queued, paused, cancelled or quarantined.
        """
        video_ids = list(self._session.scalars(text(job_sql.LOCK_VIDEOS_OF_LOST)))
        parameters = {"max_losses": max_losses, "video_ids": video_ids}
        rows = self._session.execute(text(job_sql.RETURN_LOST), parameters).all()
        lost = [LostJob(row.id, JobKind(row.kind), JobState(row.state)) for row in rows]
        over = [job.id for job in lost if is_terminal(job.state)]
        self._session.execute(text(job_sql.FAIL_VIDEOS), {"ids": over})
        return lost

    def _give_back(
        self,
        claim: ClaimedJob,
        event: str,
        data: dict[str, Any],
        *,
        state: JobState = JobState.QUEUED,
        **values: object,
    ) -> None:
        self._lock_video(claim)
        is_cancelling = Job.state == JobState.CANCELLING
        after = self._write(
            claim,
            case(
                (is_cancelling, JobState.CANCELLED.value),
                (Job.pause_requested_at.is_not(None), JobState.PAUSED.value),
                else_=state.value,
            ),
            event,
            data=data,
            finished_at=case((is_cancelling, func.now()), else_=None),
            **values,
        )
        if after == JobState.PAUSED and event != "paused":
            self._add_event(claim.id, "paused", {})
        if is_terminal(after):
            self._add_event(claim.id, "cancelled", {})
            self._session.execute(text(job_sql.FAIL_VIDEOS), {"ids": [claim.id]})

    def _lock_video(self, claim: ClaimedJob) -> None:
        """Lock the video that fails with an embed job, before the job."""
        if claim.kind == JobKind.EMBED and claim.video_id is not None:
            lock_videos(self._session, [claim.video_id])

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
                pause_requested_at=None,  # nobody works on it now
                updated_at=func.now(),
                num_events=Job.num_events + 1,
                **values,
            )
            .returning(Job.state, Job.num_events)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if written is None:
            raise LeaseLost(claim.id, claim.lease_token)
        self._insert_events(event, [(claim.id, written.num_events)], data)
        return JobState(written.state)

    def _insert_events(
        self,
        type_: str,
        numbered: Sequence[tuple[UUID, int]],
        data: dict[str, Any] | None = None,
    ) -> None:
        parameters = {
            "type": type_,
            "ids": [job_id for job_id, _ in numbered],
            "seqs": [seq for _, seq in numbered],
            "data": json.dumps(data or {}),
        }
        self._session.execute(text(job_sql.INSERT_EVENTS), parameters)

    def _add_event(self, job_id: UUID, type_: str, data: dict[str, Any]) -> None:
        parameters = {"id": job_id, "type": type_, "data": json.dumps(data)}
        self._session.execute(text(job_sql.ADD_EVENT), parameters)
