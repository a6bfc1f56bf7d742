"""Events of jobs as the API shows them."""

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.resources import Resource
from store.jobs.tables import JobEvent

EVENT_EXAMPLE: JsonDict = {
    "seq": 3,
    "type": "metrics",
    "data": {"step": 40, "total_steps": 400, "loss": 0.41, "learning_rate": 5e-05},
    "created_at": "2026-01-05T11:01:00Z",
}


class EventResource(Resource):
    """Something that happened to a job."""

    model_config = ConfigDict(json_schema_extra={"examples": [EVENT_EXAMPLE]})

    seq: int = Field(description="1 is the job's first event")
    type: str = Field(description="queued, claimed, stage, metrics, evaluation, succeeded...")
    data: dict[str, Any]
    created_at: datetime


def event_resource(event: JobEvent) -> EventResource:
    return EventResource(
        seq=event.seq, type=event.type, data=event.data, created_at=event.created_at
    )


def sent_event(event: JobEvent) -> bytes:
    """Write an event as a server-sent event, whose id a client that reconnects sends back."""
    content = event_resource(event).model_dump_json()
    return f"id: {event.seq}\nevent: {event.type}\ndata: {content}\n\n".encode()
