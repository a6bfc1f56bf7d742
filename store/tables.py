"""The tables. All ids are UUIDv7, all times are UTC.

batches 1-n jobs n-1 videos 1-n clips n-1 generations n-1 models 1-n serving
            jobs 1-n job_events
            jobs 1-1 searches | questions
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    BigInteger,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Index,
    MetaData,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.identifiers import new_id
from store.job_state import TERMINAL_STATES, JobKind, JobState

Json = dict[str, Any]


class VideoState(StrEnum):
    """Whether a video can be searched yet. The row is made when its file was found sound."""

    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


class GenerationState(StrEnum):
    """A generation is filled, then searched, then replaced."""

    BUILDING = "building"
    ACTIVE = "active"
    RETIRED = "retired"


class Task(StrEnum):
    """What a promoted model does."""

    RECALL = "recall"
    RETRIEVAL = "retrieval"
    QA = "qa"
    MULTIPLE_CHOICE = "multiple_choice"


def _enum(kind: type[StrEnum]) -> Enum:
    # Plain text, not PostgreSQL's own enum type: a new value then needs no migration.
    return Enum(
        kind,
        native_enum=False,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


def _listed(states: tuple[StrEnum, ...]) -> str:
    return ", ".join(f"'{state}'" for state in states)


class Table(DeclarativeBase):
    """Base of the tables, with predictable constraint names so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        str: Text(),
        Json: JSONB(),
        list[str]: ARRAY(Text()),
        list[float]: ARRAY(Float()),
    }


class Video(Table):
    """A file whose content is known; found again by its sha256."""

    __tablename__ = "videos"
    __table_args__ = (
        Index("ix_videos_state_id", "state", "id"),
        Index("ix_videos_tags", "tags", postgresql_using="gin"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    uri: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    blob_key: Mapped[str | None]  # uploads only: a file under a media root stays where it is
    filename: Mapped[str | None]
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[VideoState] = mapped_column(_enum(VideoState), default=VideoState.PROCESSING)
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
    tags: Mapped[list[str]] = mapped_column(default=list)
    # `metadata` is SQLAlchemy's own name on a table class.
    custom_metadata: Mapped[Json] = mapped_column("metadata", default=dict)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Model(Table):
    """A model folder in the blob store."""

    __tablename__ = "models"
    __table_args__ = (Index("uq_models_name_version", "name", "version", unique=True),)

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


class Serving(Table):
    """Which model does a task now. Promotion and rollback change one row."""

    __tablename__ = "serving"

    task: Mapped[Task] = mapped_column(_enum(Task), primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    promoted_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Generation(Table):
    """A model, a recall encoder and a sampling plan; clips of two are never mixed."""

    __tablename__ = "generations"
    __table_args__ = (
        Index(
            "uq_generations_active", "state", unique=True, postgresql_where=text("state = 'active'")
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    recall_model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    plan: Mapped[Json]
    recall_dim: Mapped[int | None]
    state: Mapped[GenerationState] = mapped_column(
        _enum(GenerationState), default=GenerationState.BUILDING
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    activated_at: Mapped[datetime | None]


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
            "run_at",
            "id",
            postgresql_where=text("state = 'queued'"),
        ),
        Index(
            "ix_jobs_leased",
            "lease_expires_at",
            postgresql_where=text("state IN ('running', 'cancelling')"),
        ),
        Index(
            "uq_jobs_active_dedupe_key",
            "dedupe_key",
            unique=True,
            postgresql_where=text(f"state NOT IN ({_listed(TERMINAL_STATES)})"),
        ),
        Index(
            "ix_jobs_batch",
            "batch_id",
            "kind",
            "batch_index",
            postgresql_include=["state", "video_id"],
            postgresql_where=text("batch_id IS NOT NULL"),
        ),
        Index("ix_jobs_state_id", "state", "id"),
        Index("ix_jobs_video_id", "video_id", postgresql_where=text("video_id IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[JobKind] = mapped_column(_enum(JobKind))
    state: Mapped[JobState] = mapped_column(_enum(JobState), default=JobState.QUEUED)
    priority: Mapped[int] = mapped_column(default=5)
    run_at: Mapped[datetime] = mapped_column(server_default=func.now())
    batch_id: Mapped[UUID | None] = mapped_column(ForeignKey("batches.id", ondelete="SET NULL"))
    batch_index: Mapped[int | None]
    video_id: Mapped[UUID | None] = mapped_column(ForeignKey("videos.id", ondelete="SET NULL"))
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    dedupe_key: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    worker_losses: Mapped[int] = mapped_column(default=0, server_default="0")
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    lease_expires_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
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


class Search(Table):
    """A text searched for, and what was found. Its id is its job's."""

    __tablename__ = "searches"

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
    __table_args__ = (Index("ix_questions_video_id", "video_id"),)

    id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    video_id: Mapped[UUID | None] = mapped_column(ForeignKey("videos.id", ondelete="SET NULL"))
    text: Mapped[str]
    input: Mapped[Json]
    result: Mapped[Json | None]
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
