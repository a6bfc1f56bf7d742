"""Videos put in one by one: by upload, or by the uri of a file under a media root."""

import json
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.dependencies import Services
from api.errors import ApiError
from api.schemas.jobs import JobResource, job_resource
from api.schemas.videos import NEW_VIDEO_EXAMPLE, NewUpload, NewVideo
from api.uploads import Upload, receive_upload
from store.batches import BatchRepository
from store.job_state import JobKind
from store.jobs import JobRepository, NewJob
from store.videos import VideoRepository

_MAX_JSON_BYTES: Final = 2**17

NEW_VIDEO_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/NewVideo"},
            "example": NEW_VIDEO_EXAMPLE,
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "batch_id": {"type": "string", "format": "uuid"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "metadata": {"type": "string", "description": "a JSON object"},
                },
            },
            "example": {"file": "(the bytes of parrot.mp4)", "tags": ["birds"]},
        },
    },
}


async def add_upload(
    services: Services, request: Request, *, idempotency_key: str | None
) -> JobResource:
    """Stream the file of a multipart form into the blob store and enqueue its ingest job."""
    async with receive_upload(
        request,
        spool_folder=services.spool_folder,
        max_bytes=services.settings.max_upload_bytes,
    ) as upload:
        new = _upload_fields(upload)
        return await run_in_threadpool(_store_upload, services, upload, new, idempotency_key)


async def add_by_uri(
    services: Services, request: Request, *, idempotency_key: str | None
) -> JobResource:
    """Enqueue the ingest job of a file that lies under a media root."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_JSON_BYTES:
            raise ApiError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "payload_too_large",
                f"The JSON may have {_MAX_JSON_BYTES} bytes at most.",
            )
    try:
        new = NewVideo.model_validate(json.loads(body))
    except ValidationError as error:
        raise _invalid(error) from error
    except (ValueError, RecursionError) as error:
        raise ApiError(
            HTTPStatus.BAD_REQUEST, "malformed_json", f"The body is no valid JSON: {error}."
        ) from error
    return await run_in_threadpool(_add_file, services, new, idempotency_key)


def _upload_fields(upload: Upload) -> NewUpload:
    fields: dict[str, Any] = {}
    for name, text in upload.fields:
        if name == "tags":
            fields.setdefault("tags", []).append(text)
        elif name == "metadata":
            try:
                fields["metadata"] = json.loads(text)
            except (ValueError, RecursionError):
                fields["metadata"] = text  # refused below, as no object
        else:
            fields[name] = text
    try:
        return NewUpload.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error) from error


def _store_upload(
    services: Services, upload: Upload, new: NewUpload, idempotency_key: str | None
) -> JobResource:
    key = f"media/{upload.sha256[:2]}/{upload.sha256}"
    if not services.blobs.exists(key):
        services.blobs.take_file(key, upload.path)
    asked: dict[str, Any] = {
        "blob_key": key,
        "sha256": upload.sha256,
        "filename": upload.filename,
        "tags": new.tags,
        "metadata": new.metadata,
    }
    with services.sessions() as session:
        known = VideoRepository(session).find_by_sha256(upload.sha256)
    return _enqueue(
        services,
        asked,
        batch_id=new.batch_id,
        video_id=None if known is None else known.id,
        idempotency_key=idempotency_key,
    )


def _add_file(services: Services, new: NewVideo, idempotency_key: str | None) -> JobResource:
    path = services.media_roots.locate_file(new.uri)
    asked = {"uri": path.as_uri(), "tags": new.tags, "metadata": new.metadata}
    return _enqueue(
        services, asked, batch_id=new.batch_id, video_id=None, idempotency_key=idempotency_key
    )


def _enqueue(
    services: Services,
    asked: dict[str, Any],
    *,
    batch_id: UUID | None,
    video_id: UUID | None,
    idempotency_key: str | None,
) -> JobResource:
    with services.sessions.begin() as session:
        index = None if batch_id is None else BatchRepository(session).next_index(batch_id)
        job = JobRepository(session).enqueue(
            NewJob(
                kind=JobKind.INGEST,
                input=asked,
                batch_id=batch_id,
                batch_index=index,
                video_id=video_id,
                idempotency_key=idempotency_key,
            )
        )
    services.doorbell.ring(job.kind, job.id)
    return job_resource(job)


def _invalid(error: ValidationError) -> RequestValidationError:
    found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
    return RequestValidationError(found)
