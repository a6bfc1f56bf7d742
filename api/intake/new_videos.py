"""Videos put in one by one: by upload, or by the uri of a file under a media root."""

import json
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

import anyio.to_thread
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.dependencies import Services
from api.errors import ApiError
from api.intake.uploads import Upload, receive_upload
from api.middleware.authentication import key_id_of
from api.schemas.jobs import JobResource, job_resource
from api.schemas.videos import NEW_VIDEO_EXAMPLE, NewUpload, NewVideo
from store.disk_space import is_storage_full
from store.jobs.records import SINGLE_PRIORITY, priority_of_item
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.jobs.tables import Job
from store.videos.batches import BatchRepository
from store.videos.contents import hold_content, media_key
from store.videos.repository import VideoRepository

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
                    "strict": {"type": "boolean"},
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
        threads=services.upload_threads,
    ) as upload:
        new = _upload_fields(upload)
        wanted = _ingest_job(request, new, idempotency_key)
        return await _store_upload(services, upload, new, wanted)


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
            HTTPStatus.BAD_REQUEST, "malformed_json", f"The body is not valid JSON: {error}."
        ) from error
    wanted = _ingest_job(request, new, idempotency_key)
    return await run_in_threadpool(_add_file, services, new, wanted)


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


async def _store_upload(
    services: Services, upload: Upload, new: NewUpload, wanted: NewJob
) -> JobResource:
    """Put an upload where workers find it, then enqueue its job; answered when both will stay.

    A transfer to a remote store takes minutes: it has threads of its own and no transaction.
    """
    asked: dict[str, Any] = {
        "blob_key": media_key(upload.sha256),
        "sha256": upload.sha256,
        "filename": upload.filename,
        "tags": new.tags,
        "metadata": new.metadata,
    }
    if new.strict:
        asked["strict"] = True
    wanted = replace(wanted, input=asked)
    # What will be refused, or was done already, moves no file.
    job = await run_in_threadpool(_find_repeated, services, wanted)
    while job is None:
        await anyio.to_thread.run_sync(
            _transfer, services, upload, limiter=services.transfer_threads
        )
        job = await run_in_threadpool(_enqueue_upload, services, upload, wanted)
    services.doorbell.ring(job.kind, job.id)
    return job_resource(job)


def _find_repeated(services: Services, wanted: NewJob) -> Job | None:
    with services.sessions() as session:
        if wanted.batch_id is not None:
            BatchRepository(session).get(wanted.batch_id)
        return JobRepository(session).find_repeated(wanted)


def _transfer(services: Services, upload: Upload) -> None:
    key = media_key(upload.sha256)
    try:
        if not services.blobs.exists(key):
            services.blobs.take_file(key, upload.path)
    except OSError as error:
        if is_storage_full(error):
            raise  # and answered like any write that finds no room
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "store_unavailable",
            f"The blob store does not take the file: {error.strerror or error}.",
        ) from error


def _enqueue_upload(services: Services, upload: Upload, wanted: NewJob) -> Job | None:
    """Enqueue the job of a blob that is there; None if a deletion has just taken it away."""
    with services.sessions.begin() as session:
        job = JobRepository(session).find_repeated(wanted)
        if job is not None:
            return job
        # From here on a deletion does not take the blob away that this job needs.
        hold_content(session, upload.sha256)
        if not services.blobs.exists(media_key(upload.sha256)):
            return None
        known = VideoRepository(session).hold_by_sha256(upload.sha256)
        return _enqueue(session, replace(wanted, video_id=None if known is None else known.id))


def _add_file(services: Services, new: NewVideo, wanted: NewJob) -> JobResource:
    path = services.media_roots.locate_file(new.uri)
    asked: dict[str, Any] = {"uri": path.as_uri(), "tags": new.tags, "metadata": new.metadata}
    if new.strict:
        asked["strict"] = True
    with services.sessions.begin() as session:
        job = _enqueue(session, replace(wanted, input=asked))
    services.doorbell.ring(job.kind, job.id)
    return job_resource(job)


def _ingest_job(request: Request, new: NewUpload | NewVideo, idempotency_key: str | None) -> NewJob:
    """Make the job of a video, still without its input."""
    return NewJob(
        kind=JobKind.INGEST,
        input={},
        priority=SINGLE_PRIORITY,
        api_key_id=key_id_of(request),
        batch_id=new.batch_id,
        idempotency_key=idempotency_key,
    )


def _enqueue(session: Session, wanted: NewJob) -> Job:
    if wanted.batch_id is not None:
        index = BatchRepository(session).next_index(wanted.batch_id)
        wanted = replace(wanted, batch_index=index, priority=priority_of_item(index + 1))
    return JobRepository(session).enqueue(wanted)


def _invalid(error: ValidationError) -> RequestValidationError:
    found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
    return RequestValidationError(found)
