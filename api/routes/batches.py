"""Batches: many videos in one request, counted and listed by what became of each."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.content_types import JSON, content_type_of, unsupported_media_type
from api.dependencies import IdempotencyKey, PageDep, Services, ServicesDep
from api.intake.batch_bodies import spool_body
from api.intake.new_batches import OnError, store_batch
from api.middleware.authentication import key_id_of
from api.responses.answers import accepted
from api.responses.problems import refusals
from api.schemas.batches import (
    NEW_BATCH_BODY,
    BatchResource,
    ItemResource,
    batch_resource,
    item_resource,
)
from api.schemas.resources import Page
from policy.texts import Name
from store.database import run_in_transaction
from store.jobs.state import JobKind
from store.videos.batches import BatchRepository
from store.videos.records import ItemState

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_NDJSON_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})


@router.post(
    "",
    status_code=202,
    response_model=BatchResource,
    openapi_extra={"requestBody": NEW_BATCH_BODY},
    responses={
        202: {"description": "All items are stored; follow the batch at Location"},
        **refusals(
            "malformed_json",
            "outside_media_roots",
            "payload_too_large",
            "too_many_items",
            "unsupported_media_type",
            "invalid_request",
            "idempotency_conflict",
        ),
    },
)
async def create_batch(
    request: Request,
    services: ServicesDep,
    *,
    name: Annotated[Name | None, Query(description="for NDJSON, which has no place for it")] = None,
    on_error: OnError = OnError.REJECT,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Index many files: JSON, or NDJSON with one item a line; up to 100,000 items.

    All or nothing: when an item is wrong, nothing is stored and `errors` lists index, code and
    message of the first bad items (of all those outside the media roots). With `on_error=skip` the
    bad items are stored as failed items instead. An empty batch can be filled by uploads.
    """
    content_type = content_type_of(request)
    is_ndjson = content_type in _NDJSON_TYPES
    if not is_ndjson and content_type != JSON:
        raise unsupported_media_type("Send application/json or application/x-ndjson.")
    async with spool_body(
        request,
        spool_folder=services.spool_folder,
        max_bytes=services.settings.max_batch_bytes,
    ) as body:

        def store() -> UUID:
            return store_batch(
                services,
                body,
                is_ndjson=is_ndjson,
                name=name,
                on_error=on_error,
                idempotency_key=idempotency_key,
                api_key_id=key_id_of(request),
            )

        # Threads of its own: large batches take seconds, and other requests need theirs.
        batch_id = await anyio.to_thread.run_sync(store, limiter=services.batch_threads)
    resource = await run_in_threadpool(_read, services, batch_id)
    return accepted(resource, location=f"/v1/batches/{batch_id}")


@router.get(
    "",
    response_model=Page[BatchResource],
    responses=refusals("invalid_page_token", "invalid_request"),
)
def list_batches(services: ServicesDep, page: PageDep) -> Page[BatchResource]:
    """List batches, the newest first."""
    with services.sessions() as session:
        batches = BatchRepository(session)
        found = batches.list(page_size=page.page_size, page_token=page.page_token)
        progress = batches.progress([batch.id for batch in found.items])
    now = datetime.now(UTC)
    items = [batch_resource(batch, progress[batch.id], now=now) for batch in found.items]
    return Page(items=items, next_page_token=found.next_page_token)


@router.get("/{batch_id}", response_model=BatchResource, responses=refusals("batch_not_found"))
def get_batch(services: ServicesDep, batch_id: UUID) -> BatchResource:
    """Get a batch: how many of its items are in which state, and when it will be done."""
    return _read(services, batch_id)


@router.get(
    "/{batch_id}/items",
    response_model=Page[ItemResource],
    responses=refusals("batch_not_found", "invalid_page_token", "invalid_request"),
)
def list_batch_items(
    services: ServicesDep,
    *,
    page: PageDep,
    batch_id: UUID,
    state: ItemState | None = None,
    is_partial: Annotated[
        bool, Query(description="only items whose video is indexed in part only")
    ] = False,
) -> Page[ItemResource]:
    """List the items of a batch in their order."""
    with services.sessions() as session:
        batches = BatchRepository(session)
        batches.get(batch_id)
        found = batches.items(
            batch_id,
            state=state,
            only_partial=is_partial,
            page_size=page.page_size,
            page_token=page.page_token,
        )
    return Page(
        items=[item_resource(item) for item in found.items],
        next_page_token=found.next_page_token,
    )


@router.post(
    "/{batch_id}:cancel", response_model=BatchResource, responses=refusals("batch_not_found")
)
def cancel_batch(services: ServicesDep, batch_id: UUID) -> BatchResource:
    """Cancel all unfinished jobs of a batch; a finished one stays as it is, and so do videos."""
    run_in_transaction(services.sessions, lambda session: BatchRepository(session).cancel(batch_id))
    return _read(services, batch_id)


@router.post(
    "/{batch_id}:retry_failed", response_model=BatchResource, responses=refusals("batch_not_found")
)
def retry_failed_items(services: ServicesDep, batch_id: UUID) -> BatchResource:
    """Retry the items that failed or were quarantined. A cancel of the batch ends with that."""
    count = run_in_transaction(
        services.sessions, lambda session: BatchRepository(session).retry_failed(batch_id)
    )
    services.doorbell.ring_many(JobKind.INGEST, count)
    services.doorbell.ring_many(JobKind.EMBED, count)
    return _read(services, batch_id)


def _read(services: Services, batch_id: UUID) -> BatchResource:
    with services.sessions() as session:
        batches = BatchRepository(session)
        batch = batches.get(batch_id)
        progress = batches.progress([batch_id])[batch_id]
    return batch_resource(batch, progress, now=datetime.now(UTC))
