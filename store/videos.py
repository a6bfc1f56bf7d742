"""Videos and their clips, and which clips are nearest to a vector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Float,
    Uuid,
    any_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from store.errors import VideoNotFound
from store.jobs import JobRepository
from store.pages import Page, clamp_page_size, id_of_token, token_of_id
from store.tables import Clip, Job, Video, VideoState

EXACT_SEARCH_CLIPS = 20_000
"""Up to so many clips every one is compared: that takes milliseconds and misses none."""

MAX_EF_SEARCH = 1000  # pgvector's own bound


@dataclass(frozen=True)
class NewClip:
    """A clip to store.

    Attributes:
        index: its place in the video's plan, and its row in the tokens blob.
        start_seconds: where the moment it stands for begins.
        end_seconds: where that ends.
        instants: seconds of its frames, ascending.
        vector: the recall vector, normalised; None if the recall encoder made none.
        tokens_key: the blob of the video's visual tokens in this generation.
    """

    index: int
    start_seconds: float
    end_seconds: float
    instants: Sequence[float]
    vector: Sequence[float] | None
    tokens_key: str


class VideoRepository:
    """Every query about videos and clips.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, video_id: UUID) -> Video:
        """Get a video as it is now.

        Raises:
            VideoNotFound: there is none with this id.
        """
        query = select(Video).where(Video.id == video_id)
        video = self._session.scalar(query.execution_options(populate_existing=True))
        if video is None:
            raise VideoNotFound(video_id)
        return video

    def lock(self, video_id: UUID) -> Video:
        """Get a video whose state then stays as it is until the transaction ends.

        Waits for a transaction that is changing it.

        Raises:
            VideoNotFound: there is none with this id.
        """
        query = select(Video).where(Video.id == video_id).with_for_update(read=True)
        video = self._session.scalar(query.execution_options(populate_existing=True))
        if video is None:
            raise VideoNotFound(video_id)
        return video

    def find_by_sha256(self, sha256: str) -> Video | None:
        """Find the video with this content."""
        query = select(Video).where(Video.sha256 == sha256)
        return self._session.scalar(query.execution_options(populate_existing=True))

    def list(
        self,
        *,
        page_size: int = 50,
        page_token: str | None = None,
        state: VideoState | None = None,
        tag: str | None = None,
    ) -> Page[Video]:
        """List videos, the newest first.

        Raises:
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        size = clamp_page_size(page_size)
        query = select(Video).order_by(Video.id.desc()).limit(size + 1)
        if page_token is not None:
            query = query.where(Video.id < id_of_token(page_token))
        if state is not None:
            query = query.where(Video.state == state)
        if tag is not None:
            query = query.where(Video.tags.contains([tag]))
        rows = self._session.scalars(query).all()
        more = len(rows) > size
        return Page(rows[:size], token_of_id(rows[size - 1].id) if more else None)

    def create(
        self,
        *,
        uri: str,
        sha256: str,
        blob_key: str | None = None,
        filename: str | None = None,
        size_bytes: int | None = None,
        duration_seconds: float | None = None,
        width: int | None = None,
        height: int | None = None,
        frames_per_second: float | None = None,
        num_frames: int | None = None,
        codec: str | None = None,
        container: str | None = None,
        rotation_degrees: int | None = None,
        is_still: bool = False,
        probe: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> tuple[Video, bool]:
        """Insert a video in state `processing`, unless its content is there already.

        Two workers may do so at once for the same content: one row comes out.

        Returns:
            The row, and whether it is new.
        """
        values = {
            "uri": uri,
            "sha256": sha256,
            "blob_key": blob_key,
            "filename": filename,
            "size_bytes": size_bytes,
            "duration_seconds": duration_seconds,
            "width": width,
            "height": height,
            "frames_per_second": frames_per_second,
            "num_frames": num_frames,
            "codec": codec,
            "container": container,
            "rotation_degrees": rotation_degrees,
            "is_still": is_still,
            "probe": dict(probe or {}),
            "tags": list(tags),
            "custom_metadata": dict(metadata or {}),
        }
        inserted = upsert(Video).values(**values).on_conflict_do_nothing().returning(Video.id)
        video_id = self._session.scalar(inserted)
        if video_id is not None:
            return self.get(video_id), True
        found = self.find_by_sha256(sha256)
        if found is None:  # deleted between the two statements
            return self.create(uri=uri, **{k: v for k, v in values.items() if k != "uri"})  # type: ignore[arg-type]
        return found, False

    def mark_ready(self, video_id: UUID) -> None:
        """Say that a video can be searched.

        Raises:
            VideoNotFound: there is none with this id.
        """
        self._set_state(video_id, VideoState.READY, None, None)

    def mark_failed(self, video_id: UUID, *, code: str, message: str) -> None:
        """Say that a video will not become searchable, and why.

        Raises:
            VideoNotFound: there is none with this id.
        """
        self._set_state(video_id, VideoState.FAILED, code, message)

    def delete(self, video_id: UUID) -> Sequence[str]:
        """Delete a video, its clips, and its jobs that are not over.

        Returns:
            Keys of the blobs that nothing needs any more; to be removed after the commit.

        Raises:
            VideoNotFound: there is none with this id.
        """
        video = self.get(video_id)
        query = select(Clip.tokens_key).where(Clip.video_id == video_id).distinct()
        keys = list(self._session.scalars(query))
        keys += [f"thumbnails/{video.sha256}/{name}.jpg" for name in ("poster", "strip")]
        if video.blob_key is not None:
            keys.append(video.blob_key)
        JobRepository(self._session).cancel_where(Job.video_id == video_id)
        self._session.execute(delete(Video).where(Video.id == video_id))
        self._session.expunge(video)
        return keys

    def counts(self) -> dict[VideoState, int]:
        """Count the videos by state."""
        query = select(Video.state, func.count()).group_by(Video.state)
        return {row[0]: row[1] for row in self._session.execute(query)}

    def replace_clips(self, video_id: UUID, generation_id: UUID, clips: Sequence[NewClip]) -> None:
        """Store the clips of a video in a generation, in place of any that were there.

        Args:
            video_id: the video.
            generation_id: the generation.
            clips: all of them.

        Raises:
            VideoNotFound: the video was deleted meanwhile.
        """
        # Held until the commit: a deletion meanwhile waits, and then takes these clips along.
        held = (
            select(Video.id).where(Video.id == video_id).with_for_update(read=True, key_share=True)
        )
        if self._session.scalar(held) is None:
            raise VideoNotFound(video_id)
        self._session.execute(
            delete(Clip).where(Clip.generation_id == generation_id, Clip.video_id == video_id)
        )
        if not clips:
            return
        rows = [
            {
                "generation_id": generation_id,
                "video_id": video_id,
                "index": clip.index,
                "start_seconds": clip.start_seconds,
                "end_seconds": clip.end_seconds,
                "instants": list(clip.instants),
                "vector": None if clip.vector is None else list(clip.vector),
                "tokens_key": clip.tokens_key,
            }
            for clip in clips
        ]
        self._session.execute(insert(Clip), rows)

    def clips(self, video_id: UUID, generation_id: UUID) -> Sequence[Clip]:
        """List the clips of a video in a generation, by index."""
        query = select(Clip).where(Clip.generation_id == generation_id, Clip.video_id == video_id)
        return self._session.scalars(query.order_by(Clip.index)).all()

    def nearest_clips(
        self,
        generation_id: UUID,
        vector: Sequence[float],
        limit: int,
        *,
        video_ids: Sequence[UUID] | None = None,
        tags: Sequence[str] | None = None,
        exact_up_to: int = EXACT_SEARCH_CLIPS,
    ) -> Sequence[tuple[Clip, str, float]]:
        """Find the clips whose recall vectors are nearest to one.

        Of few clips (after the filters) all are compared; of more, the generation's HNSW index
        gives the nearest, which may miss a few.

        Args:
            generation_id: only its clips.
            vector: of the generation's recall dimension.
            limit: how many, at least 1.
            video_ids: only clips of these videos.
            tags: only clips of videos that have all of these.
            exact_up_to: how many clips are few.

        Returns:
            Clip, its video's uri, and cosine similarity in [-1, 1]; the most similar first, ties by
            video and index.
        """
        of_generation = Clip.generation_id == bindparam(
            "generation_id", generation_id, Clip.generation_id.type, literal_execute=True
        )
        matching = select(Clip.index).join(Video).where(of_generation, Clip.vector.is_not(None))
        filters: list[ColumnElement[bool]] = [Clip.vector.is_not(None)]
        if video_ids is not None:
            filters.append(Clip.video_id == any_(cast(list(video_ids), ARRAY(Uuid()))))
        if tags:
            filters.append(Video.tags.contains(list(tags)))
        bounded = matching.where(*filters).limit(exact_up_to + 1).subquery()
        num_matching = self._session.scalar(select(func.count()).select_from(bounded)) or 0
        halfvec = HALFVEC(len(vector))
        distance = cast(Clip.vector, halfvec).op("<=>", return_type=Float())(
            cast(list(vector), halfvec)
        )
        order: ColumnElement[Any] = distance
        if num_matching <= exact_up_to:
            order = distance + 0.0  # no longer the index's expression, so every clip is compared
        else:
            ef_search = min(MAX_EF_SEARCH, max(100, 2 * limit))
            self._session.execute(text(f"SET LOCAL hnsw.ef_search = {ef_search}"))
            # Filters may refuse what the index gives first: it then goes on, in order.
            self._session.execute(text("SET LOCAL hnsw.iterative_scan = strict_order"))
        query = (
            select(Clip, Video.uri, distance.label("distance"))
            .join(Video)
            .where(of_generation, *filters)
            .order_by(order)
            .limit(limit)
        )
        found = [(clip, uri, 1.0 - float(d)) for clip, uri, d in self._session.execute(query)]
        return sorted(found, key=lambda hit: (-hit[2], hit[0].video_id, hit[0].index))

    def _set_state(
        self, video_id: UUID, state: VideoState, code: str | None, message: str | None
    ) -> None:
        changed = self._session.scalar(
            update(Video)
            .where(Video.id == video_id)
            .values(state=state, error_code=code, error_message=message, updated_at=func.now())
            .returning(Video.id)
            .execution_options(synchronize_session=False)
        )
        if changed is None:
            raise VideoNotFound(video_id)
