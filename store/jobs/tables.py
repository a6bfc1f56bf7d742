"""The tables of jobs. All ids are UUIDv7, all times are UTC.

batches 1-n jobs n-1 videos
            jobs 1-n job_events
            jobs 1-n job_pieces
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.identifiers import new_id
from store.jobs.state import TERMINAL_STATES, JobKind, JobState
from store.table_base import Json, Table, enum_column, listed

# The name, without its ending, of a copy that brought a video again.
COPY_STEM = r"regexp_replace(result ->> 'filename', '\.[^.]*$', '')"


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
            "ix_jobs_path_ends",
            text("path_ends(input ->> 'uri')"),
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
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


class JobOutput(Table):
    """A table of what jobs of one kind make: the id of a row is its job's."""

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


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


class RetentionMark(Table):
    """The last job, in the order in which jobs ended, that a kind of retention has dealt with."""

    __tablename__ = "retention_marks"

    name: Mapped[str] = mapped_column(primary_key=True)
    finished_at: Mapped[datetime]
    job_id: Mapped[UUID]
