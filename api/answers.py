"""Answers that several routes share: conditional, accepted, waited for."""

import hashlib
from http import HTTPStatus
from uuid import UUID

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api.dependencies import Services
from api.ranges import is_known
from store.job_state import is_terminal
from store.jobs import JobRepository


def fresh_or_304(resource: BaseModel, *, if_none_match: str | None) -> Response:
    """Answer with a resource and its ETag, or 304 when the client has just that."""
    content = resource.model_dump_json().encode()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if is_known(etag, if_none_match):
        return Response(status_code=int(HTTPStatus.NOT_MODIFIED), headers=headers)
    return Response(content, headers=headers, media_type="application/json")


def accepted(resource: BaseModel, *, location: str, done: bool = False) -> Response:
    """Answer 202, or 200 when there is nothing left to wait for; Location either way."""
    return Response(
        resource.model_dump_json().encode(),
        int(HTTPStatus.OK if done else HTTPStatus.ACCEPTED),
        {"Location": location},
        "application/json",
    )


async def wait_for_job(
    services: Services, request: Request, job_id: UUID, *, wait_seconds: float
) -> None:
    """Hold a request until a job is over, for as long as the client wants to wait.

    Raises:
        JobNotFound: there is no such job.
    """

    def is_over() -> bool:
        with services.sessions() as session:
            return is_terminal(JobRepository(session).get(job_id).state)

    await services.waiting_room.wait(request, is_over, wait_seconds=wait_seconds)
