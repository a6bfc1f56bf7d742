"""Finetune models: a claimed job from its frozen labels to a registered, judged model.

The work is done by subprocesses of the model library, which know no database; here they are
started, watched and stopped. Never imports torch.
"""

import time
from functools import partial
from typing import Final

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from store.jobs.state import JobKind
from workers.child.context import WorkerContext
from workers.finetuning.completion import complete
from workers.finetuning.run_sweeping import sweep_runs
from workers.finetuning.supervision import beat, watch_lease
from workers.finetuning.training import train
from workers.finetuning.work import Work, open_work, prepare
from workers.jobs.best_effort import best_effort
from workers.jobs.group import JobGroup
from workers.jobs.lease import RunningJob

log = structlog.get_logger(__name__)

_OUTAGE_SECONDS: Final = 120.0
_OUTAGE_PAUSE_SECONDS: Final = 2.0


def finetune_next(context: WorkerContext) -> int:
    """Claim the finetune that is due and do it. Returns how many were claimed: 0 or 1.

    It goes on from the last checkpoint if it was begun before, here or by another worker.
    """
    group = JobGroup(context.leases)
    jobs = context.leases.claim([JobKind.FINETUNE], limit=1)
    group.add(jobs)
    for job in jobs:
        with structlog.contextvars.bound_contextvars(job_id=str(job.claim.id)):
            group.attempt(partial(_finetune_through_outages, context, job), job)
    return len(jobs)


def _finetune_through_outages(context: WorkerContext, job: RunningJob) -> None:
    """Go on after a database that was away, which otherwise would count as a lost worker."""
    away_since: float | None = None
    while True:
        try:
            _finetune(context, job)
        except (OperationalError, InterfaceError) as error:
            now = time.monotonic()
            if away_since is None or now - away_since > 2 * _OUTAGE_SECONDS:  # another outage
                away_since = now
            if now - away_since > _OUTAGE_SECONDS:
                raise
            log.warning("finetune.store_away", error=repr(error))
            time.sleep(_OUTAGE_PAUSE_SECONDS)
            beat(context)
            job.check()
        else:
            return


def _finetune(context: WorkerContext, job: RunningJob) -> None:
    sweep_runs(context)  # those of this machine, where the blobs are elsewhere; makes room too
    watch_lease(job, stall_seconds=context.settings.finetune_stall_seconds)
    work = open_work(context, job)
    try:
        prepare(work)
        train(work)
        complete(work)
    finally:
        work.mirror.close()
    _clean_up(work)


def _clean_up(work: Work) -> None:
    """Remove what a finetune that has succeeded needs no more; what fails here is swept later."""
    with best_effort("finetune.not_cleaned_up"):
        work.folder.empty()
        work.mirror.remove()
