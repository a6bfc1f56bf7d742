"""Batches put in: every item checked, then all of them stored in one transaction, or none."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus
from itertools import chain, islice
from typing import IO, Any, Final
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from api.dependencies import Services
from api.errors import MAX_LISTED_ERRORS, ApiError
from api.intake.batch_bodies import DocumentReader, RawItem, read_lines
from api.schemas.batches import NewItem
from api.services.media_roots import Folders
from policy.field_errors import field_errors
from policy.texts import Name
from store.errors import IdempotencyConflict
from store.idling import bear_idling
from store.jobs.records import MAX_SMALL_BATCH, priority_of_item
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.videos.batches import BatchRepository

_MAX_LISTED_OUTSIDE: Final = 10_000  # who sends uploads instead needs to know all of them
_CHECKED_SECONDS: Final = 900.0  # in which a thousand paths should have been looked at
_MAX_KEPT_URI: Final = 300  # of a broken item, to show what it was
_NAME: Final[TypeAdapter[str | None]] = TypeAdapter(Name | None)


class OnError(StrEnum):
    """What a bad item does: `reject` the whole request, or be `skip`ped, recorded as failed."""

    REJECT = "reject"
    SKIP = "skip"


@dataclass
class _Rejections:
    """The bad items so far: all counted, the first of them listed."""

    count: int = 0
    has_outside: bool = False
    only_malformed: bool = True
    listed: list[dict[str, Any]] = field(default_factory=list)

    def add(self, index: int, code: str, message: str) -> None:
        self.count += 1
        is_outside = code == "outside_media_roots"
        self.has_outside |= is_outside
        self.only_malformed &= code == "malformed_json"
        limit = _MAX_LISTED_OUTSIDE if is_outside else MAX_LISTED_ERRORS
        if len(self.listed) < limit:
            self.listed.append({"index": index, "code": code, "message": message})

    def raise_if_any(self) -> None:
        if not self.count:
            return
        status, code = HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"
        if self.has_outside:
            status, code = HTTPStatus.FORBIDDEN, "outside_media_roots"
        elif self.only_malformed:
            status, code = HTTPStatus.BAD_REQUEST, "malformed_json"
        first = self.listed[0]
        raise ApiError(
            status,
            code,
            f"{self.count} of the items cannot be taken, so nothing was stored; "
            f"item {first['index']}: {first['message']}",
            errors=self.listed,
        )


def store_batch(
    services: Services,
    body: IO[bytes],
    *,
    is_ndjson: bool,
    name: str | None,
    on_error: OnError,
    idempotency_key: str | None,
    api_key_id: UUID | None = None,
) -> UUID:
    """Check and store a batch; then ring for its jobs. Blocks.

    Args:
        services: the process's.
        body: the request's, at its beginning.
        is_ndjson: one item a line; else the JSON form.
        name: for a body that has none.
        on_error: what a bad item does.
        idempotency_key: the same key with the same body gives the batch that is there.
        api_key_id: whose the batch is.

    Raises:
        ApiError: 400, 403, 413 or 422; nothing was stored.
        IdempotencyConflict: the key was used for another body.
    """
    fingerprint = _sha256_of(body, is_ndjson=is_ndjson, name=name, on_error=on_error)
    known = _find_known(services, idempotency_key, fingerprint)
    if known is not None:
        return known
    document = None if is_ndjson else DocumentReader(body)
    raw_items = read_lines(body) if document is None else document.items()
    rejections = _Rejections()
    try:
        with services.sessions.begin() as session:
            # Thousands of paths may be looked at in between, on a disk that is far away.
            bear_idling(session, seconds=_CHECKED_SECONDS)
            batch = BatchRepository(session).create(
                name, idempotency_key=idempotency_key, request_sha256=fingerprint
            )
            jobs = _jobs(services, raw_items, batch.id, on_error=on_error, rejections=rejections)
            count = JobRepository(session).enqueue_many(_with_turns(jobs, api_key_id))
            rejections.raise_if_any()
            if document is not None and document.name is not None:
                batch.name = _checked_name(document.name)
    except IdempotencyConflict:
        # Somebody else was faster with the same key.
        known = _find_known(services, idempotency_key, fingerprint)
        if known is None:
            raise
        return known
    services.doorbell.ring_many(JobKind.INGEST, count)
    return batch.id


def _with_turns(jobs: Iterator[NewJob], api_key_id: UUID | None) -> Iterator[NewJob]:
    """Put the items of a small batch before bulk; more are read than such a batch has."""
    first = list(islice(jobs, MAX_SMALL_BATCH + 1))
    priority = priority_of_item(len(first))
    return (replace(job, priority=priority, api_key_id=api_key_id) for job in chain(first, jobs))


def _jobs(
    services: Services,
    raw_items: Iterator[RawItem],
    batch_id: UUID,
    *,
    on_error: OnError,
    rejections: _Rejections,
) -> Iterator[NewJob]:
    folders = Folders()
    max_items = services.settings.max_batch_items
    for raw in raw_items:
        if raw.index >= max_items:
            raise ApiError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "too_many_items",
                f"A batch may have {max_items} items at most.",
            )
        try:
            asked = _checked(services, raw, folders)
        except ApiError as error:
            if on_error is OnError.SKIP:
                yield _failed_job(raw, batch_id, error)
            else:
                rejections.add(raw.index, error.code, error.detail)
            continue
        # After the first bad item the rest is only checked: nothing of it will be stored.
        if not rejections.count:
            yield NewJob(kind=JobKind.INGEST, input=asked, batch_id=batch_id, batch_index=raw.index)


def _checked(services: Services, raw: RawItem, folders: Folders) -> dict[str, Any]:
    if raw.error is not None:
        raise ApiError(HTTPStatus.BAD_REQUEST, "malformed_json", raw.error)
    try:
        item = NewItem.model_validate(raw.value)
    except ValidationError as error:
        (first, *_) = field_errors(error.errors())
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", str(first)) from error
    path = services.media_roots.locate(item.uri, folders=folders)
    asked: dict[str, Any] = {"uri": path.as_uri()}
    if item.tags:
        asked["tags"] = item.tags
    if item.metadata:
        asked["metadata"] = item.metadata
    if item.strict:
        asked["strict"] = True
    if item.external_id is not None:
        asked["external_id"] = item.external_id
    return asked


def _failed_job(raw: RawItem, batch_id: UUID, error: ApiError) -> NewJob:
    uri = raw.value.get("uri") if isinstance(raw.value, dict) else None
    shown = uri if isinstance(uri, str) else ""
    return NewJob(
        kind=JobKind.INGEST,
        input={"uri": _storable(shown)[:_MAX_KEPT_URI]},
        batch_id=batch_id,
        batch_index=raw.index,
        error_code=error.code,
        error_message=_storable(error.detail),
    )


def _storable(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", errors="replace").decode("utf-8")


def _checked_name(name: object) -> str | None:
    try:
        return _NAME.validate_python(name, strict=True)
    except ValidationError as error:
        message = field_errors(error.errors())[0].message
        raise ApiError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "invalid_request",
            f"name: {message}",
            errors=[{"field": "body.name", "message": message}],
        ) from error


def _find_known(services: Services, key: str | None, fingerprint: str) -> UUID | None:
    if key is None:
        return None
    with services.sessions() as session:
        batch = BatchRepository(session).find_by_idempotency_key(key)
    if batch is None:
        return None
    if batch.request_sha256 != fingerprint:
        raise IdempotencyConflict(key)
    return batch.id


def _sha256_of(body: IO[bytes], *, is_ndjson: bool, name: str | None, on_error: OnError) -> str:
    digest = hashlib.sha256(repr((is_ndjson, name, on_error.value)).encode())
    while piece := body.read(2**20):
        digest.update(piece)
    body.seek(0)
    return digest.hexdigest()
