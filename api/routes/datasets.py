"""Data sets: labels frozen for a finetune; and the vocabularies that come of them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from api.dependencies import PageDep, ServicesDep
from api.responses.lines import NDJSON, lines_response
from api.responses.problems import refusals
from api.schemas.datasets import (
    MAX_LISTED_ANSWERS,
    DatasetResource,
    VocabularyResource,
    dataset_line,
    dataset_resource,
    vocabulary_resource,
)
from api.schemas.resources import Page
from store.labels.datasets import DatasetRepository
from store.labels.tables import DatasetLabel, Split
from store.labels.vocabularies import VocabularyRepository
from store.table_base import Task
from store.videos.repository import VideoRepository

_EXPORT_CHUNK: Final = 2000

router = APIRouter(prefix="/v1", tags=["labels"])

_LINES_EXAMPLE: Final = (
    '{"video": "0198c0de-8b52-7d0f-8a43-0c9e5d7f1b22", "question": "What colour is it?", '
    '"answer": "green", "split": "train", "label_id": "0198c0f0-1111-7aaa-8bbb-1234567890ab", '
    '"revision": 1}\n'
)


@router.get(
    "/datasets",
    response_model=Page[DatasetResource],
    responses=refusals("invalid_page_token", "invalid_request"),
)
def list_datasets(
    services: ServicesDep, *, page: PageDep, task: Task | None = None
) -> Page[DatasetResource]:
    """List data sets, the newest first. A finetune makes one, unless it is given one."""
    with services.sessions() as session:
        found = DatasetRepository(session).list(
            page_size=page.page_size, page_token=page.page_token, task=task
        )
        items = [dataset_resource(dataset) for dataset in found.items]
    return Page(items=items, next_page_token=found.next_page_token)


@router.get(
    "/datasets/{dataset_id}",
    response_model=DatasetResource,
    responses=refusals("dataset_not_found"),
)
def get_dataset(services: ServicesDep, dataset_id: UUID) -> DatasetResource:
    """Get a data set: how much is in it, and which answers."""
    with services.sessions() as session:
        return dataset_resource(DatasetRepository(session).get(dataset_id))


@router.get(
    "/datasets/{dataset_id}/labels",
    response_class=Response,
    responses={
        200: {
            "description": "One label a line",
            "content": {NDJSON: {"schema": {"type": "string"}, "example": _LINES_EXAMPLE}},
        },
        **refusals("dataset_not_found", "invalid_request"),
    },
)
def export_dataset_labels(
    services: ServicesDep, *, dataset_id: UUID, split: Split | None = None
) -> Response:
    """Export the labels of a data set in its order, as they were when it was made."""
    with services.sessions() as session:
        labels = DatasetRepository(session).labels(dataset_id, split)
        lines = _lines(session, iter(labels))
        return lines_response(services, lines, filename=f"dataset-{dataset_id}.jsonl")


def _lines(session: Session, labels: Iterator[DatasetLabel]) -> Iterator[dict[str, Any]]:
    while chunk := list(islice(labels, _EXPORT_CHUNK)):
        starts_at = VideoRepository(session).starts_at({label.video_id for label in chunk})
        for label in chunk:
            yield dataset_line(label, starts_at.get(label.video_id, 0.0))


@router.get(
    "/vocabularies",
    response_model=Page[VocabularyResource],
    responses=refusals(),
)
def list_vocabularies(services: ServicesDep) -> Page[VocabularyResource]:
    """List the vocabularies of all data sets of questions, the newest first. There is one page."""
    with services.sessions() as session:
        items = [
            vocabulary_resource(vocabulary, most_answers=MAX_LISTED_ANSWERS)
            for vocabulary in VocabularyRepository(session).list()
        ]
    return Page(items=items, next_page_token=None)


@router.get(
    "/vocabularies/{vocabulary_id}",
    response_model=VocabularyResource,
    responses=refusals("vocabulary_not_found"),
)
def get_vocabulary(services: ServicesDep, vocabulary_id: UUID) -> VocabularyResource:
    """Get a vocabulary with all of its answers."""
    with services.sessions() as session:
        return vocabulary_resource(VocabularyRepository(session).get(vocabulary_id))
