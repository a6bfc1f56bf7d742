"""Videos and their clips."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Float,
    case,
    cast,
    delete,
    func,
    insert,
    select,
    tablesample,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session, aliased

from store.bounded_lists import newest
from store.counts import read_counts
from store.errors import VideoNotFound, VideoSuperseded
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind
from store.jobs.tables import Job
from store.pages import Page, PageTokens, clamp_page_size
from store.videos.damaged_spans import join_spans
from store.videos.filters import WINDOW, VideoFilter
from store.videos.name_parts import NameFilter
from store.videos.records import DeletedVideo, NewClip
from store.videos.tables import Clip, Video, VideoState


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
        """Get a video that only this transaction may change until it ends.

        Waits for a transaction that is changing it. Rows that refer to it can still be added.

        Raises:
            VideoNotFound: there is none with this id.
        """
        query = select(Video).where(Video.id == video_id).with_for_update(key_share=True)
        video = self._session.scalar(query.execution_options(populate_existing=True))
        if video is None:
            raise VideoNotFound(video_id)
        return video

    def find_by_sha256(self, sha256: str) -> Video | None:
        """Find the video with this content."""
        query = select(Video).where(Video.sha256 == sha256)
        return self._session.scalar(query.execution_options(populate_existing=True))

    def hold_by_sha256(self, sha256: str) -> Video | None:
        """Find the video with this content; it cannot be deleted until the transaction ends."""
        query = select(Video).where(Video.sha256 == sha256)
        held = query.with_for_update(read=True, key_share=True)
        return self._session.scalar(held.execution_options(populate_existing=True))

    def blob_keys(self, sha256s: Collection[str]) -> dict[str, str | None]:
        """Return the blob key of each video with one of these contents, by content."""
        query = select(Video.sha256, Video.blob_key).where(Video.sha256.in_(sha256s))
        return {row[0]: row[1] for row in self._session.execute(query)}

    def existing(self, video_ids: Collection[UUID]) -> set[UUID]:
        """Return which of these videos are there."""
        return set(self._session.scalars(select(Video.id).where(Video.id.in_(video_ids))))

    def starts_at(self, video_ids: Collection[UUID]) -> dict[UUID, float]:
        """Return what a player's clock shows at the first frame of each of these videos."""
        starts_at = cast(Video.probe["starts_at_seconds"].astext, Float())
        query = select(Video.id, func.coalesce(starts_at, 0.0)).where(Video.id.in_(video_ids))
        return {row[0]: row[1] for row in self._session.execute(query)}

    def get_many(self, video_ids: Collection[UUID]) -> dict[UUID, Video]:
        """Get videos by their ids; those that do not exist are left out."""
        query = select(Video).where(Video.id.in_(video_ids))
        return {video.id: video for video in self._session.scalars(query)}

    def list(
        self,
        *,
        page_size: int = 50,
        page_token: str | None = None,
        state: VideoState | None = None,
        missing: bool | None = None,
        tag: str | None = None,
        name: str | None = None,
        name_part: str | None = None,
        ids: Sequence[UUID] | None = None,
    ) -> Page[Video]:
        """List videos, the newest first.

        Under filters that many videos meet, but few of the newest, a page may be short, or have
        nothing, and not be the last: see store/bounded_lists.py.

        Args:
            page_size: how many at most.
            page_token: where to go on.
            state: only videos in this state; None: in any but superseded.
            missing: only videos whose file in place is not there, or only the others.
            tag: only videos with this tag.
            name: only videos with this file name, or with a copy that has it.
            name_part: only videos with this in their file name or a copy's, in any case.
            ids: only these videos; then state None is any, superseded too.

        Raises:
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        size = clamp_page_size(page_size)
        tokens = PageTokens(
            "videos",
            state=state,
            missing=missing,
            tag=tag,
            name=name,
            name_part=name_part,
            ids=None if ids is None else sorted(map(str, ids)),
        )
        parts = ((name, False), (name_part, True))
        names = [NameFilter(each, is_part) for each, is_part in parts if each is not None]
        wanted = VideoFilter(state=state, missing=missing, tag=tag, names=names, ids=ids)
        before = None if page_token is None else tokens.id_of(page_token)
        found = newest(
            self._session, Video, wanted=wanted.filters(), before=before, limit=size, window=WINDOW
        )
        following = found.go_on_before
        return Page(found.rows, None if following is None else tokens.of_id(following))

    def sample_in_place(self, size: int) -> tuple[Sequence[str], bool]:
        """List uris of videos that were indexed in place.

        Returns:
            Those of all videos, and True; of a library of many more than `size` those of about
            that many, on pages of the table that were chosen at random, and False.
        """
        known = select(text("reltuples")).select_from(text("pg_class"))
        estimate = self._session.scalar(known.where(text("oid = 'videos'::regclass"))) or 0
        percent = 100.0 * size / max(estimate, size)
        sample = tablesample(Video, func.system(percent))
        table = aliased(Video, sample)
        query = select(table.uri).where(
            table.blob_key.is_(None),
            table.state != VideoState.SUPERSEDED,
            table.uri.startswith("file:///"),
        )
        return self._session.scalars(query).all(), percent == 100  # noqa: PLR2004

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
        damaged_spans: Iterable[Sequence[float]] = (),
        is_strict: bool = False,
        file_stamp: str | None = None,
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
            "damaged_spans": join_spans(damaged_spans),
            "is_strict": is_strict,
            "file_stamp": file_stamp,
            "tags": list(tags),
            "custom_metadata": dict(metadata or {}),
        }
        insertion = upsert(Video).values(**values).on_conflict_do_nothing().returning(Video.id)
        while True:  # the row in the way may be deleted between the two statements
            video_id = self._session.scalar(insertion)
            if video_id is not None:
                return self.get(video_id), True
            found = self.find_by_sha256(sha256)
            if found is not None:
                return found, False

    def relocate(
        self,
        video_id: UUID,
        *,
        uri: str,
        blob_key: str | None,
        filename: str | None,
        file_stamp: str | None = None,
    ) -> None:
        """Write down where a video's content is now, since it is no longer where it was.

        One that was superseded is to be indexed again.

        Raises:
            VideoNotFound: there is none with this id.
        """
        self._update(
            video_id,
            uri=uri,
            blob_key=blob_key,
            filename=filename,
            file_stamp=file_stamp,
            missing_since=None,
            superseded_by_id=None,
            place_checked_at=func.now(),
            state=case(
                (Video.state == VideoState.SUPERSEDED, VideoState.PROCESSING.value),
                else_=Video.state,
            ),
        )

    def mark_ready(self, video_id: UUID) -> None:
        """Mark a video as one that can be searched.

        Raises:
            VideoNotFound: there is none with this id.
        """
        self._set_state(video_id, VideoState.READY, None, None)

    def note_damage(self, video_id: UUID, spans: Iterable[Sequence[float]]) -> None:
        """Add spans of a video in which nothing sound can be decoded to those known before.

        The video is partial from then on: it is searched without the clips in these spans.

        Args:
            video_id: the video.
            spans: start and end of each, in seconds from the first frame; in any order, they may
                overlap each other and those that are known.

        Raises:
            VideoNotFound: there is none with this id.
            ValueError: a span ends before it starts, or is not made of finite numbers.
        """
        known = self.lock(video_id).damaged_spans
        joined = join_spans([*known, *spans])
        if joined != known:
            self._update(video_id, damaged_spans=joined)

    def ask_for_whole(self, video_id: UUID) -> None:
        """Have every later generation refuse a video of which a part cannot be decoded.

        Raises:
            VideoNotFound: there is none with this id.
        """
        self._update(video_id, is_strict=True)

    def strict_among(self, video_ids: Collection[UUID]) -> set[UUID]:
        """Find those of these videos that were asked for whole."""
        wanted = select(Video.id).where(Video.id.in_(video_ids), Video.is_strict)
        return set(self._session.scalars(wanted))

    def add_tags(self, video_id: UUID, tags: Sequence[str]) -> None:
        """Add the tags that a video does not have yet.

        Raises:
            VideoNotFound: there is none with this id.
        """
        known = self.lock(video_id).tags
        missing = [tag for tag in dict.fromkeys(tags) if tag not in known]
        if missing:
            self._update(video_id, tags=[*known, *missing])

    def delete(self, video_id: UUID) -> DeletedVideo:
        """Delete a video, its clips, and its jobs that are not over.

        The ingest job of an upload that came before goes on: it makes the video anew.

        Returns:
            What it leaves behind; to be removed after the commit.

        Raises:
            VideoNotFound: there is none with this id.
        """
        # Before its jobs, in the order in which workers lock them.
        locked = select(Video).where(Video.id == video_id).with_for_update()
        video = self._session.scalar(locked.execution_options(populate_existing=True))
        if video is None:
            raise VideoNotFound(video_id)
        query = select(Clip.tokens_key).where(Clip.video_id == video_id).distinct()
        deleted = DeletedVideo(video.sha256, list(self._session.scalars(query)))
        JobRepository(self._session).cancel_where(
            (Job.video_id == video_id) & (Job.kind != JobKind.INGEST)
        )
        self._session.execute(delete(Video).where(Video.id == video_id))
        self._session.expunge(video)
        return deleted

    def counts(self) -> dict[VideoState, int]:
        """Count the videos by state."""
        counts = read_counts(self._session, "videos:")
        return {VideoState(state): count for state, count in counts.items()}

    def replace_clips(
        self, video_id: UUID, generation_id: UUID, *, clips: Sequence[NewClip]
    ) -> None:
        """Store the clips of a video in a generation, in place of any that were there.

        Args:
            video_id: the video.
            generation_id: the generation.
            clips: all of them.

        Raises:
            VideoNotFound: the video was deleted or superseded meanwhile.
        """
        # Held until the commit: who deletes or supersedes it meanwhile waits, and then takes these
        # clips along.
        if self.lock(video_id).state == VideoState.SUPERSEDED:
            raise VideoSuperseded(video_id)
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

    def _set_state(
        self, video_id: UUID, state: VideoState, code: str | None, message: str | None
    ) -> None:
        self._update(video_id, state=state, error_code=code, error_message=message)

    def _update(self, video_id: UUID, **values: object) -> None:
        changed = self._session.scalar(
            update(Video)
            .where(Video.id == video_id)
            .values(updated_at=func.now(), **values)
            .returning(Video.id)
            .execution_options(synchronize_session=False)
        )
        if changed is None:
            raise VideoNotFound(video_id)
