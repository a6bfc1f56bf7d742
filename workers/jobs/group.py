"""Jobs that share a process, and often a forward pass, each with an outcome of its own.

For such jobs this is the only place that catches broadly. What a step of one job raises (bad media,
a deleted video, a cancellation, a database that is away for a moment) settles that job and no
other. What it guarantees beside that:

- A job is settled once, whatever else goes wrong with it afterwards.
- A job is charged an attempt only for its own failure. One that waits for its turn, or is in the
  middle when its process has to go for another's sake, is handed back as if it had not been
  started. While it waits its lease is kept: whatever advances in a process advances all that the
  process holds (workers.jobs.lease).
- A process whose device is lost, or one of whose threads hangs, settles the jobs at fault, hands
  back all others that it holds, rings for them, and ends.

Interleavings that this is about, worst first:

1. A thread hangs in a decoder while a search of minutes runs: the thread is looked at between two
   slices, its own running time counts, and it alone fails; the search goes on elsewhere from the
   slices that were kept.
2. A decode ends while the process does something else for minutes: it is done, so it is not late.
3. The database goes away between a job's effects and its end: the transaction holds both. If the
   end was written and the answer was lost, the job is settled again, which the fencing refuses.
4. A video is deleted, or its job cancelled, between two slices: the next slice leaves it out.
5. The device is lost in a pass of several jobs: which one did it is not known, so those in the pass
   try again later, each with an attempt spent; those outside of the pass are handed back.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from workers.errors import HandedBack
from workers.jobs.lease import LeaseKeeper, Outcome, RunningJob
from workers.jobs.retry import is_device_lost

log = structlog.get_logger(__name__)

Value = TypeVar("Value")


def leave_process(event: str, error: BaseException | None = None) -> NoReturn:
    """End this child at once, its jobs being settled; Celery starts a new one in its place."""
    log.critical(event, exc_info=error)
    logging.shutdown()
    os._exit(1)


@dataclass(frozen=True)
class _Done(Generic[Value]):
    value: Value


@dataclass(frozen=True)
class _Raised:
    error: Exception


class JobGroup:
    """Jobs of one process that are worked on side by side.

    Args:
        leases: of the process.
        keep: called before the process ends for a hung thread: saves what of the jobs' work can be
            gone on from.
        leave: ends the process; a test passes its own.
    """

    def __init__(
        self,
        leases: LeaseKeeper,
        *,
        keep: Callable[[], None] = lambda: None,
        leave: Callable[[str, BaseException | None], NoReturn] = leave_process,
    ) -> None:
        self._leases = leases
        self._keep = keep
        self._leave = leave
        self._open: dict[UUID, RunningJob] = {}

    def add(self, jobs: Iterable[RunningJob]) -> None:
        """Take claimed jobs into the group."""
        self._open.update({job.claim.id: job for job in jobs})

    def is_open(self, job: RunningJob) -> bool:
        """Whether a job has no outcome yet."""
        return self._open.get(job.claim.id) is job

    def attempt(self, step: Callable[[], Value], *jobs: RunningJob) -> Value | None:
        """Do a step of some jobs; what it raises is the outcome of these jobs and of no others.

        Args:
            step: what to do.
            jobs: whose step it is: one job's, or those of all that are in a forward pass.

        Returns:
            What the step gives; None if it raised.
        """
        match _try(step):
            case _Done(value):
                return value
            case _Raised(error) if is_device_lost(error):
                self.leave("device.lost", error, *jobs)
            case _Raised(error):
                for job in jobs:
                    self.settle(job, error)
        return None

    def advance(self, job: RunningJob) -> bool:
        """Note that a job's work got further; whether it should go on."""
        if self.is_open(job):
            self.attempt(job.advance, job)
        return self.is_open(job)

    def check(self, job: RunningJob) -> bool:
        """Whether a job should go on, which may not have got any further."""
        if self.is_open(job):
            self.attempt(job.check, job)
        return self.is_open(job)

    def finish(self, job: RunningJob, write: Callable[[Session], Outcome]) -> bool:
        """Write a job's effects and its success; whether both were written."""
        if not self.is_open(job):
            return False
        self.attempt(lambda: self._leases.finish(job, write), job)
        return self._open.pop(job.claim.id, None) is not None

    def settle(self, job: RunningJob, error: BaseException) -> None:
        """Settle a job with its outcome, once."""
        if not self.is_open(job):
            return
        del self._open[job.claim.id]
        match _try(lambda: self._leases.settle(job, error)):
            case _Raised(unwritten):
                # The lease runs out, and the job goes round again.
                log.error("job.not_settled", job_id=str(job.claim.id), exc_info=unwritten)

    def release(self, jobs: Sequence[RunningJob]) -> None:
        """Hand jobs back as if they had not been started."""
        for job in jobs:
            self.settle(job, HandedBack("its process goes on without it"))

    def leave(self, event: str, error: BaseException, *at_fault: RunningJob) -> NoReturn:
        """End the process: the jobs at fault get the error, all others that it holds go back."""
        for job in at_fault:
            self.settle(job, error)
        _try_and_log("jobs.not_kept", self._keep)
        self._open.clear()
        _try_and_log("jobs.not_handed_back", self._leases.hand_back)
        self._leave(event, error)


def _try_and_log(event: str, step: Callable[[], None]) -> None:
    match _try(step):
        case _Raised(error):
            log.error(event, exc_info=error)


def _try(step: Callable[[], Value]) -> "_Done[Value] | _Raised":
    try:
        return _Done(step())
    except Exception as error:  # noqa: BLE001  the edge of every job; settling it logs it
        return _Raised(error)
