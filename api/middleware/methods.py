"""HEAD on every path that can be read (RFC 9110, 9.3.2), which FastAPI gives to none."""

from http import HTTPStatus

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Answers HEAD as GET would, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or _has_route(scope):
            await self._app(scope, receive, send)
            return
        is_endless = False

        async def send_head(message: Message) -> None:
            nonlocal is_endless
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message.get("headers", [])}
                is_endless = (
                    b"content-length" not in names
                    and message["status"] != HTTPStatus.NO_CONTENT
                    and message["status"] != HTTPStatus.NOT_MODIFIED
                )
                await send(message)
            elif is_endless:  # a stream of events: its head is all that was asked for
                await send({"type": "http.response.body", "body": b""})
                raise _HeadIsSent
            elif not message.get("more_body", False):
                await send({"type": "http.response.body", "body": b""})

        try:
            await self._app({**scope, "method": "GET"}, receive, send_head)
        except _HeadIsSent:
            return


class _HeadIsSent(Exception):
    """Nothing more is to be sent."""


def _has_route(scope: Scope) -> bool:
    """Whether a route of its own answers HEAD here."""
    return any(route.matches(scope)[0] == Match.FULL for route in scope["app"].router.routes)
