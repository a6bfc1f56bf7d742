"""Passages through the library for a generation: jobs made, completeness checked, states set.

A library may have a million videos, so a passage goes in steps of some hundred, each a short
transaction that also writes down how far it came. Whoever began a passage goes on with it for a
moment, maintenance does the rest: after a crash, or when somebody else is at it, nothing is lost
and nothing is done twice. Never imports torch.

    FILL     of a generation that is to be built: every video it lacks gets a job
    CHECK    of one whose jobs are over: if it lacks nothing but a few failed videos, it is searched
    REFILL   the rest of a check that found videos which came meanwhile: they get a job
    SETTLE   of the searched one: every video's state is made right, what was forgotten gets a job
    REVIVE   the same, and what failed in it before is tried once more
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policy.generations import begin_walk, embed_job, search
from store.database import Sessions
from store.jobs.repository import JobRepository
from store.models.generation_coverage import (
    SeenVideos,
    check_videos,
    is_waited_for,
    settle_videos,
)
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Generation, GenerationState, Walk
from store.videos.repository import VideoRepository

log = structlog.get_logger(__name__)

STEP: Final = 500
"""Videos looked at in one step: about 10 ms."""
FILLING_STEP: Final = 100
"""The same where most of them get a job, which costs more than the look."""

_REBUILD_PRIORITY: Final = 8  # after new videos, which somebody waits for
_NEW_PRIORITY: Final = 5
# So many videos may be lost to a switch. If more fail, it is rather the model's fault than theirs.
_MOST_FAILED: Final = 0.05
_HELD_BACK_FOR: Final = timedelta(minutes=15)
_SETTLING: Final = (Walk.SETTLE, Walk.REVIVE)
_FILLING: Final = (Walk.FILL, Walk.REVIVE)


@dataclass(frozen=True)
class Step:
    """What a step did.

    Attributes:
        num_enqueued: jobs that it made.
    """

    num_enqueued: int = 0


def advance(sessions: Sessions, *, seconds: float) -> int:
    """Go on with the passages that are to be made, or begin the one that is due.

    Args:
        sessions: for transactions of its own.
        seconds: end after about so long, if not before with the last of them.

    Returns:
        How many jobs were made: `embed` may be rung for them.
    """
    give_up_at = time.monotonic() + seconds
    num_enqueued = 0
    while True:
        with sessions.begin() as session:
            step = take_step(session)
        if step is None:
            return num_enqueued
        num_enqueued += step.num_enqueued
        if time.monotonic() >= give_up_at:
            return num_enqueued


def take_step(session: Session) -> Step | None:
    """Do the next step of a passage, or begin one.

    Args:
        session: in a transaction of its own, to be committed at once.

    Returns:
        None if there is nothing to do, or if somebody else promotes a model or does a step now.
    """
    generations = GenerationRepository(session)
    if generations.walking() is None and _to_be_checked(session) is None:
        return None  # as nearly always: without the lock
    if not ModelRepository(session).try_lock():
        return None
    generation = generations.walking()
    if generation is not None:
        return _go_on(session, generation)
    generation = _to_be_checked(session)
    if generation is None:
        return None
    begin_walk(generation, Walk.CHECK)
    return Step()


def embed_forgotten(session: Session) -> int:
    """Begin to look for videos that the searched generation lacks and nobody is going to embed.

    Returns:
        How many of the first of the library got a job; `advance` goes on.
    """
    if not ModelRepository(session).try_lock():
        return 0
    active = GenerationRepository(session).active()
    if active is None or active.walk is not None:
        return 0
    begin_walk(active, Walk.SETTLE)
    return _go_on(session, active).num_enqueued


def _to_be_checked(session: Session) -> Generation | None:
    """Find the generation that is being built, if no job is going to write into it."""
    generations = GenerationRepository(session).list()
    building = next((some for some in generations if some.state == GenerationState.BUILDING), None)
    if building is None:
        return None
    if is_waited_for(session, building.id):
        building.checked_at = None  # some of it was tried again
        return None
    if building.checked_at is not None and building.checked_at > _now(session) - _HELD_BACK_FOR:
        return None
    return building


def _now(session: Session) -> datetime:
    return session.scalars(select(func.now())).one()


def _go_on(session: Session, generation: Generation) -> Step:
    walk = generation.walk
    limit = FILLING_STEP if walk in _FILLING else STEP
    seen = check_videos(session, generation.id, after=generation.walked_to, limit=limit)
    if walk in _SETTLING:
        failed = seen.failed if walk == Walk.SETTLE else ()
        settle_videos(session, generation.id, seen=seen, failed=failed)
    retried = seen.failed if walk in _FILLING else ()
    num_enqueued = _enqueue(session, generation, [*seen.forgotten, *retried])
    generation.walked_to = seen.last
    if walk == Walk.CHECK:
        _check(session, generation, seen)
    if seen.last is None:
        _end(session, generation)
    session.flush()
    return Step(num_enqueued)


def _check(session: Session, generation: Generation, seen: SeenVideos) -> None:
    """Note what a part of the library says of whether the generation can be searched."""
    if seen.forgotten or seen.waiting:
        generation.walk = Walk.REFILL
        return
    generation.walk_failed += len(seen.failed)
    num_videos = GenerationRepository(session).coverage(generation.id).num_videos
    if generation.walk_failed > max(1, _MOST_FAILED * num_videos):
        log.warning(
            "generation.held_back",
            generation_id=str(generation.id),
            failed=generation.walk_failed,
            videos=num_videos,
        )
        generation.walk, generation.checked_at = None, _now(session)


def _end(session: Session, generation: Generation) -> None:
    """End a passage; one that found a generation complete lets it be searched."""
    is_complete = generation.walk == Walk.CHECK and not is_waited_for(session, generation.id)
    log.info("generation.walked", generation_id=str(generation.id), walk=generation.walk)
    generation.walk = None
    if is_complete:
        search(session, generation, Walk.SETTLE)


def _enqueue(session: Session, generation: Generation, video_ids: Sequence[UUID]) -> int:
    is_searched = generation.state == GenerationState.ACTIVE
    priority = _NEW_PRIORITY if is_searched else _REBUILD_PRIORITY
    strict = VideoRepository(session).strict_among(video_ids)
    jobs = [
        embed_job(video_id, generation.id, priority=priority, strict=video_id in strict)
        for video_id in video_ids
    ]
    return JobRepository(session).enqueue_many(jobs) if jobs else 0
