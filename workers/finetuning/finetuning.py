"""Finetune models: a claimed job from its frozen labels to a registered, judged model.

The work is done by subprocesses of the model library, which know no database; here they are
started, watched and stopped. Never imports torch.
"""

import time
from typing import Final

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from store.jobs.state import JobKind
from workers.child.workplace import Workplace
from workers.finetuning.completion import complete
from workers.finetuning.run_sweeping import sweep_runs
from workers.finetuning.supervision import beat, watch_lease
from workers.finetuning.training import train
from workers.finetuning.work import Work, open_work, prepare
from workers.jobs.lease import Hold

log = structlog.get_logger(__name__)

_OUTAGE_SECONDS: Final = 120.0
_OUTAGE_PAUSE_SECONDS: Final = 2.0


def finetune_next(workplace: Workplace) -> int:
    """Claim the finetune that is due and do it. Returns how many were claimed: 0 or 1.

    It goes on from the last checkpoint if it was begun before, here or by another worker.
    """
    holds = workplace.leases.claim([JobKind.FINETUNE], limit=1)
    for hold in holds:
        structlog.contextvars.bind_contextvars(job_id=str(hold.claim.id))
        try:
            _finetune_through_outages(workplace, hold)
        except Exception as error:  # noqa: BLE001  the edge of a job: settle logs it
            workplace.leases.settle(hold, error)
        finally:
            structlog.contextvars.unbind_contextvars("job_id")
    return len(holds)


def _finetune_through_outages(workplace: Workplace, hold: Hold) -> None:
    """Go on after a database that was away, which otherwise would count as a lost worker."""
    away_since: float | None = None
    while True:
        try:
            _finetune(workplace, hold)
        except (OperationalError, InterfaceError) as error:
            now = time.monotonic()
            if away_since is None or now - away_since > 2 * _OUTAGE_SECONDS:  # another outage
                away_since = now
            if now - away_since > _OUTAGE_SECONDS:
                raise
            log.warning("finetune.store_away", error=repr(error))
            time.sleep(_OUTAGE_PAUSE_SECONDS)
            beat(workplace)
            hold.check()
        else:
            return


def _finetune(workplace: Workplace, hold: Hold) -> None:
    sweep_runs(workplace)  # those of this machine, where the blobs are elsewhere; makes room too
    watch_lease(hold, stall_seconds=workplace.settings.finetune_stall_seconds)
    work = open_work(workplace, hold)
    try:
        prepare(work)
        train(work)
        complete(work)
    finally:
        work.mirror.close()
    _clean_up(work)


def _clean_up(work: Work) -> None:
    """Remove what a finetune that has succeeded needs no more; what fails here is swept later."""
    try:
        work.folder.empty()
        work.mirror.remove()
    except Exception:
        log.exception("finetune.not_cleaned_up")
