"""The tables of labels and of the data sets frozen from them.

videos 1-1 video_splits
videos 1-n labels 1-n label_revisions
datasets 1-n dataset_labels, datasets n-1 vocabularies
"""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.identifiers import new_id
from store.table_base import Json, ListedTable, Table, Task, enum_column


class Split(StrEnum):
    """What a video's labels are for: a model learns from the one and is measured on the other."""

    TRAIN = "train"
    HOLDOUT = "holdout"


class LabelAction(StrEnum):
    """What made a revision of a label."""

    CREATED = "created"
    EDITED = "edited"
    DELETED = "deleted"


class VideoSplit(Table):
    """On which side of the split a video is, since its first label and for as long as it is there.

    One row a video: its labels can never stand on both sides.
    """

    __tablename__ = "video_splits"

    video_id: Mapped[UUID] = mapped_column(
        ForeignKey("videos.id", ondelete="CASCADE"), primary_key=True
    )
    split: Mapped[Split] = mapped_column(enum_column(Split))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Label(ListedTable):
    """What somebody says is true of a video: an answer, the right choice, or a caption."""

    __tablename__ = "labels"
    __table_args__ = (
        Index(
            "uq_labels_content_sha256",
            "content_sha256",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("ix_labels_task_id", "task", "id", postgresql_where=text("deleted_at IS NULL")),
        Index("ix_labels_video_id", "video_id"),
        Index("ix_labels_source_id", "source", "id", postgresql_where=text("deleted_at IS NULL")),
        Index("ix_labels_created_at", "created_at", postgresql_where=text("deleted_at IS NULL")),
        # Which answers there are to train from; see LabelRepository.trained_answers.
        Index(
            "ix_labels_trained_answers",
            text('"left"(answer, 200)'),
            postgresql_where=text("task = 'qa' AND split = 'train' AND deleted_at IS NULL"),
        ),
    )

    video_id: Mapped[UUID] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"))
    task: Mapped[Task] = mapped_column(enum_column(Task))
    text: Mapped[str]  # the question; of retrieval the caption
    answer: Mapped[str | None]  # of multiple choice the text of the right choice
    choices: Mapped[list[str]] = mapped_column(default=list)
    right_choice: Mapped[int | None]
    start_seconds: Mapped[float | None]
    end_seconds: Mapped[float | None]
    source: Mapped[str | None]
    provenance: Mapped[Json] = mapped_column(default=dict)
    split: Mapped[Split] = mapped_column(enum_column(Split))  # its video's
    content_sha256: Mapped[str]
    revision: Mapped[int] = mapped_column(default=1, server_default="1")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]


class LabelRevision(Table):
    """What a label said from one change to the next; never changed again."""

    __tablename__ = "label_revisions"

    label_id: Mapped[UUID] = mapped_column(
        ForeignKey("labels.id", ondelete="CASCADE"), primary_key=True
    )
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    action: Mapped[LabelAction] = mapped_column(enum_column(LabelAction))
    content: Mapped[Json]
    by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Vocabulary(Table):
    """The answers a model learns to choose from; each new list is the next version."""

    __tablename__ = "vocabularies"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    version: Mapped[int] = mapped_column(unique=True)
    sha256: Mapped[str] = mapped_column(unique=True)
    answers: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Dataset(Table):
    """A list of labels as they were at one moment; found again by the hash of their content."""

    __tablename__ = "datasets"
    __table_args__ = (Index("ix_datasets_vocabulary_id", "vocabulary_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    task: Mapped[Task] = mapped_column(enum_column(Task))
    sha256: Mapped[str] = mapped_column(unique=True)
    num_train: Mapped[int] = mapped_column(default=0)
    num_holdout: Mapped[int] = mapped_column(default=0)
    num_videos: Mapped[int] = mapped_column(default=0)
    answers: Mapped[list[str]] = mapped_column(default=list)
    vocabulary_id: Mapped[UUID | None] = mapped_column(ForeignKey("vocabularies.id"))
    filter: Mapped[Json] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DatasetLabel(Table):
    """A copy of a label in a data set; it outlives the label and its video."""

    __tablename__ = "dataset_labels"

    dataset_id: Mapped[UUID] = mapped_column(
        ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    # No foreign keys: what a model learnt from is known after the label and the video are gone.
    label_id: Mapped[UUID]
    revision: Mapped[int]
    video_id: Mapped[UUID]
    video_sha256: Mapped[str]
    split: Mapped[Split] = mapped_column(enum_column(Split))
    content: Mapped[Json]
