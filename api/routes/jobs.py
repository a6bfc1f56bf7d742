"""Jobs: what the service is doing, did, and will do."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from api.answers import fresh_or_304, wait_for_job
from api.dependencies import PageDep, ServicesDep, WaitSeconds
from api.problems import refusals
from api.schemas.jobs import JobResource, job_resource
from api.schemas.resources import Page
from store.job_state import JobKind, JobState
from store.jobs import JobRepository

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get(
    "",
    response_model=Page[JobResource],
    responses=refusals("invalid_page_token", "invalid_request"),
)
def list_jobs(
    services: ServicesDep,
    page: PageDep,
    *,
    kind: JobKind | None = None,
    state: JobState | None = None,
    batch_id: UUID | None = None,
    video_id: UUID | None = None,
) -> Page[JobResource]:
    """List jobs, the newest first."""
    with services.sessions() as session:
        found = JobRepository(session).list(
            page_size=page.page_size,
            page_token=page.page_token,
            kind=kind,
            state=state,
            batch_id=batch_id,
            video_id=video_id,
        )
    return Page(
        items=[job_resource(job) for job in found.items], next_page_token=found.next_page_token
    )


@router.get(
    "/{job_id}",
    response_model=JobResource,
    responses={
        304: {"description": "nothing changed since the ETag of If-None-Match"},
        **refusals("job_not_found", "invalid_request"),
    },
)
async def get_job(
    request: Request,
    services: ServicesDep,
    job_id: UUID,
    wait: WaitSeconds = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Get a job. With `wait`, the answer comes when the job is over or the time is."""
    await wait_for_job(services, request, job_id, wait_seconds=wait)
    resource = await run_in_threadpool(_read, services, job_id)
    return fresh_or_304(resource, if_none_match=if_none_match)


@router.post(
    "/{job_id}:cancel",
    response_model=JobResource,
    responses=refusals("job_not_found", "illegal_state"),
)
def cancel_job(services: ServicesDep, job_id: UUID) -> JobResource:
    """Cancel a job that waits at once, or ask the worker of a running one to stop."""
    with services.sessions.begin() as session:
        return job_resource(JobRepository(session).request_cancel(job_id))


@router.post(
    "/{job_id}:retry",
    response_model=JobResource,
    responses=refusals("job_not_found", "illegal_state"),
)
def retry_job(services: ServicesDep, job_id: UUID) -> JobResource:
    """Send a job round again that failed, was cancelled or quarantined."""
    with services.sessions.begin() as session:
        job = JobRepository(session).retry(job_id)
    services.doorbell.ring(job.kind, job.id)
    return job_resource(job)


def _read(services: ServicesDep, job_id: UUID) -> JobResource:
    with services.sessions() as session:
        return job_resource(JobRepository(session).get(job_id))
