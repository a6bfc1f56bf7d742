"""Requests that wait: for the end of a job (?wait=), or for its events, without holding a thread.

A waiting request sleeps in the event loop and queries the row from time to time: after 20 ms, then
ever less often, down to once in 250 ms. Each query borrows one of a few threads kept for queries
alone and one connection for one short query. So waiting requests, however many, cannot starve the
others of threads. At most `max_waiters` wait at once; whoever comes when all slots are taken is
answered at once with the state of the moment, as with wait=0. Streams of events take half of the
slots at most, since they keep them for hours.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request

MAX_WAIT_SECONDS: Final = 60.0

_FIRST_PAUSE_SECONDS: Final = 0.02
_PAUSE_GROWTH: Final = 1.5
_LAST_PAUSE_SECONDS: Final = 0.25
_QUERY_THREADS: Final = 4

Seen = TypeVar("Seen")


class WaitingRoom:
    """Slots for waiting requests."""

    def __init__(self, *, max_waiters: int) -> None:
        self._max_waiters = max_waiters
        self._num_waiters = 0
        self._num_streams = 0
        self._closed = False
        self._query_threads = anyio.CapacityLimiter(_QUERY_THREADS)

    @property
    def num_waiters(self) -> int:
        return self._num_waiters

    @property
    def is_closed(self) -> bool:
        """Whether all are to go, since the process is about to stop."""
        return self._closed

    def has_slot(self) -> bool:
        """Whether another stream of events may begin."""
        is_full = self._num_waiters + self._num_streams >= self._max_waiters
        return not is_full and self._num_streams < self._max_waiters / 2

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Take a slot for a stream of events while the block lasts."""
        self._num_streams += 1
        try:
            yield
        finally:
            self._num_streams -= 1

    async def query(self, query: Callable[[], Seen]) -> Seen:
        """Query the store briefly, in a thread; the query must leave no transaction open."""
        return await anyio.to_thread.run_sync(query, limiter=self._query_threads)

    def close(self) -> None:
        """Release all waiters at their next query; the process is about to stop."""
        self._closed = True

    async def wait(
        self, request: Request, is_done: Callable[[], bool], *, wait_seconds: float
    ) -> None:
        """Return when `is_done` does, when the time is over, or when the client is gone.

        Args:
            request: whose client is waiting.
            is_done: a short query of the store; runs in a thread and must leave no transaction.
            wait_seconds: how long to wait at most; 0 returns at once, without a query.
        """
        num_slots = self._max_waiters - self._num_streams
        if wait_seconds <= 0 or self._num_waiters >= num_slots:
            return
        self._num_waiters += 1
        try:
            deadline = time.monotonic() + wait_seconds
            pause_seconds = _FIRST_PAUSE_SECONDS
            while not self._closed:
                if await self.query(is_done):
                    return
                left_seconds = deadline - time.monotonic()
                if left_seconds <= 0 or await request.is_disconnected():
                    return
                await anyio.sleep(min(pause_seconds, left_seconds))
                pause_seconds = min(pause_seconds * _PAUSE_GROWTH, _LAST_PAUSE_SECONDS)
        finally:
            self._num_waiters -= 1
