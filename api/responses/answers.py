"""Answers that several routes share: conditional, accepted, waited for."""

import hashlib
from http import HTTPStatus
from uuid import UUID

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api.dependencies import Services
from api.errors import ApiError
from api.responses.ranges import is_known
from store.jobs.repository import JobRepository
from store.jobs.state import is_terminal


def fresh_or_304(resource: BaseModel, *, if_none_match: str | None) -> Response:
    """Answer with a resource and its ETag, or 304 when the client has just that."""
    content = resource.model_dump_json().encode()
    etag = _etag_of(content)
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if is_known(etag, if_none_match):
        return Response(status_code=int(HTTPStatus.NOT_MODIFIED), headers=headers)
    return Response(content, headers=headers, media_type="application/json")


def fresh(
    resource: BaseModel, *, status: HTTPStatus = HTTPStatus.OK, location: str = ""
) -> Response:
    """Answer with a resource and its ETag, as after a change."""
    content = resource.model_dump_json().encode()
    headers = {"ETag": _etag_of(content), "Cache-Control": "private, no-cache"}
    if location:
        headers["Location"] = location
    return Response(content, int(status), headers, "application/json")


def require_match(resource: BaseModel, if_match: str | None) -> None:
    """Refuse to change a resource that is not the one the client has seen.

    Raises:
        ApiError: 412 precondition_failed.
    """
    if if_match is None or if_match.strip() == "*":
        return
    # A strong comparison: what begins with W/ never fits.
    if _etag_of(resource.model_dump_json().encode()) not in map(str.strip, if_match.split(",")):
        raise ApiError(
            HTTPStatus.PRECONDITION_FAILED,
            "precondition_failed",
            "It was changed meanwhile: read it again, and send the ETag that comes with it.",
        )


def accepted(resource: BaseModel, *, location: str, done: bool = False) -> Response:
    """Answer 202, or 200 when there is nothing left to wait for; Location either way."""
    return Response(
        resource.model_dump_json().encode(),
        int(HTTPStatus.OK if done else HTTPStatus.ACCEPTED),
        {"Location": location},
        "application/json",
    )


async def wait_for_job(
    services: Services, request: Request, *, job_id: UUID, wait_seconds: float
) -> None:
    """Hold a request until a job is over, for as long as the client wants to wait.

    Raises:
        JobNotFound: there is no such job.
    """

    def is_over() -> bool:
        with services.sessions() as session:
            return is_terminal(JobRepository(session).get(job_id).state)

    await services.waiting_room.wait(request, is_over, wait_seconds=wait_seconds)


def _etag_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
