"""The tables of videos, of their clips, and of the batches in which they came.

videos 1-n clips n-1 generations
batches 1-n jobs, batches 1-n batch_deltas
"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import BigInteger, ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from store.identifiers import new_id
from store.table_base import Json, ListedTable, Table, enum_column

# The name of a video's file without its ending.
FILENAME_STEM = r"regexp_replace(filename, '\.[^.]*$', '')"


class VideoState(StrEnum):
    """Whether a video can be searched. The row is made when its file was found sound.

    One is superseded when other content was indexed at its place and its own is known nowhere
    else: it keeps its labels and answers, has no clips, and comes back if its content does.
    """

    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"
    SUPERSEDED = "superseded"


SOUND_STATES = (VideoState.PROCESSING, VideoState.READY)
"""The states of the videos that a generation is to hold."""


class Video(ListedTable):
    """A file whose content is known; found again by its sha256."""

    __tablename__ = "videos"
    __table_args__ = (
        Index("ix_videos_state_id", "state", "id"),
        Index("ix_videos_tags", "tags", postgresql_using="gin"),
        # People name a video by its file, with or without the ending; see store/videos/names.py.
        # Parts of names: every three letters in a row; see store/videos/name_parts.py.
        Index("ix_videos_name_parts", text("name_trigrams(filename)"), postgresql_using="gin"),
        Index("ix_videos_filename_stem", text(FILENAME_STEM)),
        Index(
            "ix_videos_path_ends",
            text("path_ends(uri)"),
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
        ),
        # By hash: a path of 4096 bytes, percent-encoded, is too long for a B-tree.
        Index("ix_videos_uri", "uri", postgresql_using="hash"),
        Index(
            "ix_videos_superseded_by_id",
            "superseded_by_id",
            postgresql_where=text("superseded_by_id IS NOT NULL"),
        ),
        Index("ix_videos_missing", "id", postgresql_where=text("missing_since IS NOT NULL")),
        # Maintenance looks at the files that lie in place, those that it saw longest ago first.
        Index(
            "ix_videos_place_checked_at",
            "place_checked_at",
            "id",
            postgresql_where=text("blob_key IS NULL AND state <> 'superseded'"),
        ),
    )

    uri: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    blob_key: Mapped[str | None]  # uploads only: a file under a media root stays where it is
    filename: Mapped[str | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[VideoState] = mapped_column(
        enum_column(VideoState), default=VideoState.PROCESSING
    )
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    duration_seconds: Mapped[float | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    frames_per_second: Mapped[float | None]
    num_frames: Mapped[int | None]
    codec: Mapped[str | None]
    container: Mapped[str | None]
    rotation_degrees: Mapped[int | None]
    is_still: Mapped[bool] = mapped_column(default=False)
    probe: Mapped[Json] = mapped_column(default=dict)
    # Spans, in seconds from the first frame, in which nothing sound can be decoded; ascending.
    damaged_spans: Mapped[list[list[float]]] = mapped_column(
        JSONB(), default=list, server_default=text("'[]'::jsonb")
    )
    # It was asked for whole: a generation in which a part cannot be decoded is to fail.
    is_strict: Mapped[bool] = mapped_column(default=False, server_default="false")
    # Of a file in place, when its bytes were last known to be these: see store.file_stamps.
    file_stamp: Mapped[str | None]
    missing_since: Mapped[datetime | None]  # the file in place was not there when looked for
    place_checked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    superseded_by_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("videos.id", ondelete="SET NULL")
    )
    tags: Mapped[list[str]] = mapped_column(default=list)
    # `metadata` is SQLAlchemy's own name on a table class.
    custom_metadata: Mapped[Json] = mapped_column("metadata", default=dict)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def is_partial(self) -> bool:
        """Whether parts of the file cannot be decoded, or are not read, and so not searched."""
        return bool(self.damaged_spans) or "unread_recordings" in (self.probe.get("mended") or ())

    @property
    def starts_at_seconds(self) -> float:
        """Where a player's clock stands at the first frame; all stored seconds count from there."""
        return float(self.probe.get("starts_at_seconds") or 0.0)


class Clip(Table):
    """A moment of a video as one generation sees it."""

    __tablename__ = "clips"
    __table_args__ = (Index("ix_clips_video_id", "video_id"),)

    # The generation leads the key: a search counts and scans the clips of one generation.
    generation_id: Mapped[UUID] = mapped_column(
        ForeignKey("generations.id", ondelete="CASCADE"), primary_key=True
    )
    video_id: Mapped[UUID] = mapped_column(
        ForeignKey("videos.id", ondelete="CASCADE"), primary_key=True
    )
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    start_seconds: Mapped[float]
    end_seconds: Mapped[float]
    instants: Mapped[list[float]]
    # Without dimensions: generations differ in length. Each has an index on the cast vector.
    vector: Mapped[Any | None] = mapped_column(HALFVEC())
    tokens_key: Mapped[str]


class Batch(Table):
    """Videos that came in one request; its counts are a query over its jobs."""

    __tablename__ = "batches"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str | None]
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    request_sha256: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    cancel_requested_at: Mapped[datetime | None]


class BatchDelta(Table):
    """What one statement changed in the number of a batch's items in a state.

    Items are counted by the sum of their batch's rows. Maintenance folds rows into one for each
    state; a sum never changes by that.
    """

    __tablename__ = "batch_deltas"
    __table_args__ = (
        Index("ix_batch_deltas_batch_id", "batch_id"),
        Index("ix_batch_deltas_unfolded", "id", postgresql_where=text("NOT is_folded")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"))
    state: Mapped[str]
    change: Mapped[int] = mapped_column(BigInteger)
    duplicates: Mapped[int] = mapped_column(BigInteger)  # of these, with content known before
    ended_at: Mapped[datetime | None]  # when items came into a state in which they are done
    is_folded: Mapped[bool] = mapped_column(default=False, server_default="false")
