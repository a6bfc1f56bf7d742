"""Server-sent events: what happens to a job, told while it happens, until the job is over.

A stream looks at the rows from time to time, as a request with ?wait= does, with threads and
connections of the same few. A client that lost the connection sends Last-Event-ID and misses
nothing, since events are rows; one that has it all is answered 204, which ends its reconnecting.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from typing import Final
from uuid import UUID

import anyio
from starlette.responses import Response, StreamingResponse

from api.dependencies import Services
from api.errors import ApiError
from api.schemas.events import sent_event
from store.jobs.events import JobEventRepository
from store.jobs.repository import JobRepository
from store.jobs.state import is_terminal
from store.jobs.tables import JobEvent

EVENT_STREAM: Final = "text/event-stream"

_HEARTBEAT_SECONDS: Final = 15.0  # less than proxies wait for a byte
_FIRST_PAUSE_SECONDS: Final = 0.1
_PAUSE_GROWTH: Final = 1.5
_LAST_PAUSE_SECONDS: Final = 1.0
_MAX_EVENTS: Final = 200  # read at once


async def stream_events(services: Services, job_id: UUID, *, after: int) -> Response:
    """Answer with the events of a job, from the one after a number on.

    Raises:
        JobNotFound: there is none with this id.
        ApiError: 503 too_many_streams.
    """

    def read(seq: int) -> tuple[Sequence[JobEvent], bool]:
        return read_events(services, job_id, after=seq)

    seen = await services.waiting_room.query(lambda: read(after))
    events, is_over = seen
    if is_over and not events:
        return Response(status_code=int(HTTPStatus.NO_CONTENT))
    if not services.waiting_room.has_slot():
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "too_many_streams",
            "Too many clients are waiting for events; ask for the list of them instead.",
            headers={"Retry-After": "10"},
        )
    return StreamingResponse(
        _events(services, read, seen, after=after),
        media_type=EVENT_STREAM,
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def read_events(services: Services, job_id: UUID, *, after: int) -> tuple[Sequence[JobEvent], bool]:
    """Read some events, and whether none can come after them."""
    with services.sessions() as session:
        # The state first: with the last state came the last event, so a job seen to be over has
        # all of its events there.
        is_over = is_terminal(JobRepository(session).get(job_id).state)
        events = JobEventRepository(session).after(job_id, after, limit=_MAX_EVENTS)
    return events, is_over and len(events) < _MAX_EVENTS


async def _events(
    services: Services,
    read: Callable[[int], tuple[Sequence[JobEvent], bool]],
    seen: tuple[Sequence[JobEvent], bool],
    *,
    after: int,
) -> AsyncIterator[bytes]:
    """Send what was seen already, also when the process is about to stop, then look again."""
    room, seq = services.waiting_room, after
    async with room.slot():
        yield b"retry: 2000\n\n"
        pause_seconds, sent_at = _FIRST_PAUSE_SECONDS, time.monotonic()
        while True:
            events, is_over = seen
            for event in events:
                yield sent_event(event)
                seq = event.seq
            if is_over or room.is_closed:
                return
            now = time.monotonic()
            if events:
                pause_seconds, sent_at = _FIRST_PAUSE_SECONDS, now
            elif now - sent_at >= _HEARTBEAT_SECONDS:
                yield b": still here\n\n"
                sent_at = now
            await anyio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * _PAUSE_GROWTH, _LAST_PAUSE_SECONDS)
            seen = await room.query(lambda: read(seq))  # noqa: B023  called at once
