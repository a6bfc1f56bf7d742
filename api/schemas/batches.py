"""Batches as the API takes and shows them."""

from datetime import datetime
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.jobs import failure_of
from api.schemas.resources import Failure, RequestBody, Resource
from api.schemas.text import Tags, Uri
from policy.texts import Metadata, Name
from store.videos.records import BatchItem, BatchProgress, ItemState
from store.videos.tables import Batch

NEW_BATCH_EXAMPLE: JsonDict = {
    "name": "holiday videos",
    "items": [
        {"uri": "file:///videos/parrot.mp4", "tags": ["birds"], "external_id": "asset-17"},
        {"uri": "/videos/dog.mp4"},
    ],
}
BATCH_EXAMPLE: JsonDict = {
    "id": "0198c0df-5555-7aaa-8bbb-1234567890ab",
    "name": "holiday videos",
    "state": "running",
    "total": 2,
    "done": 1,
    "counts": {
        "queued": 1,
        "running": 0,
        "succeeded": 1,
        "failed": 0,
        "cancelled": 0,
        "quarantined": 0,
    },
    "duplicates": 0,
    "cancel_requested": False,
    "created_at": "2026-01-05T09:00:00Z",
    "finished_at": None,
    "rate_per_second": 0.5,
    "eta_seconds": 2.0,
}
ITEM_EXAMPLE: JsonDict = {
    "index": 0,
    "uri": "file:///videos/parrot.mp4",
    "external_id": "asset-17",
    "state": "succeeded",
    "is_partial": False,
    "error": None,
    "job_id": "0198c0de-7a11-7c3e-9f5a-4b1d3f0e2a61",
    "video_id": "0198c0de-8b52-7d0f-8a43-0c9e5d7f1b22",
}


class NewItem(RequestBody):
    """One file of a batch."""

    uri: Uri
    tags: Tags = Field(default=[])
    metadata: Metadata = Field(default={})
    external_id: Name | None = Field(default=None, description="your own id of this item")
    strict: bool = Field(
        default=False,
        description="refuse a video of which a part cannot be decoded, rather than index the rest",
    )


class NewBatch(RequestBody):
    """Many files, accepted as a whole or not at all. Read item by item, never held in memory."""

    model_config = ConfigDict(json_schema_extra={"examples": [NEW_BATCH_EXAMPLE]})

    name: Name | None = None
    items: list[NewItem] = Field(max_length=100_000)


class ItemCounts(Resource):
    """How many items are in which state. Done are the last four."""

    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    quarantined: int = 0


class BatchResource(Resource):
    """Videos that came in one request, and how far they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [BATCH_EXAMPLE]})

    id: UUID
    name: str | None
    state: str = Field(description="queued, running, or finished when every item is done")
    total: int
    done: int
    counts: ItemCounts
    duplicates: int = Field(description="of those that succeeded: content that was known already")
    cancel_requested: bool
    created_at: datetime
    finished_at: datetime | None
    rate_per_second: float | None = Field(description="items done a second, so far")
    eta_seconds: float | None = Field(description="until every item is done, at that rate")


class ItemResource(Resource):
    """One file of a batch: done when its video can be searched, or never can be."""

    model_config = ConfigDict(json_schema_extra={"examples": [ITEM_EXAMPLE]})

    index: int
    uri: str = Field(description="upload:///NAME for an upload")
    external_id: str | None
    state: ItemState
    is_partial: bool = Field(
        description="whether only a part was indexed; its video's `damaged_spans` say which"
    )
    error: Failure | None
    job_id: UUID
    video_id: UUID | None


NEW_BATCH_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/NewBatch"},
            "example": NEW_BATCH_EXAMPLE,
        },
        "application/x-ndjson": {
            "schema": {"type": "string", "description": "a NewItem as JSON on each line"},
            "example": '{"uri": "/videos/parrot.mp4"}\n{"uri": "/videos/dog.mp4"}\n',
        },
    },
}


def batch_resource(batch: Batch, progress: BatchProgress, *, now: datetime) -> BatchResource:
    """Describe a batch, its rate judged at the instant `now`."""
    counts, last_change = progress.counts, progress.last_change
    total = sum(counts.values())
    done = total - counts[ItemState.QUEUED] - counts[ItemState.RUNNING]
    is_finished = done == total
    rate, eta = _speed(batch, total, done, end=last_change if is_finished else now)
    state = "finished" if is_finished else "running"
    if not done and not counts[ItemState.RUNNING] and total:
        state = "queued"
    return BatchResource(
        id=batch.id,
        name=batch.name,
        state=state,
        total=total,
        done=done,
        counts=ItemCounts(**{state.value: count for state, count in counts.items()}),
        duplicates=progress.duplicates,
        cancel_requested=batch.cancel_requested_at is not None,
        created_at=batch.created_at,
        finished_at=last_change if is_finished else None,
        rate_per_second=rate,
        eta_seconds=eta,
    )


def _speed(
    batch: Batch, total: int, done: int, *, end: datetime | None
) -> tuple[float | None, float | None]:
    if not done or end is None:
        return None, None
    seconds = max((end - batch.created_at).total_seconds(), 0.001)
    rate = done / seconds
    return round(rate, 3), round((total - done) / rate, 1)


def item_resource(item: BatchItem) -> ItemResource:
    asked = item.job.input
    uri = asked.get("uri")
    if uri is None and asked.get("filename"):
        uri = f"upload:///{quote(asked['filename'])}"
    return ItemResource(
        index=item.index,
        uri=uri or "",
        external_id=asked.get("external_id"),
        state=item.state,
        is_partial=(
            item.state is ItemState.SUCCEEDED and item.video is not None and item.video.is_partial
        ),
        error=failure_of(item.error_code, item.error_message),
        job_id=item.job.id,
        video_id=item.job.video_id,
    )
