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
from workers.child.workplace import Workplace

log = structlog.get_logger(__name__)

_RETRYABLE_FOR: Final = timedelta(days=7)
"""How long a finetune that failed or was cancelled goes on from its last checkpoint."""


def sweep_runs(workplace: Workplace) -> None:
    """Remove the runs of finetunes that are over for a while, or are no more."""
    if workplace.run_folder.is_dir():
        for folder in list(workplace.run_folder.iterdir()):
            # The folder may be shared: what is not named as ours, or not known and not old, stays.
            if _is_left_over(workplace, folder):
                shutil.rmtree(folder, ignore_errors=True)
                log.info("run.swept", finetune_id=folder.name)
    if workplace.mirrors_runs:
        _sweep_keys(workplace, RUNS, _may_go_on)


def _is_left_over(workplace: Workplace, folder: Path) -> bool:
    try:
        UUID(folder.name)
    except ValueError:
        return False
    if not folder.is_dir():
        return False
    if _is_known(workplace, folder.name):
        return not _may_go_on(workplace, folder.name)
    changed_at = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    return datetime.now(UTC) - changed_at > _RETRYABLE_FOR


def sweep_curves(workplace: Workplace) -> None:
    """Remove the curves of finetunes that are no more."""
    _sweep_keys(workplace, FINETUNES, _is_known)


def _sweep_keys(
    workplace: Workplace, prefix: str, is_needed: Callable[[Workplace, str], bool]
) -> None:
    """Remove the blobs under `prefix/{finetune id}/` of finetunes that need them no more."""
    needed: dict[str, bool] = {}
    for key in list(workplace.blobs.keys(prefix)):
        name = PurePath(key).parts[1]
        if name not in needed:
            needed[name] = is_needed(workplace, name)
        if not needed[name]:
            workplace.blobs.delete(key)
            log.info("blob.swept", key=key)


def _may_go_on(workplace: Workplace, name: str) -> bool:
    job = _find_job(workplace, name)
    if job is None or not is_terminal(job.state):
        return job is not None
    return job.finished_at is None or datetime.now(UTC) - job.finished_at < _RETRYABLE_FOR


def _is_known(workplace: Workplace, name: str) -> bool:
    return _find_job(workplace, name) is not None


def _find_job(workplace: Workplace, name: str) -> Job | None:
    try:
        with workplace.sessions.begin() as session:
            return JobRepository(session).get(UUID(name))
    except (JobNotFound, ValueError):  # ValueError: no folder of ours
        return None
