"""How a job is held: claimed with a lease, kept while its work advances, settled in one way.

A thread extends the leases of the process's jobs. It does so only while their work advances, so
that a job whose model hangs goes to another worker. The other way round it brings cancel requests
and lost leases, which the work meets in `RunningJob.advance`, between two chunks.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from store.database import Sessions, run_in_transaction
from store.errors import LeaseLost
from store.jobs.pieces import JobPieces
from store.jobs.repository import ClaimedJob, JobRepository
from store.jobs.state import JobKind
from workers.errors import (
    CancelRequested,
    HandedBack,
    Interrupted,
    JobLost,
    NoRoom,
    PauseRequested,
    Stopping,
)
from workers.jobs.best_effort import best_effort
from workers.jobs.retry import GiveUp, StandBack, TryAgain, decide

log = structlog.get_logger(__name__)

# What takes room on a disk. Answers are small, and people wait for them.
_GROWING: Final = frozenset({JobKind.INGEST, JobKind.EMBED, JobKind.FINETUNE, JobKind.TRIAL})
_DATABASE_AWAY: Final = (OperationalError, InterfaceError, PoolTimeout)


@dataclass(frozen=True)
class Outcome:
    """What a job that succeeded leaves on its row: its result, and the video it led to."""

    result: dict[str, Any]
    video_id: UUID | None = None


class Pulse:
    """When the work of a process last got further, whichever of its jobs it was."""

    def __init__(self) -> None:
        self.at = time.monotonic()


class RunningJob:
    """One claimed job, as seen by the work that is done on it.

    Args:
        claim: the row, with the token that fences its writes.
        is_stopping: whether the process shuts down.
        pulse: of the process: a job that waits for its turn behind others is not stalled.
    """

    def __init__(
        self, claim: ClaimedJob, *, is_stopping: Callable[[], bool], pulse: Pulse | None = None
    ) -> None:
        self.claim = claim
        self.stall_seconds: float | None = None  # None: as of all jobs of the process
        self.cancel_requested = claim.cancel_requested
        self.pause_requested = False
        self.is_lost = False
        self.lacks_room = False
        self._is_stopping = is_stopping
        self._claimed_at = time.monotonic()
        self._pulse = pulse or Pulse()

    @property
    def advanced_at(self) -> float:
        """When the work of its process last got further."""
        return max(self._claimed_at, self._pulse.at)

    def touch(self) -> None:
        """Note that the work got further: this job's, and so that of all the process holds."""
        self._pulse.at = time.monotonic()

    def advance(self) -> None:
        """Note that the work got further, and check whether it should go on.

        Raises:
            JobLost, CancelRequested, PauseRequested, Stopping: it should not.
        """
        self.touch()
        self.check()

    def check(self) -> None:
        """Check whether the work should go on, which may not have got any further.

        Raises:
            JobLost, CancelRequested, PauseRequested, Stopping: it should not.
        """
        if self.is_lost:
            raise JobLost(f"job {self.claim.id} is held by nobody or by another worker")
        if self.cancel_requested:
            raise CancelRequested(f"job {self.claim.id} was cancelled")
        if self.pause_requested:
            raise PauseRequested(f"job {self.claim.id} is to pause")
        if self.lacks_room:
            raise NoRoom(f"there is no room for what job {self.claim.id} writes")
        if self._is_stopping():
            raise Stopping("the worker is shutting down")


@dataclass(frozen=True)
class _UnwrittenEnd:
    """What becomes of a job, which the database was not there to be told."""

    job: RunningJob
    write: Callable[[Session], None]
    ended_at: float


class LeaseKeeper:
    """Claims jobs for this process and keeps their leases. Made in the child, after the fork.

    Args:
        sessions: where the jobs are.
        owner: name of this process, which no other has or had: by it the store knows what the
            process holds.
        lease: how long a job stays ours without a heartbeat.
        heartbeat_seconds: time between two heartbeats.
        stall_seconds: work that did not advance for so long is not extended.
        is_stopping: whether the process shuts down.
        is_idle: whether the process waits for a message. Jobs that it holds then, to go on with
            them at the next one, are handed back if none comes for half a lease.
        has_room: whether the disks have room; without, only what needs none is claimed.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        owner: str,
        lease: timedelta,
        heartbeat_seconds: float,
        stall_seconds: float,
        is_stopping: Callable[[], bool],
        is_idle: Callable[[], bool] = lambda: False,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._has_room = has_room
        self._sessions = sessions
        self._owner = owner
        self._lease = lease
        self._heartbeat_seconds = heartbeat_seconds
        self._stall_seconds = stall_seconds
        self._is_stopping = is_stopping
        self._is_idle = is_idle
        self._pulse = Pulse()
        self._jobs: dict[tuple[UUID, int], RunningJob] = {}
        self._unwritten: list[_UnwrittenEnd] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_closed, daemon=True, name="leases")
        self._thread.start()

    def claim(self, kinds: Sequence[JobKind], *, limit: int) -> list[RunningJob]:
        """Take up to `limit` due jobs and hold them until they are settled.

        One that was lost with a worker comes alone, and nothing comes while it is held and gets no
        further: see JobRepository.claim. While a disk is nearly full, none comes of a kind that
        would fill it.
        """
        if not self._has_room():
            kinds = [kind for kind in kinds if kind not in _GROWING]
            if not kinds:
                return []
        claims = run_in_transaction(
            self._sessions,
            lambda session: JobRepository(session).claim(
                kinds, limit=limit, owner=self._owner, lease=self._lease
            ),
        )
        jobs = [
            RunningJob(claim, is_stopping=self._is_stopping, pulse=self._pulse) for claim in claims
        ]
        with self._lock:
            self._jobs.update({_key(job): job for job in jobs})
        for job in jobs:
            log.info(
                "job.claimed",
                job_id=str(job.claim.id),
                kind=job.claim.kind,
                attempt=job.claim.attempt,
            )
        return jobs

    def finish(self, job: RunningJob, write: Callable[[Session], Outcome]) -> None:
        """Store a job's effects, its result and its state in one fenced transaction.

        Args:
            job: the job.
            write: writes the effects, nothing but rows, and says the result; nothing of it stays
                if the lease is lost, for then all is rolled back. It is run again after a deadlock.

        Raises:
            LeaseLost: another worker has the job.
        """

        def write_all(session: Session) -> None:
            outcome = write(session)
            JobRepository(session).finish(job.claim, outcome.result, video_id=outcome.video_id)
            JobPieces(session).remove(job.claim.id)

        run_in_transaction(self._sessions, write_all)
        self._forget(job)
        age = datetime.now(UTC) - job.claim.created_at
        log.info("job.succeeded", job_id=str(job.claim.id), age_seconds=age.total_seconds())

    def settle(self, job: RunningJob, error: BaseException) -> None:
        """Write what becomes of a job whose work ended in an error.

        Without the database it cannot be written now: heartbeats try again for as long as the lease
        lasts. After that the job is taken for lost and goes round again.
        """
        self._let_go(
            job,
            lambda session: _write_end(
                JobRepository(session), JobPieces(session), job.claim, error
            ),
        )

    def hand_back(self) -> None:
        """Hand back all jobs that the process holds, as if they had not been started."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.is_lost = True  # to whoever works on it still
            self.settle(job, HandedBack("its process does not go on"))

    def snooze(self, job: RunningJob, delay: timedelta) -> None:
        """Hand a job back to be run later; it costs no attempt."""
        run_at = datetime.now(UTC) + delay
        self._let_go(job, lambda session: JobRepository(session).snooze(job.claim, run_at))

    def add_event(self, job: RunningJob, type_: str, data: dict[str, Any]) -> None:
        """Write down something that happened to a job at work.

        Raises:
            JobLost: another worker has the job.
        """
        self._write(job, lambda session: JobRepository(session).add_event(job.claim, type_, data))

    def report_progress(self, job: RunningJob, *, done: int, total: int | None, stage: str) -> None:
        """Show how far a job is.

        Raises:
            JobLost: another worker has the job.
        """
        self._write(
            job,
            lambda session: JobRepository(session).report_progress(
                job.claim, done=done, total=total, stage=stage
            ),
        )

    def close(self) -> None:
        """End the heartbeats."""
        self._closed.set()
        self._thread.join(timeout=5)

    def beat(self) -> None:
        """Extend the leases of the jobs whose work advances; pass on what the rows say."""
        self._write_ends()
        now = time.monotonic()
        with self._lock:
            jobs = list(self._jobs.values())
        if jobs and self._is_idle() and now - self._pulse.at > self._lease.total_seconds() / 2:
            log.warning("jobs.left_lying", jobs=len(jobs))
            self.hand_back()
            return
        alive = [
            job
            for job in jobs
            if now - job.advanced_at < (job.stall_seconds or self._stall_seconds)
        ]
        for job in jobs:
            if job not in alive:
                log.error(
                    "job.stalled",
                    job_id=str(job.claim.id),
                    seconds=round(now - job.advanced_at, 1),
                )
        if not alive:
            return
        statuses = run_in_transaction(
            self._sessions,
            lambda session: JobRepository(session).extend(
                [_key(job) for job in alive], lease=self._lease
            ),
        )
        # A finetune under way would write checkpoints until the disk is full.
        has_room = self._has_room()
        for job in alive:
            job.lacks_room = not has_room and job.claim.kind == JobKind.FINETUNE
            status = statuses.get(job.claim.id)
            job.is_lost = status is None or not status.held
            job.cancel_requested = status is not None and status.cancel_requested
            job.pause_requested = status is not None and status.pause_requested

    def _beat_until_closed(self) -> None:
        while not self._closed.wait(self._heartbeat_seconds):
            # A database that is away for less than a lease is harmless.
            with best_effort("heartbeat.failed"):
                self.beat()

    def _let_go(self, job: RunningJob, write: Callable[[Session], None]) -> None:
        self._forget(job)
        end = _UnwrittenEnd(job, write, time.monotonic())
        if not self._wrote_end(end):
            with self._lock:
                self._unwritten.append(end)

    def _write_ends(self) -> None:
        """Write what could not be written when it came about, unless it is too late for that."""
        with self._lock:
            ends, self._unwritten = self._unwritten, []
        since = time.monotonic() - self._lease.total_seconds()
        left = [end for end in ends if end.ended_at > since and not self._wrote_end(end)]
        with self._lock:
            self._unwritten += left

    def _wrote_end(self, end: _UnwrittenEnd) -> bool:
        try:
            run_in_transaction(self._sessions, end.write)
        except LeaseLost:
            log.warning("job.lease_lost", job_id=str(end.job.claim.id))
        except _DATABASE_AWAY as gone:
            log.warning("job.not_settled", job_id=str(end.job.claim.id), error=repr(gone))
            return False
        return True

    def _write(self, job: RunningJob, write: Callable[[Session], None]) -> None:
        try:
            run_in_transaction(self._sessions, write)
        except LeaseLost as error:
            job.is_lost = True
            raise JobLost(str(error)) from error

    def _forget(self, job: RunningJob) -> None:
        with self._lock:
            self._jobs.pop(_key(job), None)


def _key(job: RunningJob) -> tuple[UUID, int]:
    return job.claim.id, job.claim.lease_token


def _write_end(
    jobs: JobRepository, pieces: JobPieces, claim: ClaimedJob, error: BaseException
) -> None:
    job_id = str(claim.id)
    match error:
        case JobLost() | LeaseLost():
            log.warning("job.lease_lost", job_id=job_id)
        case CancelRequested():
            jobs.mark_cancelled(claim)
            pieces.remove(claim.id)
            log.info("job.cancelled", job_id=job_id)
        case PauseRequested():
            jobs.mark_paused(claim)
            log.info("job.paused", job_id=job_id)
        case Interrupted():
            jobs.release(claim)
            log.info("job.released", job_id=job_id)
        case _:
            match decide(error, attempt=claim.attempt):
                case TryAgain(delay, code, message):
                    run_at = datetime.now(UTC) + delay
                    jobs.retry_later(claim, run_at=run_at, code=code, message=message)
                    log.warning("job.retried_later", job_id=job_id, code=code, exc_info=error)
                case StandBack(delay, code):
                    jobs.snooze(claim, datetime.now(UTC) + delay)
                    log.warning("job.stood_back", job_id=job_id, code=code, error=repr(error))
                case GiveUp(code, message, detail):
                    jobs.fail(claim, code=code, message=message, detail=detail)
                    pieces.remove(claim.id)
                    is_ours = code in ("internal_error", "out_of_memory")
                    log.warning(
                        "job.failed", job_id=job_id, code=code, exc_info=error if is_ours else None
                    )
