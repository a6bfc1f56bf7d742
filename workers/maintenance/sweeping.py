"""Remove what nothing needs: blobs that a killed process left, generations kept for long enough.

Rung by beat now and then; takes as long as there are blobs. Of models, only the files of deleted
ones are removed.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import chain, islice
from pathlib import PurePath
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import text

from policy.library_walk import embed_forgotten
from store.idling import bear_idling
from store.jobs.pieces import JobPieces
from store.jobs.state import JobKind
from store.models.generation_coverage import (
    deletable_generations,
    delete_clips,
    generations_to_empty,
    mark_deleted,
)
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import GenerationState
from store.videos.contents import MEDIA, THUMBNAILS, TOKENS, media_key, remove_unneeded_content
from store.videos.repository import VideoRepository
from workers.child.context import WorkerContext
from workers.finetuning.run_sweeping import sweep_curves, sweep_runs
from workers.maintenance.location_checks import check_locations
from workers.maintenance.pruning import prune

log = structlog.get_logger(__name__)

_CHUNK: Final = 500
_CLIPS: Final = 1000  # that one statement deletes
# Any constant will do, as long as nothing else locks it: "sweeping" in ASCII.
_LONGEST_SECONDS: Final = 900.0  # after which the task is killed
_SWEEP_LOCK: Final = 0x7377656570696E67
_RETRYABLE_FOR: Final = timedelta(days=7)
"""How long a job that failed or was cancelled can be retried with the upload it came with."""


def sweep(context: WorkerContext) -> None:
    """Remove what nothing needs, unless another process is at it."""
    # Held to the end: a sweep may take longer than the time to the next, and then would leave no
    # process of this queue to do what is urgent.
    with context.sessions.begin() as holder:
        bear_idling(holder, seconds=_LONGEST_SECONDS)
        if not holder.scalar(text(f"SELECT pg_try_advisory_xact_lock({_SWEEP_LOCK})")):
            return
        remove_old_generations(context)
        with context.sessions.begin() as session:
            num_forgotten = embed_forgotten(session)
        if num_forgotten:
            log.warning("videos.forgotten", count=num_forgotten)
            context.doorbell.ring_many(JobKind.EMBED, num_forgotten)
        check_locations(context)
        sweep_pieces(context)
        prune(context)
        sweep_blobs(context)
        sweep_runs(context)
        sweep_curves(context)


def remove_old_generations(context: WorkerContext) -> None:
    """Remove the clips, tokens and index of generations that were not searched for long enough."""
    kept_for = context.settings.generation_retention
    with context.sessions.begin() as session:
        deletable = deletable_generations(session, kept_for=kept_for)
    for generation_id in deletable:
        with context.sessions.begin() as session:
            ModelRepository(session).lock()  # or a rollback could bring it back meanwhile
            if mark_deleted(session, generation_id):
                log.info("generation.deleted", generation_id=str(generation_id))
    with context.sessions.begin() as session:
        to_empty = generations_to_empty(session)
    for generation_id in to_empty:
        while True:
            with context.sessions.begin() as session:
                keys = delete_clips(session, generation_id, limit=_CLIPS)
            if not keys:
                break
            for key in keys:
                context.blobs.delete(key)


def sweep_pieces(context: WorkerContext) -> None:
    """Remove what was kept of jobs that are over, such as those cancelled while they waited."""
    with context.sessions.begin() as session:
        num_removed = JobPieces(session).remove_unneeded()
    if num_removed:
        log.info("pieces.swept", count=num_removed)


def sweep_blobs(context: WorkerContext) -> None:
    """Remove uploads, thumbnails and tokens that belong to no video and no job."""
    for sha256 in chain(_uploads_without_video(context), _thumbnails_without_video(context)):
        remove_unneeded_content(
            context.sessions, context.blobs, sha256=sha256, retryable_for=_RETRYABLE_FOR
        )
    for key in _unneeded_tokens(context):
        context.blobs.delete(key)
        log.info("blob.swept", key=key)


def _uploads_without_video(context: WorkerContext) -> Iterator[str]:
    sha256s = (PurePath(key).name for key in context.blobs.keys(MEDIA))
    while chunk := set(islice(sha256s, _CHUNK)):
        with context.sessions.begin() as session:
            used = VideoRepository(session).blob_keys(chunk)
        # A video that is indexed in place may have been uploaded too.
        yield from (sha256 for sha256 in chunk if used.get(sha256) != media_key(sha256))


def _thumbnails_without_video(context: WorkerContext) -> Iterator[str]:
    sha256s = (PurePath(key).parent.name for key in context.blobs.keys(THUMBNAILS))
    while chunk := set(islice(sha256s, _CHUNK)):
        with context.sessions.begin() as session:
            known = VideoRepository(session).blob_keys(chunk)
        yield from chunk - known.keys()


def _unneeded_tokens(context: WorkerContext) -> Iterator[str]:
    """Yield the keys of tokens whose video or generation is gone."""
    with context.sessions.begin() as session:
        deleted = {
            str(generation.id)
            for generation in GenerationRepository(session).list()
            if generation.state == GenerationState.DELETED
        }
    keys = iter(context.blobs.keys(TOKENS))
    while chunk := list(islice(keys, _CHUNK)):
        by_id: dict[UUID, list[str]] = {}
        for key in chunk:
            with suppress(ValueError):  # not named by us
                by_id.setdefault(UUID(PurePath(key).stem), []).append(key)
        with context.sessions.begin() as session:
            known = VideoRepository(session).existing(by_id)
        for video_id, its_keys in by_id.items():
            for key in its_keys:
                if video_id not in known or PurePath(key).parent.name in deleted:
                    yield key
