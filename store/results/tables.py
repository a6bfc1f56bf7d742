"""The tables of what people asked, and what was found.

jobs 1-1 searches | questions
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.jobs.tables import JobOutput
from store.table_base import Json, Task, enum_column


class Search(JobOutput):
    """A text searched for, and what was found. Its id is its job's."""

    __tablename__ = "searches"
    __table_args__ = (
        Index("ix_searches_model_id", "model_id"),
        Index("ix_searches_generation_id", "generation_id"),
    )

    text: Mapped[str]
    input: Mapped[Json]
    result: Mapped[Json | None]
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("models.id", ondelete="SET NULL"))
    generation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("generations.id", ondelete="SET NULL")
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]


class Question(JobOutput):
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
