"""An API of few words on a real port: a test says what each path answers, and sees what came.

What the API itself would refuse, by its OpenAPI document, is refused here too, and is an error of
the test: no command can work against this and fail against the API.
"""

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.cli.api_document import example, refusal

NO_COUNTS = {
    "queued": 0,
    "running": 0,
    "succeeded": 0,
    "failed": 0,
    "cancelled": 0,
    "quarantined": 0,
}


BAD_REQUEST = 400


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: bytes

    @property
    def filename(self) -> str:
        """Of the form's file."""
        found = re.search(rb'filename="([^"]*)"', self.body)
        assert found is not None
        return found[1].decode()


Answer = Callable[[Request], tuple[int, Any]]


@dataclass
class FakeApi:
    """What it answers: bytes as they are, everything else as JSON."""

    url: str
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # what the API would not take, and why
    headers: dict[str, str] = field(default_factory=dict)  # of every answer
    speaks_by_example: bool = False  # what no test says: the examples of the API's document

    def answer(self, method: str, path: str, value: Any, status: int = 200) -> None:
        self.answers[method, path] = value if callable(value) else lambda _: (status, value)

    def refuse(self, method: str, path: str, status: int, code: str, **more: Any) -> None:
        self.answer(method, path, {"code": code, "detail": f"no: {code}", **more}, status)

    def answer_list(self, path: str, items: list[dict[str, Any]]) -> None:
        """Answer with pages of items, or with one; a query parameter `state` filters them."""

        def page(request: Request) -> tuple[int, Any]:
            start = int(request.query.get("page_token", 0))
            end = start + int(request.query.get("page_size", len(items)))
            state = request.query.get("state")
            wanted = [each for each in items if state in {None, each.get("state")}]
            token = str(end) if end < len(wanted) else None
            return 200, {"items": wanted[start:end], "next_page_token": token}

        self.answer("GET", path, page)

    def sent(self, method: str, path: str) -> list[Request]:
        return [each for each in self.requests if (each.method, each.path) == (method, path)]


def batch(batch_id: str = "b1", *, duplicates: int = 0, **counts: int) -> dict[str, Any]:
    """Give a batch resource."""
    return {
        "id": batch_id,
        "name": None,
        "state": "finished",
        "total": sum(counts.values()),
        "counts": {**NO_COUNTS, **counts},
        "duplicates": duplicates,
        "created_at": "2026-01-05T09:00:00Z",
    }


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            parts = urlsplit(self.path)
            body = self.read_body()
            request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), body)
            api.requests.append(request)
            status, value = self.answer(request)
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in api.headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def answer(self, request: Request) -> tuple[int, Any]:
            unknown = (404, {"code": "not_found", "detail": f"nothing at {request.path}"})
            prepared = api.answers.get((request.method, request.path))
            status, value = unknown if prepared is None else prepared(request)
            if prepared is not None and status >= BAD_REQUEST:
                return status, value  # the test has the API refuse what is wrong
            why = refusal(
                request.method,
                request.path,
                request.query,
                content_type=self.headers.get("Content-Type", ""),
                body=request.body,
            )
            if why is None and prepared is None and api.speaks_by_example:
                return 200, example(request.method, request.path)
            if why is None:
                return status, value
            api.refused.append(f"{request.method} {self.path}: {why}")
            return 422, {"code": "invalid_request", "detail": why}

        def read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline() or b"0", 16):  # nothing: it was broken off
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_POST = do_PATCH = do_DELETE = respond  # noqa: N815  the names are http.server's

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            # A connection that breaks off is part of many tests. Its traceback, printed by a
            # thread of its own, would stand in the middle of what the command says.
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    api = FakeApi(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert not api.refused, "the API takes no such request"
