"""Which generations there are to be, and the jobs that fill them. Never imports torch.

All models that serve read the tokens and vectors of one generation: that of the task promoted last.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import func
from sqlalchemy.orm import Session

from clipbert.sampling import INDEX_PLAN
from store.generation_coverage import MissingVideos, missing_videos, settle_videos
from store.job_state import JobKind
from store.jobs import JobRepository, NewJob
from store.models import GenerationRepository, ModelRepository
from store.tables import Generation, GenerationState, Model, Task

log = structlog.get_logger(__name__)

_REBUILD_PRIORITY: Final = 8  # after new videos, which somebody waits for
_NEW_PRIORITY: Final = 5
# So many videos may be lost to a switch. If more fail, it is rather the model's fault than theirs.
_MOST_FAILED: Final = 0.05
_IN_USE: Final = (GenerationState.ACTIVE, GenerationState.BUILDING)


@dataclass(frozen=True)
class _Needed:
    """What the models that serve need clips to be made by."""

    visual: Model
    recall: Model


def is_in_use(generation: Generation) -> bool:
    """Tell whether new videos belong into a generation."""
    return generation.state in _IN_USE


def generations_in_use(session: Session) -> Sequence[Generation]:
    """List the generations that a new video belongs into, the searched one first."""
    in_use = [
        generation for generation in GenerationRepository(session).list() if is_in_use(generation)
    ]
    return sorted(in_use, key=lambda generation: generation.state != GenerationState.ACTIVE)


def embed_job(
    video_id: UUID, generation_id: UUID, *, priority: int = 5, batch_id: UUID | None = None
) -> NewJob:
    """Make the job that embeds a video for a generation; there is never more than one at a time."""
    return NewJob(
        kind=JobKind.EMBED,
        input={"video_id": str(video_id), "generation_id": str(generation_id)},
        priority=priority,
        batch_id=batch_id,
        video_id=video_id,
        dedupe_key=f"embed:{video_id}:{generation_id}",
    )


def follow_serving(session: Session) -> Generation | None:
    """Bring about the generation that the serving models need, in the transaction that chose them.

    One that is searched already stays. One that was searched before and is kept still is searched
    again at once; the videos that came since are embedded for it. Otherwise one is built in the
    background, or the building of one goes on, and what is searched now is searched until then.

    Args:
        session: holds the promotion lock.

    Returns:
        The generation that is to be built first; None if nothing has to be.

    Raises:
        ValueError: no model makes recall vectors.
    """
    generations = GenerationRepository(session)
    needed = _needed_models(session)
    known, active = generations.list(), generations.active()
    if active is not None and _fits(session, active, needed):
        _abandon(known, but=active)
        return None
    wanted = _find_kept(session, known, needed, active)
    if wanted is None:
        wanted = generations.create(
            model_id=needed.visual.id,
            recall_model_id=needed.recall.id,
            plan=INDEX_PLAN.to_json() if active is None else active.plan,
        )
        log.info("generation.created", generation_id=str(wanted.id))
    _abandon(known, but=wanted)
    was_searched = wanted.activated_at is not None
    missing = missing_videos(session, wanted.id)
    _enqueue(session, wanted, missing, _NEW_PRIORITY if was_searched else _REBUILD_PRIORITY)
    if wanted.recall_dim is None:
        # After the many jobs: until the commit nobody else can write clips.
        generations.ensure_index(wanted.id, needed.recall.config["hidden_size"])
    if was_searched or not any((missing.waiting, missing.failed, missing.forgotten)):
        _search(session, wanted)
        return None
    wanted.state, wanted.retired_at = GenerationState.BUILDING, None
    session.flush()
    return wanted


def switch_generation(session: Session) -> Generation | None:
    """Let searches use the building generation once it holds every video that it can hold.

    Meanwhile videos that nobody is going to embed for it get their job.

    Returns:
        The generation that is searched from the commit on; None if nothing changes.
    """
    if _newest_building(session) is None:
        return None  # as nearly always: without the lock
    ModelRepository(session).lock()
    building = _newest_building(session)
    if building is None:
        return None
    missing = missing_videos(session, building.id)
    if missing.forgotten:
        # They came while the generation was made.
        jobs = _embed_jobs(missing.forgotten, building.id, _REBUILD_PRIORITY)
        JobRepository(session).enqueue_many(jobs)
        return None
    if missing.waiting:
        return None
    num_videos = GenerationRepository(session).coverage(building.id).num_videos
    if len(missing.failed) > max(1, _MOST_FAILED * num_videos):
        log.warning(
            "generation.held_back",
            generation_id=str(building.id),
            failed=len(missing.failed),
            videos=num_videos,
        )
        return None
    _search(session, building, failed=missing.failed)
    return building


def embed_forgotten(session: Session) -> int:
    """Give a job to the videos that the searched generation lacks and nobody is going to embed.

    Returns:
        How many there were.
    """
    active = GenerationRepository(session).active()
    if active is None:
        return 0
    forgotten = missing_videos(session, active.id).forgotten
    return JobRepository(session).enqueue_many(_embed_jobs(forgotten, active.id, _NEW_PRIORITY))


def _needed_models(session: Session) -> _Needed:
    """Say what the clips are to be made by: the visual side of the task that changed last."""
    serving = ModelRepository(session).all_serving()
    if Task.RECALL not in serving:
        raise ValueError("no model makes recall vectors: register and promote clipbert-mini first")
    recall, _ = serving.pop(Task.RECALL)
    latest = max(serving.values(), key=lambda pair: pair[1].promoted_at, default=(recall, None))
    return _Needed(visual=latest[0], recall=recall)


def _fits(session: Session, generation: Generation, needed: _Needed) -> bool:
    """Tell whether a generation's tokens and vectors are those that these models need."""
    own = ModelRepository(session).get(generation.model_id)
    has_tokens = own.visual_sha256 == needed.visual.visual_sha256
    return has_tokens and generation.recall_model_id == needed.recall.id


def _find_kept(
    session: Session, known: Sequence[Generation], needed: _Needed, active: Generation | None
) -> Generation | None:
    """Find a generation that fits, made before: rather one that was searched than one begun."""
    kept = [
        generation
        for generation in known  # the newest first
        if generation.state in (GenerationState.BUILDING, GenerationState.RETIRED)
        and (active is None or generation.plan == active.plan)
        and _fits(session, generation, needed)
    ]
    return min(kept, key=lambda generation: generation.activated_at is None, default=None)


def _abandon(known: Iterable[Generation], *, but: Generation) -> None:
    """Retire what is being built, but for one: it was overtaken before it was ever searched."""
    for generation in known:
        if generation.state == GenerationState.BUILDING and generation.id != but.id:
            generation.state, generation.retired_at = GenerationState.RETIRED, func.now()


def _enqueue(
    session: Session, generation: Generation, missing: MissingVideos, priority: int
) -> None:
    # Those that failed before are tried once more.
    video_ids = [*missing.forgotten, *missing.failed]
    count = JobRepository(session).enqueue_many(_embed_jobs(video_ids, generation.id, priority))
    log.info("generation.filling", generation_id=str(generation.id), videos=count)


def _embed_jobs(video_ids: Iterable[UUID], generation_id: UUID, priority: int) -> Iterator[NewJob]:
    return (embed_job(video_id, generation_id, priority=priority) for video_id in video_ids)


def _search(session: Session, generation: Generation, *, failed: Sequence[UUID] = ()) -> None:
    session.flush()
    GenerationRepository(session).activate(generation.id)
    settle_videos(session, generation.id, failed=failed)
    log.info("generation.activated", generation_id=str(generation.id), failed=len(failed))


def _newest_building(session: Session) -> Generation | None:
    generations = GenerationRepository(session).list()
    return next((some for some in generations if some.state == GenerationState.BUILDING), None)
