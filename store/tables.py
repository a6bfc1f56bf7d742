"""The tables. All ids are UUIDv7, all times are UTC.

batches 1-n jobs n-1 videos 1-n clips n-1 generations n-1 models 1-n serving
            jobs 1-n job_events
            jobs 1-1 searches | questions | finetunes

Those of labels are in label_tables.py, those of finetunes and schedules in finetune_tables.py,
those of counts in count_tables.py; all can be imported from here.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import BigInteger, ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from store.count_tables import BatchDelta, Count, CountChange
from store.identifiers import new_id
from store.jobs.state import TERMINAL_STATES, JobKind, JobState
from store.labels.tables import (
    Dataset,
    DatasetLabel,
    Label,
    LabelAction,
    LabelRevision,
    Split,
    VideoSplit,
    Vocabulary,
)
from store.models.finetune_tables import (
    Finetune,
    FireOutcome,
    MisfirePolicy,
    OverlapPolicy,
    Promotion,
    PromotionAction,
    Schedule,
    ScheduleFire,
)
from store.retention_tables import RetentionMark
from store.table_base import Json, Table, Task, enum_column, listed

__all__ = [
    "SOUND_STATES",
    "ApiKey",
    "Batch",
    "BatchDelta",
    "Clip",
    "Count",
    "CountChange",
    "Dataset",
    "DatasetLabel",
    "Finetune",
    "FireOutcome",
    "Generation",
    "GenerationState",
    "Job",
    "JobEvent",
    "JobPiece",
    "Json",
    "Label",
    "LabelAction",
    "LabelRevision",
    "MisfirePolicy",
    "Model",
    "OverlapPolicy",
    "Promotion",
    "PromotionAction",
    "Question",
    "RetentionMark",
    "Schedule",
    "ScheduleFire",
    "Search",
    "Serving",
    "Split",
    "Table",
    "Task",
    "Video",
    "VideoSplit",
    "VideoState",
    "Vocabulary",
    "Walk",
]


# A file's name without its ending: of a video, of where it is, and of a copy that brought it again.
FILENAME_STEM = r"regexp_replace(filename, '\.[^.]*$', '')"
URI_STEM = r"regexp_replace(regexp_replace(uri, '^.*/', ''), '\.[^.]*$', '')"
COPY_STEM = r"regexp_replace(result ->> 'filename', '\.[^.]*$', '')"


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


class GenerationState(StrEnum):
    """A generation is filled, then searched, then replaced, and in the end loses its clips.

    The row stays: it says what an old answer was made from.
    """

    BUILDING = "building"
    ACTIVE = "active"
    RETIRED = "retired"
    DELETED = "deleted"


class Walk(StrEnum):
    """What a passage through the library is for; see policy/library_walk.py."""

    FILL = "fill"
    CHECK = "check"
    REFILL = "refill"
    SETTLE = "settle"
    REVIVE = "revive"


class Video(Table):
    """A file whose content is known; found again by its sha256."""

    __tablename__ = "videos"
    __table_args__ = (
        Index("ix_videos_state_id", "state", "id"),
        Index("ix_videos_tags", "tags", postgresql_using="gin"),
        # People name a video by its file, with or without the ending; see store/videos/names.py.
        # Parts of names: every three letters in a row; see store/videos/name_parts.py.
        Index("ix_videos_name_parts", text("name_trigrams(filename)"), postgresql_using="gin"),
        Index("ix_videos_filename_stem", text(FILENAME_STEM)),
        Index("ix_videos_uri_stem", text(URI_STEM)),
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

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
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


class Model(Table):
    """A model folder in the blob store."""

    __tablename__ = "models"
    __table_args__ = (
        # The name of a deleted model is free again.
        Index(
            "uq_models_name_version",
            "name",
            "version",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("ix_models_parent_id", "parent_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    version: Mapped[str]
    heads: Mapped[list[str]] = mapped_column(default=list)
    tasks: Mapped[list[str]] = mapped_column(default=list)
    folder_key: Mapped[str]
    sha256: Mapped[str]
    visual_sha256: Mapped[str]
    config: Mapped[Json] = mapped_column(default=dict)
    metrics: Mapped[Json] = mapped_column(default=dict)
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("models.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # The row outlives its files: old answers, generations and finetunes say what made them.
    deleted_at: Mapped[datetime | None]
    files_removed_at: Mapped[datetime | None]


class Serving(Table):
    """Which model does a task now. Promotion and rollback change one row."""

    __tablename__ = "serving"
    __table_args__ = (Index("ix_serving_model_id", "model_id"),)

    task: Mapped[Task] = mapped_column(enum_column(Task), primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    promoted_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Generation(Table):
    """A model, a recall encoder and a sampling plan; clips of two are never mixed."""

    __tablename__ = "generations"
    __table_args__ = (
        Index(
            "uq_generations_active", "state", unique=True, postgresql_where=text("state = 'active'")
        ),
        Index("ix_generations_model_id", "model_id"),
        Index("ix_generations_recall_model_id", "recall_model_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    recall_model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    plan: Mapped[Json]
    recall_dim: Mapped[int | None]
    state: Mapped[GenerationState] = mapped_column(
        enum_column(GenerationState), default=GenerationState.BUILDING
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    activated_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]
    # A passage through the library, done in steps by whoever comes: what for, and how far it is.
    walk: Mapped[Walk | None] = mapped_column(enum_column(Walk))
    walked_to: Mapped[UUID | None]  # the last video that was looked at; not a reference
    walk_failed: Mapped[int] = mapped_column(default=0, server_default="0")
    checked_at: Mapped[datetime | None]  # when it was held back, its jobs being over


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


class Job(Table):
    """A piece of work. The row is the job; messages only say that there is one."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(
            "ix_jobs_due",
            "kind",
            "priority",
            "turn",
            "run_at",
            "id",
            postgresql_where=text("state = 'queued'"),
        ),
        # How many are due, and how many are for later: without regard to their priority.
        Index("ix_jobs_waiting", "kind", "run_at", postgresql_where=text("state = 'queued'")),
        # Where a job joins its queue: see store.jobs.sql.next_turn.
        Index(
            "ix_jobs_queue",
            "kind",
            "priority",
            text("COALESCE(api_key_id, '00000000-0000-0000-0000-000000000000'::uuid)"),
            text("COALESCE(batch_id, '00000000-0000-0000-0000-000000000000'::uuid)"),
            "turn",
            postgresql_where=text("state = 'queued'"),
        ),
        # Not of the lease's end: so a heartbeat changes no index. Workers hold few jobs.
        Index(
            "ix_jobs_held",
            "lease_owner",
            postgresql_where=text("state IN ('running', 'cancelling')"),
        ),
        Index(
            "uq_jobs_active_dedupe_key",
            "dedupe_key",
            unique=True,
            postgresql_where=text(f"state NOT IN ({listed(TERMINAL_STATES)})"),
        ),
        Index(
            "ix_jobs_batch",
            "batch_id",
            "kind",
            "batch_index",
            postgresql_include=["state", "video_id"],
            postgresql_where=text("batch_id IS NOT NULL"),
        ),
        Index("ix_jobs_batch_id", "batch_id", "id", postgresql_where=text("batch_id IS NOT NULL")),
        Index("ix_jobs_state_id", "state", "id"),
        Index("ix_jobs_kind_id", "kind", "id"),
        Index("ix_jobs_video_id", "video_id", postgresql_where=text("video_id IS NOT NULL")),
        # What is over for longest goes first.
        Index(
            "ix_jobs_finished",
            "finished_at",
            "id",
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
        Index(
            "ix_jobs_batch_active",
            "batch_id",
            postgresql_where=text(
                f"batch_id IS NOT NULL AND state NOT IN ({listed(TERMINAL_STATES)})"
            ),
        ),
        # Whether a generation waits for clips.
        Index(
            "ix_jobs_active_embeds",
            text("(input ->> 'generation_id')"),
            postgresql_where=text(f"kind = 'embed' AND state NOT IN ({listed(TERMINAL_STATES)})"),
        ),
        # Whether an upload is still needed.
        Index(
            "ix_jobs_blob_key",
            text("(input ->> 'blob_key')"),
            postgresql_where=text("kind = 'ingest' AND (input ->> 'blob_key') IS NOT NULL"),
        ),
        # The names of a video's copies; of a video there may be many jobs of other kinds.
        Index(
            "ix_jobs_ingest_video_id",
            "video_id",
            postgresql_where=text("kind = 'ingest' AND video_id IS NOT NULL"),
        ),
        # Which contents were found at a place.
        Index(
            "ix_jobs_input_uri",
            text("(input ->> 'uri')"),
            postgresql_using="hash",
            postgresql_where=text("kind = 'ingest' AND video_id IS NOT NULL"),
        ),
        Index(
            "ix_jobs_copy_parts",
            text("name_trigrams(result ->> 'filename')"),
            postgresql_using="gin",
            postgresql_where=text("kind = 'ingest' AND video_id IS NOT NULL"),
        ),
        Index(
            "ix_jobs_copy_stem",
            text(COPY_STEM),
            postgresql_where=text("kind = 'ingest' AND video_id IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[JobKind] = mapped_column(enum_column(JobKind))
    state: Mapped[JobState] = mapped_column(enum_column(JobState), default=JobState.QUEUED)
    priority: Mapped[int] = mapped_column(default=5)
    # Who is next among those of a kind and priority; see store.jobs.sql.next_turn.
    turn: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    run_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # No foreign key: it only tells the queues of keys apart, also after a key is gone.
    api_key_id: Mapped[UUID | None]
    batch_id: Mapped[UUID | None] = mapped_column(ForeignKey("batches.id", ondelete="SET NULL"))
    batch_index: Mapped[int | None]
    video_id: Mapped[UUID | None] = mapped_column(ForeignKey("videos.id", ondelete="SET NULL"))
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    dedupe_key: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    worker_losses: Mapped[int] = mapped_column(default=0, server_default="0")
    lost_progress: Mapped[int] = mapped_column(default=0, server_default="0")  # at the last loss
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    lease_expires_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    pause_requested_at: Mapped[datetime | None]
    progress_done: Mapped[int] = mapped_column(default=0, server_default="0")
    progress_total: Mapped[int | None]
    stage: Mapped[str | None]
    input: Mapped[Json]
    result: Mapped[Json | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    error_detail: Mapped[Json | None]
    num_events: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobEvent(Table):
    """One change in the life of a job, never changed again."""

    __tablename__ = "job_events"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str]
    data: Mapped[Json] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class JobPiece(Table):
    """Part of a job's work that the next worker goes on from if this one is lost."""

    __tablename__ = "job_pieces"

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    about: Mapped[Json]  # what the content was made from: of other things it is worth nothing
    content: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Search(Table):
    """A text searched for, and what was found. Its id is its job's."""

    __tablename__ = "searches"
    __table_args__ = (
        Index("ix_searches_model_id", "model_id"),
        Index("ix_searches_generation_id", "generation_id"),
    )

    id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    text: Mapped[str]
    input: Mapped[Json]
    result: Mapped[Json | None]
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("models.id", ondelete="SET NULL"))
    generation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("generations.id", ondelete="SET NULL")
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]


class Question(Table):
    """A question about a video, and its answer. Its id is its job's."""

    __tablename__ = "questions"
    __table_args__ = (
        Index("ix_questions_video_id", "video_id", "id"),
        # Answers to one question: by a hash, since a text may be longer than an index can hold.
        Index(
            "ix_questions_answered",
            "video_id",
            text("md5(text_key)"),
            "id",
            postgresql_where=text("uncertainty IS NOT NULL"),
        ),
        Index(
            "ix_questions_open",
            "video_id",
            text("md5(text_key)"),
            postgresql_where=text("is_open"),
        ),
        Index(
            "ix_questions_uncertainty",
            "task",
            "uncertainty",
            "id",
            postgresql_where=text("is_open AND uncertainty IS NOT NULL AND video_id IS NOT NULL"),
        ),
        Index("ix_questions_trials", "model_id", postgresql_where=text("trial_source IS NOT NULL")),
        Index("ix_questions_model_id", "model_id"),
        Index("ix_questions_generation_id", "generation_id"),
    )

    id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    video_id: Mapped[UUID | None] = mapped_column(ForeignKey("videos.id", ondelete="SET NULL"))
    text: Mapped[str]
    text_key: Mapped[str]  # the text, made comparable with those of labels and other questions
    task: Mapped[Task] = mapped_column(enum_column(Task))
    trial_source: Mapped[str | None]  # null: a person asked; see store/results/trials.py
    input: Mapped[Json]
    result: Mapped[Json | None]
    uncertainty: Mapped[float | None]  # of the answer, 0 to 1: what a label is worth
    # Answered, not asked again since, and without a label. Triggers keep it (migration 0011), since
    # what closes a question is another row: a label, or a later answer. Where it is false, that is
    # so; where it is true, one that came at the same moment may have closed the question.
    is_open: Mapped[bool] = mapped_column(server_default="false")
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("models.id", ondelete="SET NULL"))
    generation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("generations.id", ondelete="SET NULL")
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]


class ApiKey(Table):
    """A key of the API; only its hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    prefix: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
