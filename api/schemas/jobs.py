"""Jobs as the API shows them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.resources import Failure, Resource
from store.jobs.state import JobKind, JobState, is_terminal
from store.jobs.tables import Job

JOB_EXAMPLE: JsonDict = {
    "id": "0198c0de-7a11-7c3e-9f5a-4b1d3f0e2a61",
    "kind": "ingest",
    "state": "succeeded",
    "done": True,
    "batch_id": None,
    "video_id": "0198c0de-8b52-7d0f-8a43-0c9e5d7f1b22",
    "priority": 5,
    "attempt": 1,
    "stage": "stored",
    "progress": {"done": 1, "total": 1},
    "cancel_requested": False,
    "pause_requested": False,
    "input": {"uri": "file:///videos/parrot.mp4"},
    "result": {
        "video_id": "0198c0de-8b52-7d0f-8a43-0c9e5d7f1b22",
        "filename": "parrot.mp4",
        "duplicate": False,
        "embed_job_id": "0198c0de-8b60-7e4a-b1c2-6d5e4f3a2b10",
    },
    "error": None,
    "created_at": "2026-01-05T09:00:00Z",
    "updated_at": "2026-01-05T09:00:02Z",
    "started_at": "2026-01-05T09:00:01Z",
    "finished_at": "2026-01-05T09:00:02Z",
}


class Progress(Resource):
    """The progress of a job, in its own units (clips for an embed job)."""

    done: int
    total: int | None = Field(description="null while it is not known")


class JobResource(Resource):
    """A unit of work: indexing a file, a search, a question, a finetune."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]})

    id: UUID
    kind: JobKind
    state: JobState
    done: bool = Field(description="whether the state is final")
    batch_id: UUID | None
    video_id: UUID | None = Field(description="set once the video is known")
    priority: int = Field(description="lower runs first")
    attempt: int
    stage: str | None = Field(description="what the job is doing, or did last")
    progress: Progress
    cancel_requested: bool
    pause_requested: bool = Field(description="a running finetune is about to pause")
    input: dict[str, Any]
    result: dict[str, Any] | None
    error: Failure | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def job_resource(job: Job) -> JobResource:
    return JobResource(
        id=job.id,
        kind=job.kind,
        state=job.state,
        done=is_terminal(job.state),
        batch_id=job.batch_id,
        video_id=job.video_id,
        priority=job.priority,
        attempt=job.attempt,
        stage=job.stage,
        progress=Progress(done=job.progress_done, total=job.progress_total),
        cancel_requested=job.cancel_requested_at is not None,
        pause_requested=job.pause_requested_at is not None,
        input=job.input,
        result=job.result,
        error=failure_of(job.error_code, job.error_message),
        created_at=job.created_at,
        updated_at=job.updated_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def failure_of(code: str | None, message: str | None) -> Failure | None:
    return None if code is None else Failure(code=code, message=message or code)
