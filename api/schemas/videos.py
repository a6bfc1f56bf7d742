"""Videos and their clips as the API takes and shows them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.jobs import failure_of
from api.schemas.resources import Failure, RequestBody, Resource
from api.schemas.text import Metadata, Tags, Uri
from store.tables import Clip, Video, VideoState

NEW_VIDEO_EXAMPLE: JsonDict = {"uri": "file:///videos/parrot.mp4", "tags": ["birds"]}
VIDEO_ID_EXAMPLE = "0198c0de-8b52-7d0f-8a43-0c9e5d7f1b22"
VIDEO_EXAMPLE: JsonDict = {
    "id": VIDEO_ID_EXAMPLE,
    "uri": "file:///videos/parrot.mp4",
    "filename": "parrot.mp4",
    "sha256": "4f1f3c0f6f0a2d3c59e5b2b4cbb6a7d7e3c7f86f1f0e8f9f7a0b1c2d3e4f5a6b",
    "size_bytes": 1048576,
    "state": "ready",
    "error": None,
    "duration_seconds": 12.5,
    "width": 1280,
    "height": 720,
    "frames_per_second": 25.0,
    "num_frames": 312,
    "codec": "h264",
    "container": "mov,mp4,m4a,3gp,3g2,mj2",
    "rotation_degrees": 0,
    "is_still": False,
    "tags": ["birds"],
    "metadata": {},
    "links": {
        "media": f"/v1/videos/{VIDEO_ID_EXAMPLE}/media",
        "poster": f"/v1/videos/{VIDEO_ID_EXAMPLE}/thumbnails/poster",
        "strip": f"/v1/videos/{VIDEO_ID_EXAMPLE}/thumbnails/strip",
        "clips": f"/v1/videos/{VIDEO_ID_EXAMPLE}/clips",
    },
    "created_at": "2026-01-05T09:00:02Z",
    "updated_at": "2026-01-05T09:00:09Z",
}
CLIP_EXAMPLE: JsonDict = {
    "index": 0,
    "start_seconds": 0.0,
    "end_seconds": 3.1,
    "instants": [1.56],
}


class NewUpload(RequestBody):
    """What may be said about an upload beside its file."""

    batch_id: UUID | None = Field(default=None, description="a batch to append to")
    tags: Tags = Field(default=[])
    metadata: Metadata = Field(default={})


class NewVideo(NewUpload):
    """A file of the service's own machine, to be indexed where it lies."""

    model_config = ConfigDict(json_schema_extra={"examples": [NEW_VIDEO_EXAMPLE]})

    uri: Uri = Field(
        description="file:///an/absolute/path or /an/absolute/path, under a media root"
    )


class VideoLinks(Resource):
    """Where the parts of a video are."""

    media: str
    poster: str
    strip: str
    clips: str


class VideoResource(Resource):
    """A video whose content is known. It can be searched and asked about when `ready`."""

    model_config = ConfigDict(json_schema_extra={"examples": [VIDEO_EXAMPLE]})

    id: UUID
    uri: str
    filename: str | None
    sha256: str
    size_bytes: int | None
    state: VideoState
    error: Failure | None
    duration_seconds: float | None
    width: int | None
    height: int | None
    frames_per_second: float | None
    num_frames: int | None
    codec: str | None
    container: str | None
    rotation_degrees: int | None
    is_still: bool
    tags: list[str]
    metadata: dict[str, Any]
    links: VideoLinks
    created_at: datetime
    updated_at: datetime


class ClipResource(Resource):
    """A moment of a video, and the instants of it that the model looked at."""

    model_config = ConfigDict(json_schema_extra={"examples": [CLIP_EXAMPLE]})

    index: int
    start_seconds: float
    end_seconds: float
    instants: list[float]


class ClipList(Resource):
    """The clips of a video in the generation that is searched now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "generation_id": "0198c0d0-2222-7aaa-8bbb-1234567890ab",
                    "items": [CLIP_EXAMPLE],
                }
            ]
        }
    )

    generation_id: UUID | None = Field(description="null before the first model is promoted")
    items: list[ClipResource]


def video_resource(video: Video) -> VideoResource:
    place = f"/v1/videos/{video.id}"
    return VideoResource(
        id=video.id,
        uri=video.uri,
        filename=video.filename,
        sha256=video.sha256,
        size_bytes=video.size_bytes,
        state=video.state,
        error=failure_of(video.error_code, video.error_message),
        duration_seconds=video.duration_seconds,
        width=video.width,
        height=video.height,
        frames_per_second=video.frames_per_second,
        num_frames=video.num_frames,
        codec=video.codec,
        container=video.container,
        rotation_degrees=video.rotation_degrees,
        is_still=video.is_still,
        tags=video.tags,
        metadata=video.custom_metadata,
        links=VideoLinks(
            media=f"{place}/media",
            poster=f"{place}/thumbnails/poster",
            strip=f"{place}/thumbnails/strip",
            clips=f"{place}/clips",
        ),
        created_at=video.created_at,
        updated_at=video.updated_at,
    )


def clip_resource(clip: Clip) -> ClipResource:
    return ClipResource(
        index=clip.index,
        start_seconds=clip.start_seconds,
        end_seconds=clip.end_seconds,
        instants=clip.instants,
    )
