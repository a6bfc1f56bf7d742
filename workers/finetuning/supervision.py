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

from workers.child.workplace import Workplace
from workers.errors import PauseRequested, Stopping
from workers.finetuning.subprocesses import BoundProcess
from workers.jobs.lease import Hold

log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 0.5
_BEAT_SECONDS: Final = 1.5
# The trainer is started again before its job is taken from this worker.
_LEASE_MARGIN_SECONDS: Final = 120


class Stalled(Enum):
    """What `supervise` gives in place of an exit status."""

    STALLED = "stalled"


def watch_lease(hold: Hold, *, stall_seconds: float) -> None:
    """Let a job's lease run out only after the trainer had its chance to be started again."""
    hold.stall_seconds = stall_seconds + _LEASE_MARGIN_SECONDS
    hold.touch()


def beat(workplace: Workplace) -> None:
    """Extend the leases and fetch requests; a database that is away for a while does no harm."""
    try:
        workplace.leases.beat()
    except (OperationalError, InterfaceError) as error:
        log.warning("heartbeat.failed", error=repr(error))


def supervise(
    process: BoundProcess,
    *,
    workplace: Workplace,
    hold: Hold,
    look: Callable[[], bool],
) -> int | Stalled:
    """Wait for a subprocess to end.

    Args:
        process: at work.
        workplace: of this process.
        hold: the job that it works for.
        look: called all the time; passes on what the subprocess has done, and tells whether it got
            any further since the last call.

    Returns:
        Its exit status, negative for a signal; or STALLED if it had to be killed since it did not
        get any further.

    Raises:
        Interrupted: the job should not go on; the subprocess has ended.
    """
    try:
        status = _wait(process, workplace=workplace, hold=hold, look=look)
        _looked(look)
    except (PauseRequested, Stopping) as interruption:
        _stop_gently(process, interruption, workplace=workplace, hold=hold)
        _looked(look)
        raise
    finally:
        process.kill()
    return status


def _wait(
    process: BoundProcess, *, workplace: Workplace, hold: Hold, look: Callable[[], bool]
) -> int | Stalled:
    stall_seconds = workplace.settings.finetune_stall_seconds
    advanced_at = beaten_at = time.monotonic()
    while (status := process.wait(_LOOK_SECONDS)) is None:
        now = time.monotonic()
        if _looked(look):
            advanced_at = now
            hold.touch()
        if now - beaten_at >= _BEAT_SECONDS:
            beaten_at = now
            beat(workplace)
        hold.check()
        if now - advanced_at > stall_seconds:
            log.error("trainer.stalled", job_id=str(hold.claim.id), seconds=stall_seconds)
            return Stalled.STALLED
    return status


def _stop_gently(
    process: BoundProcess, interruption: Exception, *, workplace: Workplace, hold: Hold
) -> None:
    """Let a subprocess save what it has, unless the job is cancelled meanwhile."""
    settings = workplace.settings
    process.ask_to_stop()
    asked_at = beaten_at = time.monotonic()
    while process.wait(_LOOK_SECONDS) is None:
        now = time.monotonic()
        hold.touch()
        if now - beaten_at >= _BEAT_SECONDS:
            beaten_at = now
            beat(workplace)
        if hold.is_lost or hold.cancel_requested:
            hold.check()
        is_pause = isinstance(interruption, PauseRequested) and not workplace.is_stopping()
        patience = settings.finetune_pause_seconds if is_pause else settings.finetune_stop_seconds
        if now - asked_at > patience:
            log.warning("trainer.killed", job_id=str(hold.claim.id), seconds=patience)
            return


def _looked(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except (OperationalError, InterfaceError) as error:
        log.warning("progress.not_reported", error=repr(error))
        return False
