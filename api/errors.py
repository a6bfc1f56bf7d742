"""What the API answers when it refuses or fails: problem+json (RFC 9457), from one table.

ApiError                 refused by the API itself; carries its status and code
store.errors.StoreError  answered by the table _STORE_ERRORS
anything else            500 internal_error, by the AccessLogMiddleware, with no internals
"""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api.allowed_methods import allowed_methods
from policy.field_errors import field_errors
from store.disk_space import is_storage_full
from store.errors import (
    BlobNotFound,
    IdempotencyConflict,
    IllegalLabel,
    IllegalMove,
    IllegalRollback,
    InvalidPageToken,
    ModelNeeded,
    NotFound,
    ScheduleExists,
    StoreError,
)

log = structlog.get_logger(__name__)

PROBLEM_TYPE: Final = "application/problem+json"
MAX_LISTED_ERRORS: Final = 20

# The first class of the list that an error is an instance of decides. A NotFound is answered 404
# with a code made from its kind: video_not_found, job_not_found, dataset_not_found... An
# IllegalLabel brings its own.
_STORE_ERRORS: Final[tuple[tuple[type[StoreError], HTTPStatus, str], ...]] = (
    (NotFound, HTTPStatus.NOT_FOUND, "not_found"),
    (IllegalMove, HTTPStatus.CONFLICT, "illegal_state"),
    (IllegalRollback, HTTPStatus.CONFLICT, "illegal_rollback"),
    (ModelNeeded, HTTPStatus.CONFLICT, "model_needed"),
    (ScheduleExists, HTTPStatus.CONFLICT, "schedule_exists"),
    (IllegalLabel, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_label"),
    (IdempotencyConflict, HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency_conflict"),
    (InvalidPageToken, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_page_token"),
    (BlobNotFound, HTTPStatus.NOT_FOUND, "media_not_found"),
)

_CODE_OF_STATUS: Final = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "payload_too_large",
    HTTPStatus.INSUFFICIENT_STORAGE: "storage_full",
}


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: the HTTP status.
        code: the stable name of what is wrong, for programs.
        detail: a sentence about this case, for people.
        errors: what is wrong where, one dict an error.
        headers: to be sent with the answer.
        facts: what the sentence speaks of, for programs: further members of the problem.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.headers, self.facts = errors, headers, facts


def problem_response(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[Mapping[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Response:
    body: dict[str, Any] = {
        **(facts or {}),
        "type": f"urn:clipbert:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if errors is not None:
        body["errors"] = list(errors)
    # Input echoed in a sentence may hold lone surrogates; ASCII escapes carry those too.
    content = json.dumps(body).encode("ascii")
    return Response(content, int(status), dict(headers or {}), PROBLEM_TYPE)


def install_error_handlers(app: FastAPI) -> None:
    """Make every refusal and failure of the app a problem+json answer."""
    # Starlette's types want handlers of any Exception, though it calls each with its own.
    app.add_exception_handler(ApiError, _answer_api_error)  # type: ignore[arg-type]
    app.add_exception_handler(StoreError, _answer_store_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _answer_http_error)  # type: ignore[arg-type]
    app.add_exception_handler(OperationalError, _answer_store_unavailable)
    app.add_exception_handler(InterfaceError, _answer_store_unavailable)
    app.add_exception_handler(PoolTimeout, _answer_store_unavailable)
    app.add_exception_handler(ClientDisconnect, _answer_gone_client)
    app.add_exception_handler(OSError, _answer_os_error)


async def _answer_api_error(request: Request, error: ApiError) -> Response:
    return problem_response(
        error.status,
        error.code,
        error.detail,
        errors=error.errors,
        headers=error.headers,
        facts=error.facts,
    )


async def _answer_store_error(request: Request, error: StoreError) -> Response:
    for error_class, status, code in _STORE_ERRORS:
        if isinstance(error, error_class):
            if isinstance(error, NotFound):
                code = f"{error.kind.replace(' ', '')}_not_found"  # noqa: PLW2901  the family's
            elif isinstance(error, IllegalLabel):
                code = error.code  # noqa: PLW2901
            return problem_response(status, code, str(error))
    raise error  # not one that a request can cause


async def _answer_invalid_request(request: Request, error: RequestValidationError) -> Response:
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        reason = found[0].get("ctx", {}).get("error", "not JSON")
        return problem_response(
            HTTPStatus.BAD_REQUEST, "malformed_json", f"The body is not valid JSON: {reason}."
        )
    for each in found:
        where = [str(part) for part in each["loc"]]
        if where[0] == "path":
            # An id that is not a UUID names nothing, as an unknown id does.
            kind = where[-1].removesuffix("_id")
            return problem_response(
                HTTPStatus.NOT_FOUND, f"{kind}_not_found", f"There is no such {kind}."
            )
    wrong = field_errors(found)
    return problem_response(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid_request",
        str(wrong[0]),
        errors=[
            {"field": each.field, "message": each.message} for each in wrong[:MAX_LISTED_ERRORS]
        ],
    )


async def _answer_http_error(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    code = _CODE_OF_STATUS.get(status, status.phrase.lower().replace(" ", "_"))
    detail, headers = error.detail, error.headers
    if status == HTTPStatus.NOT_FOUND:
        detail = f"There is nothing at {request.url.path}."
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = allowed_methods(request.app, request.url.path)
        if methods:
            headers = {**(headers or {}), "Allow": ", ".join(methods)}
        detail = f"{request.method} is not possible at {request.url.path}"
        detail += f"; possible: {', '.join(methods)}." if methods else "."
    elif status == HTTPStatus.BAD_REQUEST and "parsing the body" in str(detail):
        code = "malformed_json"  # what FastAPI raises for a body that is not even UTF-8
        detail = "The body is not valid JSON."
    return problem_response(status, code, detail, headers=headers)


async def _answer_store_unavailable(request: Request, error: Exception) -> Response:
    if is_storage_full(error):
        return _storage_full(request, error)
    log.error("store.unavailable", path=request.url.path, error=type(error).__name__)
    return problem_response(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "store_unavailable",
        "The database does not answer; try again in a few seconds.",
        headers={"Retry-After": "5"},
    )


async def _answer_os_error(request: Request, error: Exception) -> Response:
    if is_storage_full(error):
        return _storage_full(request, error)
    raise error  # a fault of ours, or of the machine


def _storage_full(request: Request, error: Exception) -> Response:
    log.error("storage.full", path=request.url.path, error=type(error).__name__)
    request.app.state.services.disk.note_full()
    return problem_response(
        HTTPStatus.INSUFFICIENT_STORAGE,
        "storage_full",
        "A write found no room on the service's disk; nothing was kept. It goes on by itself when "
        "there is room.",
        headers={"Retry-After": "30"},
    )


async def _answer_gone_client(request: Request, error: Exception) -> Response:
    # Nobody reads this; it keeps an upload that was broken off from being logged as a failure.
    return problem_response(HTTPStatus.BAD_REQUEST, "client_disconnected", "The client went away.")
