"""Which generations there are to be, and the jobs that fill them. Never imports torch.

All models that serve read the tokens and vectors of one generation: that of the task promoted last.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from clipbert.sampling.plan import INDEX_PLAN
from store.jobs.repository import NewJob
from store.jobs.state import JobKind
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Generation, GenerationState, Model, Walk
from store.table_base import Task
from store.videos.tables import SOUND_STATES, Video

log = structlog.get_logger(__name__)

_IN_USE: Final = (GenerationState.ACTIVE, GenerationState.BUILDING)


@dataclass(frozen=True)
class _Needed:
    """What the models that serve need clips to be made by."""

    visual: Model
    recall: Model


def is_in_use(generation: Generation) -> bool:
    """Whether new videos belong in a generation."""
    return generation.state in _IN_USE


def generations_in_use(session: Session) -> Sequence[Generation]:
    """List the generations that a new video belongs into, the searched one first."""
    in_use = [
        generation for generation in GenerationRepository(session).list() if is_in_use(generation)
    ]
    return sorted(in_use, key=lambda generation: generation.state != GenerationState.ACTIVE)


def embed_job(
    video_id: UUID,
    generation_id: UUID,
    *,
    priority: int = 5,
    api_key_id: UUID | None = None,
    batch_id: UUID | None = None,
    strict: bool = False,
) -> NewJob:
    """Make the job that embeds a video for a generation; there is never more than one at a time.

    With strict it refuses a video of which a part cannot be decoded.
    """
    wanted: dict[str, Any] = {"video_id": str(video_id), "generation_id": str(generation_id)}
    if strict:
        wanted["strict"] = True
    return NewJob(
        kind=JobKind.EMBED,
        input=wanted,
        priority=priority,
        api_key_id=api_key_id,
        batch_id=batch_id,
        video_id=video_id,
        dedupe_key=f"embed:{video_id}:{generation_id}",
    )


def follow_serving(session: Session) -> Generation | None:
    """Bring about the generation that the serving models need, in the transaction that chose them.

    One that is searched already stays. One that was searched before and is kept still is searched
    again at once; the videos that came since are embedded for it. Otherwise one is built in the
    background, or the building of one goes on, and what is searched now is searched until then.
    None of this reads the library: the jobs are made by a passage through it after the commit.

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
    if wanted.recall_dim is None:
        generations.ensure_index(wanted.id, needed.recall.config["hidden_size"])
    if wanted.activated_at is not None:
        search(session, wanted, Walk.REVIVE)
        return None
    if not _has_sound_videos(session):
        search(session, wanted, Walk.SETTLE)
        return None
    wanted.state, wanted.retired_at = GenerationState.BUILDING, None
    begin_walk(wanted, Walk.FILL)
    session.flush()
    return wanted


def begin_walk(generation: Generation, walk: Walk) -> None:
    """Have a passage through the library done for a generation, from the first video on.

    Whoever commits this should go on with `policy.library_walk.advance`; maintenance does too.
    """
    generation.walk, generation.walked_to, generation.walk_failed = walk, None, 0
    generation.checked_at = None


def search(session: Session, generation: Generation, walk: Walk) -> None:
    """Make a generation the searched one from the commit on.

    What is found changes at once, with the clips that are searched. What the videos' rows say of
    being searchable follows, part by part.

    Args:
        session: holds the promotion lock.
        generation: the one to search.
        walk: SETTLE, or REVIVE to try once more what has failed in it before.
    """
    begin_walk(generation, walk)
    session.flush()
    GenerationRepository(session).activate(generation.id)
    log.info("generation.activated", generation_id=str(generation.id))


def _has_sound_videos(session: Session) -> bool:
    query = select(exists().where(Video.state.in_(SOUND_STATES)))
    return bool(session.scalar(query))


def _needed_models(session: Session) -> _Needed:
    """Return what the clips are to be made by: the visual side of the task that changed last."""
    serving = ModelRepository(session).all_serving()
    if Task.RECALL not in serving:
        raise ValueError("no model makes recall vectors: register and promote clipbert-mini first")
    recall, _ = serving.pop(Task.RECALL)
    latest = max(serving.values(), key=lambda pair: pair[1].promoted_at, default=(recall, None))
    return _Needed(visual=latest[0], recall=recall)


def _fits(session: Session, generation: Generation, needed: _Needed) -> bool:
    """Whether a generation's tokens and vectors are those that these models need."""
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
            generation.walk = None
