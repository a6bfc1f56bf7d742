"""Connections that are bounded: in number, and in how long each may keep us waiting.

uvicorn waits for ever for a request's head and for the rest of a body. Here a client that does not
get further is answered 408 and let go, and where there are as many connections as there may be, one
that nobody is served on makes room for the next. A slow upload that moves is left alone, and so is
an answer under way, however long it takes: a stream of events, a film that is being watched.
"""

import asyncio
import functools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast

import h11
from starlette.responses import Response
from uvicorn import Config
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from api.errors import problem_response

LOOK_SECONDS: Final = 0.25
_LEAST_BODY_BYTES: Final = 32  # within body_seconds: about what a byte a second gives
_SLOW_BYTES_PER_SECOND: Final = 1024.0  # a body below this gives way when there is no room
_LAST_REQUEST_SECONDS: Final = 1.0  # of a connection that is kept alive while the process stops


@dataclass(frozen=True)
class ConnectionLimits:
    """How long connections may wait for their clients, in seconds, and how many there may be.

    Attributes:
        head_seconds: from a request's first byte (or the connection) to the end of its head.
        body_seconds: within which some of the body has to come.
        idle_seconds: between two requests of one connection.
        max_connections: of one process.
    """

    head_seconds: float
    body_seconds: float
    idle_seconds: float
    max_connections: int


class ConnectionKeeper:
    """The connections of one process. Lives in its event loop."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.is_stopping = False
        self._connections: set[BoundedConnection] = set()

    def protocol_class(self) -> type[asyncio.Protocol]:
        """Return what uvicorn's Config takes as `http`."""
        # uvicorn calls it; that it is not a class makes no difference there.
        return cast("type[asyncio.Protocol]", functools.partial(BoundedConnection, keeper=self))

    async def keep(self) -> None:
        """Close the connections that wait for too long, until cancelled."""
        while True:
            now = time.monotonic()
            for connection in list(self._connections):
                connection.check(now)
            await asyncio.sleep(LOOK_SECONDS)

    def admit(self, connection: "BoundedConnection") -> bool:
        """Take a new connection in, if need be in the place of another."""
        if len(self._connections) >= self.limits.max_connections:
            victim = _least_needed(self._connections, time.monotonic())
            if victim is None:
                return False
            self.forget(victim)
            victim.let_go("Too many connections are open, and this one did not get further.")
        self._connections.add(connection)
        return True

    def forget(self, connection: "BoundedConnection") -> None:
        self._connections.discard(connection)


class BoundedConnection(H11Protocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        keeper: ConnectionKeeper,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._keeper = keeper
        self._received_bytes = 0
        self._received_at = self._waiting_since = time.monotonic()
        self._has_begun_head = False
        # A body's beginning, and the last instant at which enough of it had come.
        self._body_began: tuple[float, int] | None = None
        self._body_mark: tuple[float, int] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._keeper.admit(self):
            self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too_many_connections",
                "As many connections are open as there may be; try again in a few seconds.",
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeper.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        now = time.monotonic()
        self._received_bytes += len(data)
        self._received_at = now
        super().data_received(data)
        if self._is_between_requests():
            if not self._has_begun_head and self.conn.trailing_data[0]:
                self._has_begun_head, self._waiting_since = True, now
        else:
            self._has_begun_head = False
            if self._body_began is None and self.conn.their_state is h11.SEND_BODY:
                self._body_began = self._body_mark = (now, self._received_bytes)
        if self.conn.their_state is not h11.SEND_BODY:
            self._body_began = self._body_mark = None

    def on_response_complete(self) -> None:
        self._waiting_since = time.monotonic()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Stop after the request under way, or after the one that comes next, if it comes soon."""
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.cycle.response_started:
                self.cycle.default_headers = [*self.cycle.default_headers, CLOSE_HEADER]
            self.cycle.keep_alive = False

    def check(self, now: float) -> None:
        """Close the connection if the client has kept us waiting for too long."""
        limits = self._keeper.limits
        if self.transport.is_closing():
            return
        waiting_seconds = now - self._waiting_since
        if self._is_between_requests():
            if self._has_begun_head or self.cycle is None:
                if waiting_seconds > limits.head_seconds:
                    self.let_go(
                        f"The head of the request did not come within {limits.head_seconds:g} s."
                    )
                elif self._keeper.is_stopping and self._is_silent():
                    self._close_soon(waiting_seconds)
            elif self._keeper.is_stopping:
                self._close_soon(waiting_seconds)
        elif self.conn.their_state is h11.SEND_BODY:
            self._check_body(now)

    def let_go(self, sentence: str) -> None:
        """Close the connection, with an answer where the client may expect one."""
        if self._is_silent() or (self.cycle is not None and self._has_answered()):
            self.transport.close() if self._is_silent() else self.transport.abort()
            return
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", sentence)

    def need(self, now: float) -> tuple[int, float]:
        """Rank how much a connection is needed, for the choice of one that gives way.

        Returns:
            (0, -seconds) of waiting for a request; (1, bytes a second) of a body that comes slowly;
            (2, 0) for one that is served.
        """
        if self._is_between_requests():
            return 0, -(now - self._waiting_since)
        if self._body_began is not None and not self.flow.read_paused:
            began_at, began_bytes = self._body_began
            seconds = now - began_at
            rate = (self._received_bytes - began_bytes) / max(seconds, 1e-3)
            is_slow = rate < _SLOW_BYTES_PER_SECOND
            if is_slow and seconds > min(1.0, self._keeper.limits.body_seconds):
                return 1, rate
        return 2, 0.0

    def _is_between_requests(self) -> bool:
        return self.conn.their_state is h11.IDLE and (
            self.cycle is None or self.cycle.response_complete
        )

    def _is_silent(self) -> bool:
        """Whether nothing of a request has come."""
        return self._is_between_requests() and not self._has_begun_head

    def _has_answered(self) -> bool:
        return not self._is_between_requests() and self.cycle.response_started

    def _close_soon(self, waiting_seconds: float) -> None:
        if waiting_seconds > _LAST_REQUEST_SECONDS:
            self.transport.close()

    def _check_body(self, now: float) -> None:
        if self.flow.read_paused or self._body_mark is None:  # it waits for us
            self._body_mark = (now, self._received_bytes)
            self._received_at = now
            return
        body_seconds = self._keeper.limits.body_seconds
        marked_at, marked_bytes = self._body_mark
        is_too_little = self._received_bytes - marked_bytes < _LEAST_BODY_BYTES
        has_stopped = now - self._received_at > body_seconds
        if has_stopped or (now - marked_at > body_seconds and is_too_little):
            self.let_go(f"Too little of the body came within {body_seconds:g} s.")
        elif now - marked_at > body_seconds:
            self._body_mark = (now, self._received_bytes)

    def _refuse(self, status: HTTPStatus, code: str, sentence: str) -> None:
        """Answer without the app, and close."""
        response = problem_response(status, code, sentence, headers={"Retry-After": "5"})
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what the app answers now is dropped
            self.cycle.message_event.set()
        try:
            self.transport.write(self._rendered(response))
        except h11.LocalProtocolError:  # an answer is under way: there is no place for another
            self.transport.abort()
            return
        self._unset_keepalive_if_required()
        self.transport.close()

    def _rendered(self, response: Response) -> bytes:
        headers = [*response.raw_headers, CLOSE_HEADER]
        events: tuple[h11.Event, ...] = (
            h11.Response(status_code=response.status_code, headers=headers),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        )
        return b"".join(self.conn.send(event) or b"" for event in events)


def _least_needed(connections: Iterable[BoundedConnection], now: float) -> BoundedConnection | None:
    """Choose who gives way: the longest waiting, else the slowest body; None if all are served."""
    needs = [(connection.need(now), connection) for connection in connections]
    (rank, _), victim = min(needs, key=lambda pair: pair[0])
    return None if rank == 2 else victim  # noqa: PLR2004
