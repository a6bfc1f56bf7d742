"""API keys: every request but the few open ones carries one, checked before its body is read.

A request that takes long, such as a stream of events or a download, ends when its key does.
"""

import asyncio
import hashlib
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Final
from uuid import UUID

import anyio
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_response
from store.api_keys import ApiKeyRepository
from store.database import Sessions

log = structlog.get_logger(__name__)

OPEN_PATHS: Final = frozenset(
    {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect"}
)
NOT_VALID: Final = "This API key is not valid."
LOOK_SECONDS: Final = 2.0
_MAX_CACHED_KEYS: Final = 1024
_MAX_KEY_LENGTH: Final = 256


@dataclass(frozen=True)
class KnownKey:
    """A valid API key, as requests with it are told apart."""

    id: UUID
    name: str


def key_id_of(request: Request) -> UUID | None:
    """Return which API key a request came with; each key's jobs have turns of their own."""
    key = request.scope.get("state", {}).get("key")
    return key.id if isinstance(key, KnownKey) else None


class KeyVerifier:
    """Recognises valid API keys, and remembers them for a few seconds.

    Only valid keys are remembered, by hash: a key made a moment ago works at once, and a key that
    was revoked works for `remember` at most. Nothing is written when a key is used.
    """

    def __init__(self, sessions: Sessions, *, remember: timedelta) -> None:
        self._sessions = sessions
        self._remember_seconds = remember.total_seconds()
        self._believed: dict[bytes, tuple[float, KnownKey]] = {}  # until when
        self._lock = threading.Lock()

    def is_remembered(self, plain: str) -> bool:
        with self._lock:
            until, _ = self._believed.get(_hash(plain), (0.0, None))
        return until > time.monotonic()

    def find(self, plain: str) -> KnownKey | None:
        """Return which key it is; None when it was not checked lately."""
        with self._lock:
            _, key = self._believed.get(_hash(plain), (0.0, None))
        return key

    def is_valid(self, plain: str) -> bool:
        """Ask the database; blocks."""
        with self._sessions() as session:
            key = ApiKeyRepository(session).verify(plain)
            known = None if key is None else KnownKey(key.id, key.name)
        if known is None:
            return False
        with self._lock:
            if len(self._believed) >= _MAX_CACHED_KEYS:
                self._believed.clear()
            until = time.monotonic() + self._remember_seconds
            self._believed[_hash(plain)] = (until, known)
        return True


class AuthenticationMiddleware:
    """Answers 401 to whoever has no valid key, before anything else is looked at.

    Args:
        app: what answers the others.
        verifier: knows the keys.
        look_seconds: between looks at the key of a request that takes long.
    """

    def __init__(
        self, app: ASGIApp, *, verifier: KeyVerifier, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._look_seconds = look_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        plain = _bearer_of(Headers(scope=scope).get("authorization", ""))
        if plain is None:
            await _refuse("Send an API key as `Authorization: Bearer KEY`.", scope, receive, send)
            return
        try:
            known = self._verifier.is_remembered(plain) or await run_in_threadpool(
                self._verifier.is_valid, plain
            )
        except SQLAlchemyError as error:
            log.error("store.unavailable", path=scope["path"], error=type(error).__name__)  # noqa: TRY400
            response = problem_response(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "store_unavailable",
                "The database does not answer; try again in a few seconds.",
                headers={"Retry-After": "5"},
            )
            await response(scope, receive, send)
            return
        if not known:
            await _refuse(NOT_VALID, scope, receive, send)
            return
        key = self._verifier.find(plain)
        state = scope.setdefault("state", {})
        state["key"], state["key_name"] = key, None if key is None else key.name
        await self._serve(plain, scope, receive, send)

    async def _serve(self, plain: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer for as long as the key is valid."""
        has_begun = False

        async def send_on(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        with anyio.CancelScope() as serving:
            look = asyncio.create_task(self._look_again(plain, serving))
            try:
                await self._app(scope, receive, send_on)
            finally:
                look.cancel()
        if serving.cancelled_caught:
            log.info("key.ended_while_serving", path=scope["path"])
            # What has begun breaks off: the server closes the connection.
            if not has_begun:
                await _refuse(NOT_VALID, scope, receive, send)

    async def _look_again(self, plain: str, serving: anyio.CancelScope) -> None:
        """Break a request off once its key is over."""
        while True:
            await asyncio.sleep(self._look_seconds)
            if self._verifier.is_remembered(plain):
                continue
            try:
                if not await run_in_threadpool(self._verifier.is_valid, plain):
                    serving.cancel()
                    return
            except SQLAlchemyError:
                continue  # nobody can say now; the request may need no database


def _bearer_of(header: str) -> str | None:
    scheme, _, plain = header.partition(" ")
    plain = plain.strip()
    if scheme.lower() != "bearer" or not plain.isascii() or not 0 < len(plain) <= _MAX_KEY_LENGTH:
        return None
    return None if "\0" in plain else plain


async def _refuse(detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    response = problem_response(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        detail,
        headers={"WWW-Authenticate": 'Bearer realm="clipbert"'},
    )
    await response(scope, receive, send)


def _hash(plain: str) -> bytes:
    return hashlib.sha256(plain.encode()).digest()
