"""One JSON line a request, and everything else that is logged as JSON too. No secrets."""

import importlib.metadata
import logging
import sys
import time
import uuid
from http import HTTPStatus
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_response

log = structlog.get_logger(__name__)

# Asked every few seconds by whoever watches over the process.
_UNLOGGED_PATHS: Final = frozenset({"/healthz", "/readyz"})
# In every answer, so that a client of another version can say so.
_VERSION: Final = importlib.metadata.version("clipbert-workers").encode()


def configure_logging(*, level: int = logging.INFO) -> None:
    """Send structlog's events and the standard library's records to stdout as JSON lines."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("event"),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error"):  # `uvicorn --factory` has set up its own by now
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.error").name = "uvicorn"  # its lines are not errors
    logging.getLogger("uvicorn.access").disabled = True  # ours says more
    logging.getLogger("alembic").setLevel(logging.WARNING)  # /readyz asks it every few seconds


class AccessLogMiddleware:
    """Gives requests ids and logs how they were answered: path only, never query or headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status, sent_bytes = 0, 0

        async def send_and_note(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                    (b"x-clipbert-version", _VERSION),
                ]
                message = {**message, "headers": headers}
            elif message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:  # the edge of the process: log it, tell nothing
            log.exception("request.failed", path=scope["path"], request_id=request_id)
            if status:
                raise  # too late for an answer: the connection breaks off
            response = problem_response(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "internal_error",
                f"Something went wrong here; the log has it under request_id {request_id}.",
            )
            await response(scope, receive, send_and_note)
        finally:
            if scope["path"] not in _UNLOGGED_PATHS:
                log.info(
                    "request.answered",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    seconds=round(time.perf_counter() - began, 4),
                    key=scope["state"].get("key_name"),
                    sent_bytes=sent_bytes,
                    request_id=request_id,
                )
