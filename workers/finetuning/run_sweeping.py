"""Remove what finetunes would go on from, once nobody can send them round again.

Called by the sweep, and by the finetune worker for the folder of its own machine.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from typing import Final
from uuid import UUID

import structlog

from store.errors import JobNotFound
from store.jobs.repository import JobRepository
from store.jobs.state import is_terminal
from store.jobs.tables import Job
from store.videos.contents import FINETUNES, RUNS
from workers.child.context import WorkerContext

log = structlog.get_logger(__name__)

_RETRYABLE_FOR: Final = timedelta(days=7)
"""How long a finetune that failed or was cancelled goes on from its last checkpoint."""


def sweep_runs(context: WorkerContext) -> None:
    """Remove the runs of finetunes that are over for a while, or are no more."""
    if context.run_folder.is_dir():
        for folder in list(context.run_folder.iterdir()):
            # The folder may be shared: what is not named as ours, or not known and not old, stays.
            if _is_left_over(context, folder):
                shutil.rmtree(folder, ignore_errors=True)
                log.info("run.swept", finetune_id=folder.name)
    if context.mirrors_runs:
        _sweep_keys(context, RUNS, _may_go_on)


def _is_left_over(context: WorkerContext, folder: Path) -> bool:
    try:
        UUID(folder.name)
    except ValueError:
        return False
    if not folder.is_dir():
        return False
    if _is_known(context, folder.name):
        return not _may_go_on(context, folder.name)
    changed_at = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    return datetime.now(UTC) - changed_at > _RETRYABLE_FOR


def sweep_curves(context: WorkerContext) -> None:
    """Remove the curves of finetunes that are no more."""
    _sweep_keys(context, FINETUNES, _is_known)


def _sweep_keys(
    context: WorkerContext, prefix: str, is_needed: Callable[[WorkerContext, str], bool]
) -> None:
    """Remove the blobs under `prefix/{finetune id}/` of finetunes that need them no more."""
    needed: dict[str, bool] = {}
    for key in list(context.blobs.keys(prefix)):
        name = PurePath(key).parts[1]
        if name not in needed:
            needed[name] = is_needed(context, name)
        if not needed[name]:
            context.blobs.delete(key)
            log.info("blob.swept", key=key)


def _may_go_on(context: WorkerContext, name: str) -> bool:
    job = _find_job(context, name)
    if job is None or not is_terminal(job.state):
        return job is not None
    return job.finished_at is None or datetime.now(UTC) - job.finished_at < _RETRYABLE_FOR


def _is_known(context: WorkerContext, name: str) -> bool:
    return _find_job(context, name) is not None


def _find_job(context: WorkerContext, name: str) -> Job | None:
    try:
        with context.sessions.begin() as session:
            return JobRepository(session).get(UUID(name))
    except (JobNotFound, ValueError):  # ValueError: no folder of ours
        return None
