"""A bound on bodies that are read whole into memory; uploads, batches and labels are not."""

from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_response

STREAMED_PATHS: Final = frozenset({"/v1/videos", "/v1/batches", "/v1/labels"})


class BodyLimitMiddleware:
    """Answers 413 to a body that is larger than any JSON we take."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in STREAMED_PATHS:
            await self._app(scope, receive, send)
            return
        detail = f"The body may have {self._max_bytes} bytes at most."
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_bytes:
            response = problem_response(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "payload_too_large", detail
            )
            await response(scope, receive, send)
            return
        received_bytes = 0

        async def receive_and_count() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._max_bytes:  # it came in chunks, unannounced
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
            return message

        await self._app(scope, receive_and_count, send)
