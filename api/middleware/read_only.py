"""Read-only mode: while a disk is nearly full, nothing new is taken in.

What is there can still be read, searched results fetched, jobs cancelled and paused, videos and
other things deleted: that is how room is made.
"""

from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_response
from store.disk_space import DiskState, DiskWatch

STORAGE_FULL: Final = "storage_full"

_ADDING_METHODS: Final = frozenset({"POST", "PUT", "PATCH"})
_STOPPING_VERBS: Final = (":cancel", ":pause")
_RETRY_SECONDS: Final = "30"


class ReadOnlyMiddleware:
    """Answers 507 to what would need room, before its body is read or while it comes."""

    def __init__(self, app: ASGIApp, *, disk: DiskWatch) -> None:
        self._app = app
        self._disk = disk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _adds(scope):
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        body_bytes = int(announced) if announced.isdigit() else 0
        sentence = _refusal(self._disk.state, body_bytes)
        if sentence is not None:
            response = problem_response(
                HTTPStatus.INSUFFICIENT_STORAGE,
                STORAGE_FULL,
                sentence,
                headers={"Retry-After": _RETRY_SECONDS},
            )
            await response(scope, receive, send)
            return

        async def receive_while_there_is_room() -> Message:
            message = await receive()
            if message.get("more_body"):
                sentence = _refusal(self._disk.state, 0)
                if sentence is not None:
                    raise HTTPException(
                        HTTPStatus.INSUFFICIENT_STORAGE, sentence, {"Retry-After": _RETRY_SECONDS}
                    )
            return message

        await self._app(scope, receive_while_there_is_room, send)


def _adds(scope: Scope) -> bool:
    return scope["method"] in _ADDING_METHODS and not scope["path"].endswith(_STOPPING_VERBS)


def _refusal(state: DiskState, body_bytes: int) -> str | None:
    if not state.has_room:
        return (
            f"The service takes nothing in while its storage is full: {state.reason}. "
            "Reading, cancelling and deleting work; it goes on by itself when there is room."
        )
    if state.spare_bytes is not None and body_bytes > state.spare_bytes:
        return (
            f"A body of {body_bytes} bytes has no room: {state.spare_bytes} can be taken in. "
            "Delete something, or make room on the service's disk."
        )
    return None
