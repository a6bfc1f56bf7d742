"""Data sets and vocabularies as the API shows them."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.labels import label_line
from api.schemas.resources import Resource
from store.labels.tables import Dataset, DatasetLabel, Vocabulary
from store.table_base import Task

MAX_LISTED_ANSWERS: Final = 100

DATASET_EXAMPLE: JsonDict = {
    "id": "0198c0f1-1111-7aaa-8bbb-1234567890ab",
    "task": "qa",
    "sha256": "4b1d3f0e2a617a117c3e9f5a4b1d3f0e2a617a117c3e9f5a4b1d3f0e2a617a11",
    "num_train": 812,
    "num_holdout": 203,
    "num_videos": 120,
    "num_answers": 2,
    "answers": ["green", "red"],
    "vocabulary_id": "0198c0f1-2222-7aaa-8bbb-1234567890ab",
    "filter": {"task": "qa", "sources": ["review"]},
    "created_at": "2026-01-05T11:00:00Z",
}
VOCABULARY_EXAMPLE: JsonDict = {
    "id": "0198c0f1-2222-7aaa-8bbb-1234567890ab",
    "version": 1,
    "sha256": "9d1c3b5e7f80912a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809102",
    "num_answers": 2,
    "answers": ["green", "red"],
    "created_at": "2026-01-05T11:00:00Z",
}


class DatasetResource(Resource):
    """Labels as they were at one moment: what a finetune was trained and judged on."""

    model_config = ConfigDict(json_schema_extra={"examples": [DATASET_EXAMPLE]})

    id: UUID
    task: Task
    sha256: str = Field(description="of all that it says; the same content is the same data set")
    num_train: int
    num_holdout: int
    num_videos: int
    num_answers: int
    answers: list[str] = Field(
        description=f"the {MAX_LISTED_ANSWERS} most frequent ones; the vocabulary has all"
    )
    vocabulary_id: UUID | None
    filter: dict[str, Any] = Field(description="which labels were asked for")
    created_at: datetime


class VocabularyResource(Resource):
    """The answers that a model learns to choose from, the most frequent first."""

    model_config = ConfigDict(json_schema_extra={"examples": [VOCABULARY_EXAMPLE]})

    id: UUID
    version: int = Field(description="1 is the first list, each new list is the next version")
    sha256: str
    num_answers: int
    answers: list[str] = Field(
        description=f"of a list of vocabularies only the first {MAX_LISTED_ANSWERS}"
    )
    created_at: datetime


def dataset_resource(dataset: Dataset) -> DatasetResource:
    return DatasetResource(
        id=dataset.id,
        task=dataset.task,
        sha256=dataset.sha256,
        num_train=dataset.num_train,
        num_holdout=dataset.num_holdout,
        num_videos=dataset.num_videos,
        num_answers=len(dataset.answers),
        answers=dataset.answers[:MAX_LISTED_ANSWERS],
        vocabulary_id=dataset.vocabulary_id,
        filter=dataset.filter,
        created_at=dataset.created_at,
    )


def vocabulary_resource(
    vocabulary: Vocabulary, *, most_answers: int | None = None
) -> VocabularyResource:
    """Show a vocabulary, with so many of its answers at most; None shows all."""
    return VocabularyResource(
        id=vocabulary.id,
        version=vocabulary.version,
        sha256=vocabulary.sha256,
        num_answers=len(vocabulary.answers),
        answers=vocabulary.answers[:most_answers],
        created_at=vocabulary.created_at,
    )


def dataset_line(label: DatasetLabel, starts_at_seconds: float) -> dict[str, Any]:
    """Write a label of a data set as a line that can be trained from and imported."""
    line = label_line(
        label.content,
        video=str(label.video_id),
        split=label.split,
        starts_at_seconds=starts_at_seconds,
    )
    return line | {"label_id": str(label.label_id), "revision": label.revision}
