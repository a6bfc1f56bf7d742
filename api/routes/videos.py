"""Videos: put in, listed, watched, taken out."""

from collections.abc import Callable
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy.exc import SQLAlchemyError

from api.content_types import JSON, content_type_of, unsupported_media_type
from api.dependencies import IdempotencyKey, PageDep, Services, ServicesDep
from api.errors import ApiError
from api.intake.new_videos import NEW_VIDEO_BODY, add_by_uri, add_upload
from api.responses.answers import accepted
from api.responses.media import disposition_of, media_changed, media_type_of, open_blob, open_media
from api.responses.problems import Responses, refusals
from api.responses.ranges import Source, respond_with
from api.schemas.jobs import JobResource
from api.schemas.resources import Page
from api.schemas.text import FileName, Reference
from api.schemas.videos import (
    ClipList,
    ShownState,
    VideoResource,
    clip_resource,
    video_resource,
)
from policy.video_references import find_videos
from store.database import run_in_transaction
from store.errors import BlobNotFound
from store.labels.repository import LabelRepository
from store.models.repository import GenerationRepository
from store.videos.contents import remove_unneeded_content, thumbnail_key
from store.videos.locations import VideoLocations
from store.videos.names import as_name
from store.videos.repository import VideoRepository
from store.videos.tables import Video, VideoState

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/v1/videos", tags=["videos"])

_MEDIA_RESPONSES: Responses = {
    200: {"description": "The whole file", "content": {"video/*": {}, "image/*": {}}},
    206: {"description": "The part that Range asks for", "content": {"video/*": {}}},
    304: {"description": "The client has it already"},
    **refusals(
        "video_not_found",
        "media_gone",
        "media_changed",
        "media_being_checked",
        "outside_media_roots",
        "precondition_failed",
        "range_not_satisfiable",
    ),
}
_THUMBNAIL_RESPONSES: Responses = {
    200: {"description": "A JPEG", "content": {"image/jpeg": {}}},
    304: {"description": "The client has it already"},
    **refusals("video_not_found", "thumbnail_not_found", "media_changed", "precondition_failed"),
}


class Thumbnail(StrEnum):
    """poster is one frame; strip shows several side by side."""

    POSTER = "poster"
    STRIP = "strip"


@router.post(
    "",
    status_code=202,
    response_model=JobResource,
    openapi_extra={"requestBody": NEW_VIDEO_BODY},
    responses={
        202: {"description": "Accepted; follow the job at Location"},
        **refusals(
            "malformed_json",
            "malformed_multipart",
            "outside_media_roots",
            "batch_not_found",
            "payload_too_large",
            "unsupported_media_type",
            "media_not_found",
            "invalid_request",
            "idempotency_conflict",
        ),
    },
)
async def create_video(
    request: Request, services: ServicesDep, *, idempotency_key: IdempotencyKey = None
) -> Response:
    """Index a video: an upload (multipart form, part `file`), or a file on the service's machine.

    The same content twice is one video. The answer is the ingest job; its `video_id` is set when
    the file was found sound, and at once when an upload's content is known already.
    """
    content_type = content_type_of(request)
    if content_type == "multipart/form-data":
        job = await add_upload(services, request, idempotency_key=idempotency_key)
    elif content_type == JSON:
        job = await add_by_uri(services, request, idempotency_key=idempotency_key)
    else:
        raise unsupported_media_type(
            "Send multipart/form-data with a part `file`, or application/json with a `uri`."
        )
    return accepted(job, location=f"/v1/jobs/{job.id}")


@router.get(
    "",
    response_model=Page[VideoResource],
    responses=refusals("invalid_page_token", "invalid_request"),
)
def list_videos(
    services: ServicesDep,
    page: PageDep,
    *,
    state: Annotated[
        ShownState | None, Query(description="superseded videos are listed only if asked for")
    ] = None,
    tag: Annotated[str | None, Query(max_length=200, pattern="^[^\0]*$")] = None,
    name: Annotated[FileName | None, Query(description="its file name, or that of a copy")] = None,
    name_part: Annotated[
        FileName | None, Query(description="a part of such a name, in any case")
    ] = None,
    named: Annotated[
        Reference | None,
        Query(
            description="what a label's `video` may be: an id, a sha256, a URI, a path, the end of "
            "one, or a file name",
        ),
    ] = None,
) -> Page[VideoResource]:
    """List videos, the newest first."""
    stored, missing = _stored_state(state)
    with services.sessions() as session:
        ids = None
        if named is not None:
            ids = [video.id for video in find_videos(session, [named])[named]]
        found = VideoRepository(session).list(
            page_size=page.page_size,
            page_token=page.page_token,
            state=stored,
            missing=missing,
            tag=tag,
            name=None if name is None else as_name(name),
            name_part=None if name_part is None else as_name(name_part),
            ids=ids,
        )
        counts = LabelRepository(session).counts_of([video.id for video in found.items])
    return Page(
        items=[video_resource(each, num_labels=counts.get(each.id, 0)) for each in found.items],
        next_page_token=found.next_page_token,
    )


@router.get("/{video_id}", response_model=VideoResource, responses=refusals("video_not_found"))
def get_video(services: ServicesDep, video_id: UUID) -> VideoResource:
    """Get a video."""
    with services.sessions() as session:
        video = VideoRepository(session).get(video_id)
        counts = LabelRepository(session).counts_of([video_id])
        return video_resource(video, num_labels=counts.get(video_id, 0))


@router.head("/{video_id}", response_model=VideoResource, responses=refusals("video_not_found"))
def head_video(services: ServicesDep, video_id: UUID) -> VideoResource:
    """Check that a video exists."""
    return get_video(services, video_id)


@router.delete("/{video_id}", status_code=204, responses=refusals("video_not_found"))
def delete_video(services: ServicesDep, video_id: UUID) -> None:
    """Remove a video, its clips and its labels, of which it has `num_labels`.

    A file that lies under a media root stays there.
    """
    deleted = run_in_transaction(
        services.sessions, lambda session: VideoRepository(session).delete(video_id)
    )
    try:
        for key in deleted.tokens_keys:
            services.blobs.delete(key)
        remove_unneeded_content(services.sessions, services.blobs, sha256=deleted.sha256)
    except OSError as error:  # the row is gone; the sweep removes what is left behind
        log.warning("blob.not_deleted", video_id=str(video_id), error=repr(error))


@router.get("/{video_id}/media", response_class=Response, responses=_MEDIA_RESPONSES)
def get_video_media(
    request: Request,
    services: ServicesDep,
    *,
    video_id: UUID,
    range_: Annotated[str | None, Header(alias="Range", description="such as bytes=0-1023")] = None,
) -> Response:
    """Get the file of a video, whole or in part."""
    with services.sessions() as session:
        video = VideoRepository(session).get(video_id)
    source = _open(services, video)
    headers = {
        "Content-Disposition": disposition_of(video),
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, no-cache",
    }
    return respond_with(source, request, media_type=media_type_of(video), headers=headers)


@router.head("/{video_id}/media", response_class=Response, responses=_MEDIA_RESPONSES)
def head_video_media(
    request: Request,
    services: ServicesDep,
    *,
    video_id: UUID,
    range_: Annotated[str | None, Header(alias="Range", description="such as bytes=0-1023")] = None,
) -> Response:
    """Get the headers of a video's file: size, type, ETag."""
    return get_video_media(request, services, video_id=video_id, range_=range_)


@router.get(
    "/{video_id}/thumbnails/{thumbnail}",
    response_class=Response,
    responses=_THUMBNAIL_RESPONSES,
)
def get_video_thumbnail(
    request: Request, services: ServicesDep, *, video_id: UUID, thumbnail: Thumbnail
) -> Response:
    """Get a picture of a video."""
    with services.sessions() as session:
        video = VideoRepository(session).get(video_id)
    if video.state == VideoState.SUPERSEDED:
        raise media_changed(video)
    key = thumbnail_key(video.sha256, f"{thumbnail}.jpg")
    try:
        source = open_blob(services.blobs, key, etag=f'"{video.sha256}-{thumbnail}"')
    except BlobNotFound as error:
        raise ApiError(
            HTTPStatus.NOT_FOUND, "thumbnail_not_found", f"Video {video_id} has no {thumbnail}."
        ) from error
    headers = {"Cache-Control": "private, max-age=3600"}
    return respond_with(source, request, media_type="image/jpeg", headers=headers)


@router.head(
    "/{video_id}/thumbnails/{thumbnail}",
    response_class=Response,
    responses=_THUMBNAIL_RESPONSES,
)
def head_video_thumbnail(
    request: Request, services: ServicesDep, *, video_id: UUID, thumbnail: Thumbnail
) -> Response:
    """Get the headers of a picture of a video: size, ETag."""
    return get_video_thumbnail(request, services, video_id=video_id, thumbnail=thumbnail)


@router.get("/{video_id}/clips", response_model=ClipList, responses=refusals("video_not_found"))
def list_video_clips(services: ServicesDep, video_id: UUID) -> ClipList:
    """List the clips of a video in the generation that is searched."""
    with services.sessions() as session:
        videos = VideoRepository(session)
        video = videos.get(video_id)
        generation = GenerationRepository(session).active()
        clips = [] if generation is None else videos.clips(video_id, generation.id)
    return ClipList(
        generation_id=None if generation is None else generation.id,
        items=[clip_resource(clip, video.starts_at_seconds) for clip in clips],
    )


def _stored_state(shown: ShownState | None) -> tuple[VideoState | None, bool | None]:
    """Return the state of the row and whether its file is missing; None: any."""
    if shown is None:
        return None, None
    if shown is ShownState.MISSING:
        return VideoState.READY, True
    state = VideoState(shown.value)
    return state, False if state is VideoState.READY else None


def _open(services: Services, video: Video) -> Source:
    """Open the file of a video, and note what that says of its location."""

    def on_checked(stamp: str | None) -> None:
        _note(services, lambda locations: locations.keep_stamp(video.id, stamp))

    try:
        return open_media(
            video, blobs=services.blobs, media_roots=services.media_roots, on_checked=on_checked
        )
    except ApiError as error:
        if error.code == "media_gone" and video.blob_key is None:
            _note(services, lambda locations: locations.note_checked(there=[], missing=[video.id]))
        raise


def _note(services: Services, write: Callable[[VideoLocations], None]) -> None:
    """Note what was seen of a location; the file is sent also where nothing can be written now."""
    try:
        with services.sessions.begin() as session:
            write(VideoLocations(session))
    except SQLAlchemyError as error:
        log.warning("location.not_noted", error=repr(error))
