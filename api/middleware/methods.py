"""Which methods a path has, and HEAD on every path that can be read (RFC 9110, 9.3.2 and 10.2.1).

FastAPI names the methods of one route only, and gives HEAD to none.
"""

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS: Final = ("get", "head", "post", "put", "patch", "delete")
_PARAMETER: Final = re.compile(r"\\\{\w+\\\}")


def allowed_methods(app: FastAPI, path: str) -> tuple[str, ...]:
    """Name all methods of a path; none where it is not in the API's description."""
    fitting = [each for each in _templates(app) if each[0].fullmatch(path)]
    if not fitting:
        return ()
    # /v1/labels/suggestions is itself, and no label's id.
    least = min(num_parameters for _, num_parameters, _ in fitting)
    found = {method for _, number, methods in fitting if number == least for method in methods}
    if "get" in found:
        found.add("head")
    return tuple(method.upper() for method in _METHODS if method in found)


@lru_cache(maxsize=4)
def _templates(app: FastAPI) -> list[tuple[re.Pattern[str], int, frozenset[str]]]:
    templates = []
    for path, operations in app.openapi()["paths"].items():
        # A colon begins a custom method: `{job_id}:cancel`.
        pattern, num_parameters = _PARAMETER.subn("[^/:]+", re.escape(path))
        templates.append((re.compile(pattern), num_parameters, frozenset(operations)))
    return templates


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
    """Tell whether a route of its own answers HEAD here."""
    return any(route.matches(scope)[0] == Match.FULL for route in scope["app"].router.routes)
