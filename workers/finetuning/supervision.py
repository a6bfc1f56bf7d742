"""Watch over a subprocess: keep the lease while it gets further, stop it when it should not go on.

Requests to cancel or pause are looked for here every second or two, for a GPU that is paid by the
hour should be free soon; the heartbeats of other jobs are slower.
"""

import time
from collections.abc import Callable
from enum import Enum
from typing import Final

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from workers.child.context import WorkerContext
from workers.errors import PauseRequested, Stopping
from workers.finetuning.subprocesses import Subprocess
from workers.jobs.lease import RunningJob

log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 0.5
_BEAT_SECONDS: Final = 1.5
# The trainer is started again before its job is taken from this worker.
_LEASE_MARGIN_SECONDS: Final = 120


class Stalled(Enum):
    """What `supervise` gives in place of an exit status."""

    STALLED = "stalled"


def watch_lease(job: RunningJob, *, stall_seconds: float) -> None:
    """Keep a job's lease until the trainer had its chance to be started again."""
    job.stall_seconds = stall_seconds + _LEASE_MARGIN_SECONDS
    job.touch()


def beat(context: WorkerContext) -> None:
    """Extend the leases and fetch requests; a database that is away for a while does no harm."""
    try:
        context.leases.beat()
    except (OperationalError, InterfaceError) as error:
        log.warning("heartbeat.failed", error=repr(error))


def supervise(
    process: Subprocess,
    *,
    context: WorkerContext,
    job: RunningJob,
    poll: Callable[[], bool],
) -> int | Stalled:
    """Wait for a subprocess to end.

    Args:
        process: at work.
        context: of this process.
        job: the job that it works for.
        poll: called all the time; passes on what the subprocess has done, and tells whether it got
            any further since the last call.

    Returns:
        Its exit status, negative for a signal; or STALLED if it had to be killed since it did not
        get any further.

    Raises:
        Interrupted: the job should not go on; the subprocess has ended.
    """
    try:
        status = _wait(process, context=context, job=job, poll=poll)
        _polled(poll)
    except (PauseRequested, Stopping) as interruption:
        _stop_gently(process, interruption, context=context, job=job)
        _polled(poll)
        raise
    finally:
        process.kill()
    return status


def _wait(
    process: Subprocess, *, context: WorkerContext, job: RunningJob, poll: Callable[[], bool]
) -> int | Stalled:
    stall_seconds = context.settings.finetune_stall_seconds
    advanced_at = beaten_at = time.monotonic()
    while (status := process.wait(_POLL_SECONDS)) is None:
        now = time.monotonic()
        if _polled(poll):
            advanced_at = now
            job.touch()
        if now - beaten_at >= _BEAT_SECONDS:
            beaten_at = now
            beat(context)
        job.check()
        if now - advanced_at > stall_seconds:
            log.error("trainer.stalled", job_id=str(job.claim.id), seconds=stall_seconds)
            return Stalled.STALLED
    return status


def _stop_gently(
    process: Subprocess, interruption: Exception, *, context: WorkerContext, job: RunningJob
) -> None:
    """Wait for a subprocess to save what it has, unless the job is cancelled meanwhile."""
    settings = context.settings
    process.ask_to_stop()
    asked_at = beaten_at = time.monotonic()
    while process.wait(_POLL_SECONDS) is None:
        now = time.monotonic()
        job.touch()
        if now - beaten_at >= _BEAT_SECONDS:
            beaten_at = now
            beat(context)
        if job.is_lost or job.cancel_requested:
            job.check()
        is_pause = isinstance(interruption, PauseRequested) and not context.is_stopping()
        patience = settings.finetune_pause_seconds if is_pause else settings.finetune_stop_seconds
        if now - asked_at > patience:
            log.warning("trainer.killed", job_id=str(job.claim.id), seconds=patience)
            return


def _polled(poll: Callable[[], bool]) -> bool:
    try:
        return poll()
    except (OperationalError, InterfaceError) as error:
        log.warning("progress.not_reported", error=repr(error))
        return False
