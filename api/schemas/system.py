"""Counts and health as the API shows them."""

from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.resources import Resource
from store.jobs.state import JobKind, JobState
from store.videos.tables import VideoState

STATS_EXAMPLE: JsonDict = {
    "videos": {"processing": 1, "ready": 11, "failed": 0},
    "jobs": {"ingest": {"succeeded": 12}, "embed": {"succeeded": 11, "running": 1}},
    "due": {"embed": 0},
    "queues": {"ingest": 0, "embed": 0, "interactive": 0, "finetune": 0, "maintenance": 0},
    "generation": {
        "id": "0198c0d0-2222-7aaa-8bbb-1234567890ab",
        "model_id": "0198c0d0-3333-7aaa-8bbb-1234567890ab",
        "recall_model_id": "0198c0d0-3333-7aaa-8bbb-1234567890ab",
        "plan": {"name": "segments", "num_clips": 4, "frames_per_clip": 1},
        "num_videos": 12,
        "num_indexed": 11,
    },
    "waiting_requests": 0,
}


class GenerationStats(Resource):
    """The generation that is searched, and how much of the library it holds."""

    id: UUID
    model_id: UUID
    recall_model_id: UUID
    plan: dict[str, Any]
    num_videos: int
    num_indexed: int


class Stats(Resource):
    """Counts, for people and dashboards."""

    model_config = ConfigDict(json_schema_extra={"examples": [STATS_EXAMPLE]})

    videos: dict[VideoState, int]
    jobs: dict[JobKind, dict[JobState, int]]
    due: dict[JobKind, int] = Field(description="jobs that a worker could take now")
    queues: dict[str, int | None] = Field(description="messages waiting; null: Redis is away")
    generation: GenerationStats | None
    waiting_requests: int = Field(description="requests that wait for a job")


class Health(Resource):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: str


class Readiness(Resource):
    """The service can take requests; without Redis too, but jobs then start later."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "ready",
                    "state": "read_write",
                    "database": True,
                    "schema_current": True,
                    "redis": True,
                }
            ]
        }
    )

    status: Literal["ready", "degraded"] = Field(description="degraded: Redis does not answer")
    state: Literal["read_write", "read_only"] = Field(
        description="read_only: a disk is full; what adds something is answered 507 until there "
        "is room again"
    )
    database: bool
    schema_current: bool
    redis: bool
