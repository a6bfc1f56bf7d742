"""Which clips of a generation are nearest to a vector: by its index, or by comparing all."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVarTuple
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Float,
    Select,
    Uuid,
    all_,
    any_,
    bindparam,
    cast,
    func,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased, defer

from store.query_plans import estimated_rows
from store.videos.tables import Clip, Video

Columns = TypeVarTuple("Columns")
# A clip without its vector, its video's uri, and its distance.
_Found = tuple[Clip, str, float]

EXACT_SEARCH_CLIPS = 20_000
"""Up to so many clips every one is compared: that takes milliseconds and misses none."""

# By the planner's estimate, which may be somewhat out of date.
_SURELY_MANY = 2 * EXACT_SEARCH_CLIPS

FILTERED_CLIPS = 5000
"""So many of the clips nearest of all are looked through for those that filters leave."""

_MAX_EF_SEARCH = 1000  # pgvector's own bound
# What ends a scan of the index. At pgvector's defaults that is after some thousand clips, and it
# then gives, as if they came next, whatever else it has met.
_MAX_SCAN_TUPLES = 200_000
_SCAN_MEMORY = 16  # times work_mem
# How often the index is asked for clips of other videos, each time without those that were found.
_MOST_ROUNDS = 4


@dataclass(frozen=True)
class FoundClip:
    """A clip without its vector, and what goes with it.

    Attributes:
        clip: the row.
        similarity: cosine, in [-1, 1].
        video_end_seconds: where the last clip of its video ends.
    """

    clip: Clip
    similarity: float
    video_end_seconds: float


def nearest_clips(
    session: Session,
    generation_id: UUID,
    *,
    vector: Sequence[float],
    limit: int,
    num_videos: int = 1,
    video_ids: Sequence[UUID] | None = None,
    tags: Sequence[str] | None = None,
    exact_up_to: int = EXACT_SEARCH_CLIPS,
    filtered: int = FILTERED_CLIPS,
) -> Sequence[tuple[Clip, str, float]]:
    """Find the clips whose recall vectors are nearest to one.

    Of few clips (after the filters) all are compared. Of more, the generation's HNSW index gives
    the nearest, which may miss a few; unless too few of what is nearest passes the filters: then
    again all that pass are compared.

    A long video may have more clips than the limit near to the vector. Where those found are of
    fewer videos than wanted, the nearest clips of other videos take the places of the last of them.

    Args:
        session: in a transaction of the caller's.
        generation_id: only its clips.
        vector: of the generation's recall dimension.
        limit: how many, at least 1.
        num_videos: of so many videos, if so many match; then there are at least so many clips.
        video_ids: only clips of these videos.
        tags: only clips of videos that have all of these.
        exact_up_to: how many clips are few.
        filtered: how many clips the index gives at most for the filters to choose from.

    Returns:
        Clip without its vector, its video's uri, and cosine similarity in [-1, 1]; the most similar
        first, ties by video and index.
    """
    matching = _Matching(session, generation_id, vector, video_ids, tags)
    few = matching.of_few(limit, at_most=exact_up_to)
    rows: list[_Found] = []
    found: set[UUID] = set()
    for _ in range(_MOST_ROUNDS):
        new = few
        if new is None:
            new = matching.by_index(limit, candidates=filtered, without=found)
            if len(new) < limit:
                new = matching.of_all(limit, without=found)
        rows += new
        found |= {clip.video_id for clip, _, _ in new}
        if len(found) >= num_videos or len(new) < limit:
            break
        if few is not None:
            rows += matching.best_of_videos(num_videos - len(found), without=found)
            break
    else:
        rows += matching.best_of_videos(num_videos - len(found), without=found)
    hits = [(clip, uri, 1.0 - float(distance)) for clip, uri, distance in rows]
    hits.sort(key=lambda hit: (-hit[2], hit[0].video_id, hit[0].index))
    return _of_many_videos(hits, max(limit, num_videos))


def clips_nearest_in_videos(
    session: Session,
    generation_id: UUID,
    *,
    vector: Sequence[float],
    video_ids: Sequence[UUID],
    limit: int,
) -> Sequence[FoundClip]:
    """Find the clips of each of some videos that are nearest to a vector: these rows and no others.

    Args:
        session: in a transaction of the caller's.
        generation_id: only its clips.
        vector: of the generation's recall dimension.
        video_ids: the videos; of one that was deleted nothing is found.
        limit: how many of each video.

    Returns:
        The clips in the order of their videos' ids and their index.
    """
    matching = _Matching(session, generation_id, vector, video_ids, None)
    place = func.row_number().over(
        partition_by=Clip.video_id, order_by=(matching.distance + 0.0, Clip.index)
    )
    ranked = (
        select(Clip, matching.distance.label("distance"), place.label("place"))
        .where(*matching.searchable, Clip.video_id == any_(cast(list(video_ids), ARRAY(Uuid()))))
        .subquery()
    )
    clip = aliased(Clip, ranked)
    last = aliased(Clip)
    end_seconds = (
        select(last.end_seconds)
        .where(last.generation_id == clip.generation_id, last.video_id == clip.video_id)
        .order_by(last.index.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = (
        select(clip, ranked.c.distance, end_seconds)
        .options(defer(clip.vector, raiseload=True))
        .where(ranked.c.place <= limit)
        .order_by(clip.video_id, clip.index)
    )
    return [FoundClip(row[0], 1.0 - float(row[1]), row[2]) for row in session.execute(query)]


def count_matching(
    session: Session,
    generation_id: UUID,
    *,
    limit: int,
    video_ids: Sequence[UUID] | None = None,
    tags: Sequence[str] | None = None,
) -> int:
    """Count the clips that filters leave, up to a limit; arguments as of nearest_clips."""
    return _Matching(session, generation_id, (), video_ids, tags).count(limit)


def clips_after(
    session: Session,
    generation_id: UUID,
    *,
    vector: Sequence[float],
    after: UUID | None,
    num_videos: int,
    video_ids: Sequence[UUID] | None = None,
    tags: Sequence[str] | None = None,
) -> Sequence[FoundClip]:
    """List all clips of the next videos, by the videos' ids: for whoever reads a whole library.

    Args:
        session: in a transaction of the caller's.
        generation_id: only its clips.
        vector: what they are compared with.
        after: the last video of the page before; None for the first page.
        num_videos: how many videos a page has.
        video_ids: as in nearest_clips.
        tags: as in nearest_clips.

    Returns:
        Whole videos, in the order of their ids, the clips by index; empty after the last page.
    """
    matching = _Matching(session, generation_id, vector, video_ids, tags)
    next_videos = matching.with_video(select(Clip.video_id)).group_by(Clip.video_id)
    if after is not None:
        next_videos = next_videos.where(Clip.video_id > after)
    ids = session.scalars(next_videos.order_by(Clip.video_id).limit(num_videos)).all()
    if not ids:
        return []
    query = (
        select(Clip, matching.distance)
        .options(defer(Clip.vector, raiseload=True))
        .where(*matching.searchable, Clip.video_id == any_(cast(list(ids), ARRAY(Uuid()))))
        .order_by(Clip.video_id, Clip.index)
    )
    rows = session.execute(query).all()
    ends: dict[UUID, float] = {}
    for clip, _ in rows:
        ends[clip.video_id] = max(ends.get(clip.video_id, 0.0), clip.end_seconds)
    return [FoundClip(clip, 1.0 - float(far), ends[clip.video_id]) for clip, far in rows]


def clips_at(
    session: Session, generation_id: UUID, *, places: Collection[tuple[UUID, int]]
) -> Sequence[tuple[Clip, str]]:
    """Get clips by video and index, with their videos' uris; those that are gone are left out."""
    query = (
        select(Clip, Video.uri)
        .options(defer(Clip.vector, raiseload=True))
        .join(Video, Video.id == Clip.video_id)
        .where(Clip.generation_id == generation_id, tuple_(Clip.video_id, Clip.index).in_(places))
    )
    return [(row[0], row[1]) for row in session.execute(query)]


class _Matching:
    """The clips of a generation that have a vector and whose videos pass some filters."""

    def __init__(
        self,
        session: Session,
        generation_id: UUID,
        vector: Sequence[float],
        video_ids: Sequence[UUID] | None,
        tags: Sequence[str] | None,
    ) -> None:
        self._session = session
        of_generation = Clip.generation_id == bindparam(
            "generation_id", generation_id, Clip.generation_id.type, literal_execute=True
        )
        self.searchable = [of_generation, Clip.vector.is_not(None)]
        self._filters: list[ColumnElement[bool]] = []
        if video_ids is not None:
            self._filters.append(Video.id == any_(cast(list(video_ids), ARRAY(Uuid()))))
        if tags:
            self._filters.append(Video.tags.contains(list(tags)))
        halfvec = HALFVEC(len(vector) or None)
        self.distance = cast(Clip.vector, halfvec).op("<=>", return_type=Float())(
            cast(list(vector), halfvec)
        )

    def with_video(self, query: Select[*Columns]) -> Select[*Columns]:
        """Add the conditions, and the videos where they need them."""
        query = query.where(*self.searchable)
        if self._filters:
            query = query.join(Video, Video.id == Clip.video_id).where(*self._filters)
        return query

    def count(self, limit: int) -> int:
        """Count up to a limit."""
        bounded = self.with_video(select(Clip.index)).limit(limit).subquery()
        return self._session.scalar(select(func.count()).select_from(bounded)) or 0

    def of_few(self, limit: int, *, at_most: int) -> Sequence[_Found] | None:
        """Find the nearest by comparing all in one pass; None if there are more than so many."""
        sure = max(2 * at_most, _SURELY_MANY)
        if estimated_rows(self._session, self.with_video(select(Clip.index))) > sure:
            return None
        # The planner may have estimated too few: one more than are few ends the pass.
        all_matching = self.with_video(select(Clip, self.distance.label("distance")))
        compared = all_matching.limit(at_most + 1).subquery()
        nearest = (
            select(*compared.c, func.count().over().label("num_compared"))
            .order_by(compared.c.distance, compared.c.video_id, compared.c.index)
            .limit(limit)
            .subquery()
        )
        clip = aliased(Clip, nearest)
        query = (
            select(clip, Video.uri, nearest.c.distance, nearest.c.num_compared)
            .options(defer(clip.vector, raiseload=True))
            .join(Video, Video.id == clip.video_id)
        )
        rows = self._session.execute(query).all()
        if rows and rows[0][3] > at_most:
            return None
        return [(clip, uri, far) for clip, uri, far, _ in rows]

    def by_index(
        self, limit: int, *, candidates: int, without: Collection[UUID]
    ) -> Sequence[_Found]:
        """Find the nearest by the generation's index; fewer if it does not reach as many."""
        candidates = max(limit, candidates) if self._filters else limit
        _prepare_scan(self._session, candidates)
        nearest = (
            select(Clip, self.distance.label("distance"))
            .where(*self.searchable, *_not_of(without))
            .order_by(self.distance)
            .limit(candidates)
            .subquery()
        )
        clip = aliased(Clip, nearest)
        query = (
            select(clip, Video.uri, nearest.c.distance)
            .options(defer(clip.vector, raiseload=True))
            .join(Video, Video.id == clip.video_id)
            .where(*self._filters)
            .order_by(nearest.c.distance)
            .limit(limit)
        )
        return self._session.execute(query).all()

    def of_all(self, limit: int, *, without: Collection[UUID]) -> Sequence[_Found]:
        """Find the nearest by comparing all."""
        query = (
            select(Clip, Video.uri, self.distance.label("distance"))
            .options(defer(Clip.vector, raiseload=True))
            .join(Video, Video.id == Clip.video_id)
            .where(*self.searchable, *self._filters, *_not_of(without))
            # With + 0.0 it is no longer the index's expression, so every clip is compared.
            .order_by(self.distance + 0.0, Clip.video_id, Clip.index)
            .limit(limit)
        )
        return self._session.execute(query).all()

    def best_of_videos(self, limit: int, *, without: Collection[UUID]) -> Sequence[_Found]:
        """Find the nearest clip of each of the nearest videos by comparing all."""
        best = (
            self.with_video(select(Clip, self.distance.label("distance")))
            .where(*_not_of(without))
            .ext(distinct_on(Clip.video_id))
            .order_by(Clip.video_id, self.distance + 0.0, Clip.index)
            .subquery()
        )
        clip = aliased(Clip, best)
        query = (
            select(clip, Video.uri, best.c.distance)
            .options(defer(clip.vector, raiseload=True))
            .join(Video, Video.id == clip.video_id)
            .order_by(best.c.distance, clip.video_id)
            .limit(limit)
        )
        return self._session.execute(query).all()


def _of_many_videos(
    hits: list[tuple[Clip, str, float]], limit: int
) -> list[tuple[Clip, str, float]]:
    """Leave out the last clips, but never the best of a video."""
    best: dict[UUID, int] = {}
    for clip, _, _ in hits:
        best.setdefault(clip.video_id, clip.index)
    spare = [hit for hit in hits if hit[0].index != best[hit[0].video_id]]
    left_out = {(clip.video_id, clip.index) for clip, _, _ in spare[max(0, limit - len(best)) :]}
    return [hit for hit in hits if (hit[0].video_id, hit[0].index) not in left_out]


def _not_of(video_ids: Collection[UUID]) -> list[ColumnElement[bool]]:
    if not video_ids:
        return []
    return [Clip.video_id != all_(cast(sorted(video_ids), ARRAY(Uuid())))]


def _prepare_scan(session: Session, num_clips: int) -> None:
    """Set scans of the index to give so many clips, in order."""
    settings = {
        "ef_search": min(_MAX_EF_SEARCH, max(100, 2 * num_clips)),
        "iterative_scan": "strict_order",
        "max_scan_tuples": _MAX_SCAN_TUPLES,
        "scan_mem_multiplier": _SCAN_MEMORY,
    }
    for name, value in settings.items():
        session.execute(text(f"SET LOCAL hnsw.{name} = {value}"))
