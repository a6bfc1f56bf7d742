"""The tables of models, of what they serve, and of the finetunes and schedules that make new ones.

generations n-1 models 1-n serving
models 1-n promotions
jobs 1-1 finetunes n-1 datasets
schedules 1-n schedule_fires 1-1 finetunes
"""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.identifiers import new_id
from store.jobs.tables import JobOutput
from store.table_base import Json, Table, Task, enum_column


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


class PromotionAction(StrEnum):
    """Why another model serves a task."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


class MisfirePolicy(StrEnum):
    """What happens to fires that were missed."""

    SKIP = "skip"
    RUN_ONCE = "run_once"


class OverlapPolicy(StrEnum):
    """What happens to a fire while the previous one's finetune is still running."""

    SKIP = "skip"
    QUEUE = "queue"


class FireOutcome(StrEnum):
    """What a fire of a schedule did."""

    STARTED = "started"
    SKIPPED = "skipped"
    FAILED = "failed"


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


class Promotion(Table):
    """A change of which model serves a task; never changed again."""

    __tablename__ = "promotions"
    __table_args__ = (
        Index("ix_promotions_task", "task", "created_at"),
        Index("ix_promotions_model_id", "model_id"),
        Index("ix_promotions_previous_model_id", "previous_model_id"),
        Index("ix_promotions_finetune_id", "finetune_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    task: Mapped[Task] = mapped_column(enum_column(Task))
    # Serves from then on; None when a rollback left the task to nobody.
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    # Served until then; None when nobody did.
    previous_model_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("models.id", ondelete="SET NULL")
    )
    action: Mapped[PromotionAction] = mapped_column(enum_column(PromotionAction))
    reason: Mapped[str | None]
    finetune_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("finetunes.id", ondelete="SET NULL")
    )
    # Not the transaction's begin: changes of a task happen one after another, and this is the order
    # in which they did.
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


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


class Finetune(JobOutput):
    """A model trained further on a data set. Its id is its job's."""

    __tablename__ = "finetunes"
    __table_args__ = (
        Index("ix_finetunes_schedule_id", "schedule_id"),
        Index("ix_finetunes_base_model_id", "base_model_id"),
        Index("ix_finetunes_model_id", "model_id"),
        Index("ix_finetunes_dataset_id", "dataset_id"),
    )

    name: Mapped[str]
    task: Mapped[Task] = mapped_column(enum_column(Task))
    base_model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"))
    recipe: Mapped[Json]
    gate: Mapped[Json]
    request: Mapped[Json]
    schedule_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("schedules.id", ondelete="SET NULL")
    )
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("models.id", ondelete="SET NULL"))
    report: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]


class Schedule(Table):
    """When to finetune anew, and how."""

    __tablename__ = "schedules"
    __table_args__ = (
        Index("ix_schedules_next_fire_at", "next_fire_at", postgresql_where=text("enabled")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    cron: Mapped[str]
    time_zone: Mapped[str] = mapped_column(default="UTC")
    enabled: Mapped[bool] = mapped_column(default=True)
    min_new_labels: Mapped[int] = mapped_column(default=0)
    misfire_policy: Mapped[MisfirePolicy] = mapped_column(
        enum_column(MisfirePolicy), default=MisfirePolicy.RUN_ONCE
    )
    overlap_policy: Mapped[OverlapPolicy] = mapped_column(
        enum_column(OverlapPolicy), default=OverlapPolicy.SKIP
    )
    finetune: Mapped[Json]  # the body of POST /v1/finetunes
    next_fire_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ScheduleFire(Table):
    """What one fire of a schedule did. The key makes a second one for the same time impossible."""

    __tablename__ = "schedule_fires"
    __table_args__ = (Index("ix_schedule_fires_finetune_id", "finetune_id"),)

    schedule_id: Mapped[UUID] = mapped_column(
        ForeignKey("schedules.id", ondelete="CASCADE"), primary_key=True
    )
    fire_time: Mapped[datetime] = mapped_column(primary_key=True)
    outcome: Mapped[FireOutcome] = mapped_column(enum_column(FireOutcome))
    reason: Mapped[str | None]  # a code: not_enough_labels, overlap, misfire, refused:<code>
    detail: Mapped[str | None]
    finetune_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("finetunes.id", ondelete="SET NULL")
    )
    is_manual: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
