"""Remove what was kept for long enough, in short transactions. Never imports torch.

Called by the sweep; what it does not come to in its time, the next one does.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from policy.registration import remove_model_files
from store.errors import ModelNeeded
from store.jobs.retention import Pruned, prune_events, prune_jobs
from store.models.deletion import ModelDeletion
from workers.child.context import WorkerContext

log = structlog.get_logger(__name__)

_PRUNING_SECONDS: Final = 30.0  # of each of the two, of every fifteen minutes


def prune(context: WorkerContext) -> None:
    """Remove old events, old jobs and surplus candidate models."""
    settings = context.settings
    for name, step, kept_for in (
        ("events", prune_events, settings.event_retention),
        ("jobs", prune_jobs, settings.job_retention),
    ):
        if kept_for is not None:
            deleted = _prune(context, step, kept_for)
            if deleted:
                log.info(f"{name}.pruned", count=deleted)
    if settings.candidates_kept is not None:
        delete_surplus_candidates(context, kept=settings.candidates_kept)
    with context.sessions.begin() as session:
        deleted_models = ModelDeletion(session).with_files()
    for model_id, _ in deleted_models:
        remove_model_files(context.sessions, context.blobs, model_id=model_id)


def delete_surplus_candidates(context: WorkerContext, *, kept: int) -> None:
    """Delete models that finetunes left and nobody promoted, but for the newest of each task."""
    with context.sessions.begin() as session:
        surplus = ModelDeletion(session).surplus_candidates(kept=kept)
    for model_id in surplus:
        try:
            with context.sessions.begin() as session:
                ModelDeletion(session).delete(model_id)
        except ModelNeeded:
            continue  # it goes when that no longer needs it
        log.info("model.pruned", model_id=str(model_id))


def _prune(context: WorkerContext, step: Callable[..., Pruned], kept_for: timedelta) -> int:
    give_up_at = time.monotonic() + _PRUNING_SECONDS
    deleted = 0
    while time.monotonic() < give_up_at and not context.is_stopping():
        with context.sessions.begin() as session:
            pruned = step(session, kept_for=kept_for)
        deleted += pruned.num_deleted
        if pruned.is_last:
            break
    return deleted
