"""Which clips of a generation are nearest to a vector: by its index, or by comparing all."""

from collections.abc import Sequence
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Float,
    Row,
    Uuid,
    any_,
    bindparam,
    cast,
    func,
    select,
    text,
)
from sqlalchemy.orm import Session, aliased, defer

from store.tables import Clip, Video

EXACT_SEARCH_CLIPS = 20_000
"""Up to so many clips every one is compared: that takes milliseconds and misses none."""

FILTERED_CLIPS = 5000
"""So many of the clips nearest of all are looked through for those that filters leave."""

_MAX_EF_SEARCH = 1000  # pgvector's own bound
# What ends a scan of the index. At pgvector's defaults that is after some thousand clips, and it
# then gives, as if they came next, whatever else it has met.
_MAX_SCAN_TUPLES = 200_000
_SCAN_MEMORY = 16  # times work_mem


def nearest_clips(
    session: Session,
    generation_id: UUID,
    vector: Sequence[float],
    limit: int,
    *,
    video_ids: Sequence[UUID] | None = None,
    tags: Sequence[str] | None = None,
    exact_up_to: int = EXACT_SEARCH_CLIPS,
    filtered: int = FILTERED_CLIPS,
) -> Sequence[tuple[Clip, str, float]]:
    """Find the clips whose recall vectors are nearest to one.

    Of few clips (after the filters) all are compared. Of more, the generation's HNSW index gives
    the nearest, which may miss a few; unless too few of what is nearest passes the filters: then
    again all that pass are compared.

    Args:
        session: in a transaction of the caller's.
        generation_id: only its clips.
        vector: of the generation's recall dimension.
        limit: how many, at least 1.
        video_ids: only clips of these videos.
        tags: only clips of videos that have all of these.
        exact_up_to: how many clips are few.
        filtered: how many clips the index gives at most for the filters to choose from.

    Returns:
        Clip without its vector, its video's uri, and cosine similarity in [-1, 1]; the most similar
        first, ties by video and index.
    """
    of_generation = Clip.generation_id == bindparam(
        "generation_id", generation_id, Clip.generation_id.type, literal_execute=True
    )
    searchable = [of_generation, Clip.vector.is_not(None)]
    filters: list[ColumnElement[bool]] = []
    if video_ids is not None:
        filters.append(Video.id == any_(cast(list(video_ids), ARRAY(Uuid()))))
    if tags:
        filters.append(Video.tags.contains(list(tags)))
    matching = select(Clip.index).join(Video).where(*searchable, *filters)
    bounded = matching.limit(exact_up_to + 1).subquery()
    num_matching = session.scalar(select(func.count()).select_from(bounded)) or 0
    halfvec = HALFVEC(len(vector))
    distance = cast(Clip.vector, halfvec).op("<=>", return_type=Float())(
        cast(list(vector), halfvec)
    )
    rows: Sequence[Row[Clip, str, float]] = []
    if num_matching > exact_up_to:
        candidates = max(limit, filtered) if filters else limit
        _prepare_scan(session, candidates)
        nearest = (
            select(Clip, distance.label("distance"))
            .where(*searchable)
            .order_by(distance)
            .limit(candidates)
            .subquery()
        )
        clip = aliased(Clip, nearest)
        by_index = (
            select(clip, Video.uri, nearest.c.distance)
            .options(defer(clip.vector, raiseload=True))
            .join(Video, Video.id == clip.video_id)
            .where(*filters)
            .order_by(nearest.c.distance)
            .limit(limit)
        )
        rows = session.execute(by_index).all()
    if len(rows) < limit:
        of_all = (
            select(Clip, Video.uri, distance.label("distance"))
            .options(defer(Clip.vector, raiseload=True))
            .join(Video)
            .where(*searchable, *filters)
            # With + 0.0 it is no longer the index's expression, so every clip is compared.
            .order_by(distance + 0.0)
            .limit(limit)
        )
        rows = session.execute(of_all).all()
    found = [(clip, uri, 1.0 - float(distance)) for clip, uri, distance in rows]
    return sorted(found, key=lambda hit: (-hit[2], hit[0].video_id, hit[0].index))


def _prepare_scan(session: Session, num_clips: int) -> None:
    """Let scans of the index give so many clips, in order."""
    settings = {
        "ef_search": min(_MAX_EF_SEARCH, max(100, 2 * num_clips)),
        "iterative_scan": "strict_order",
        "max_scan_tuples": _MAX_SCAN_TUPLES,
        "scan_mem_multiplier": _SCAN_MEMORY,
    }
    for name, value in settings.items():
        session.execute(text(f"SET LOCAL hnsw.{name} = {value}"))
