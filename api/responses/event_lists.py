"""Events of a job, as a page of a list or as a stream; for the routes of jobs and finetunes."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Header, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.dependencies import PageQuery, Services
from api.responses.event_streams import EVENT_STREAM, stream_events
from api.schemas.events import EventResource, event_resource
from api.schemas.resources import Page
from store.jobs.events import JobEventRepository
from store.jobs.repository import JobRepository
from store.pages import PageTokens, clamp_page_size

_MAX_SEQ: Final = 2**31 - 1
_STREAM_EXAMPLE: Final = (
    "retry: 2000\n\nid: 1\nevent: queued\n"
    'data: {"seq":1,"type":"queued","data":{},"created_at":"2026-01-05T11:00:00Z"}\n\n'
)
EVENTS_ANSWER: Final[dict[str, Any]] = {
    "description": "Some of the events; with Accept: text/event-stream, all as they come",
    "content": {EVENT_STREAM: {"schema": {"type": "string"}, "example": _STREAM_EXAMPLE}},
}

AfterSeq = Annotated[int, Query(ge=0, le=_MAX_SEQ, description="only events with a higher `seq`")]
LastEventId = Annotated[
    str | None, Header(description="of an interrupted stream: it continues after this `seq`")
]


async def answer_with_events(
    services: Services,
    request: Request,
    *,
    job_id: UUID,
    page: PageQuery,
    after: int,
    last_event_id: str | None,
) -> Response:
    """Answer with the events of a job, in the form that the client accepts.

    Raises:
        JobNotFound: there is none with this id.
        InvalidPageToken: page has one that is not of this list.
        ApiError: 503 too_many_streams.
    """
    if EVENT_STREAM in request.headers.get("accept", ""):
        if last_event_id is not None and last_event_id.isascii() and last_event_id.isdecimal():
            after = max(after, min(int(last_event_id[:20]), _MAX_SEQ))
        return await stream_events(services, job_id, after=after)
    events = await run_in_threadpool(_list, services, job_id, page, after)
    return Response(events.model_dump_json().encode(), media_type="application/json")


def _list(services: Services, job_id: UUID, page: PageQuery, after: int) -> Page[EventResource]:
    size, tokens = clamp_page_size(page.page_size), PageTokens("events", job_id=job_id)
    if page.page_token is not None:
        after = max(after, tokens.index_of(page.page_token))
    with services.sessions() as session:
        JobRepository(session).get(job_id)
        events = JobEventRepository(session).after(job_id, after, limit=size + 1)
    items = [event_resource(event) for event in events[:size]]
    more = tokens.of_index(items[-1].seq) if len(events) > size else None
    return Page(items=items, next_page_token=more)
