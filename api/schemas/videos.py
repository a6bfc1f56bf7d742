"""Videos and their clips as the API takes and shows them."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.jobs import failure_of
from api.schemas.player_clock import on_player_clock
from api.schemas.resources import Failure, RequestBody, Resource
from api.schemas.text import Tags, Uri
from policy.texts import Metadata
from store.videos.tables import Clip, Video, VideoState

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
    "starts_at_seconds": 0.0,
    "mended": [],
    "is_partial": False,
    "damaged_spans": [],
    "missing_since": None,
    "superseded_by": None,
    "tags": ["birds"],
    "metadata": {},
    "num_labels": 3,
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
    strict: bool = Field(
        default=False,
        description="refuse a video of which a part cannot be decoded, rather than index the rest",
    )


class NewVideo(NewUpload):
    """A file of the service's own machine, to be indexed where it lies."""

    model_config = ConfigDict(json_schema_extra={"examples": [NEW_VIDEO_EXAMPLE]})

    uri: Uri = Field(
        description="file:///an/absolute/path or /an/absolute/path, under a media root"
    )


class ShownState(StrEnum):
    """The state of a video, and whether its file is where it was indexed."""

    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"
    MISSING = "missing"
    SUPERSEDED = "superseded"


class DamagedSpan(Resource):
    """A part of a video that cannot be decoded; no moment in it is found."""

    start_seconds: float
    end_seconds: float


class VideoLinks(Resource):
    """Where the parts of a video are."""

    media: str
    poster: str
    strip: str
    clips: str


class VideoResource(Resource):
    """A video whose content is known. It can be searched and asked about when `ready`.

    `missing`: its file was not there when last looked for; it is found still. `superseded`: other
    content was indexed at its place; it is no longer found, and keeps its labels.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [VIDEO_EXAMPLE]})

    id: UUID
    uri: str
    filename: str | None
    sha256: str
    size_bytes: int | None
    state: ShownState
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
    starts_at_seconds: float = Field(
        description="what a player's clock shows at the first frame, as where sound begins "
        "earlier; all moments are on that clock"
    )
    mended: list[str] = Field(
        description="what of the file's clock was not believed: joined_recordings, "
        "damaged_timestamps, clock_gap, last_duration; and unread_recordings, where files were "
        "joined of which only the first are read"
    )
    is_partial: bool = Field(description="whether parts of it cannot be decoded, or are not read")
    damaged_spans: list[DamagedSpan]
    missing_since: datetime | None
    superseded_by: UUID | None = Field(description="the video whose content lies there now")
    tags: list[str]
    metadata: dict[str, Any]
    num_labels: int = Field(description="labels about it, which are deleted with it")
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
    """The clips of a video in the generation that is searched."""

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


def video_resource(video: Video, *, num_labels: int) -> VideoResource:
    base = f"/v1/videos/{video.id}"
    return VideoResource(
        id=video.id,
        uri=video.uri,
        filename=video.filename,
        sha256=video.sha256,
        size_bytes=video.size_bytes,
        state=shown_state(video),
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
        starts_at_seconds=video.starts_at_seconds,
        mended=list(video.probe.get("mended") or []),
        is_partial=video.is_partial,
        damaged_spans=[
            DamagedSpan(
                start_seconds=on_player_clock(start, video.starts_at_seconds),
                end_seconds=on_player_clock(end, video.starts_at_seconds),
            )
            for start, end in video.damaged_spans
        ],
        missing_since=video.missing_since,
        superseded_by=video.superseded_by_id,
        tags=video.tags,
        metadata=video.custom_metadata,
        num_labels=num_labels,
        links=VideoLinks(
            media=f"{base}/media",
            poster=f"{base}/thumbnails/poster",
            strip=f"{base}/thumbnails/strip",
            clips=f"{base}/clips",
        ),
        created_at=video.created_at,
        updated_at=video.updated_at,
    )


def shown_state(video: Video) -> ShownState:
    """Return the state of a video, for people."""
    if video.state == VideoState.READY and video.missing_since is not None:
        return ShownState.MISSING
    return ShownState(video.state.value)


def clip_resource(clip: Clip, starts_at_seconds: float) -> ClipResource:
    """Show a clip of a video, on the player's clock."""
    return ClipResource(
        index=clip.index,
        start_seconds=on_player_clock(clip.start_seconds, starts_at_seconds),
        end_seconds=on_player_clock(clip.end_seconds, starts_at_seconds),
        instants=[on_player_clock(each, starts_at_seconds) for each in clip.instants],
    )
