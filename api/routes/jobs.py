"""Jobs: what the service is doing, did, and will do."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.dependencies import PageDep, ServicesDep, WaitSeconds
from api.responses.answers import fresh_or_304, wait_for_job
from api.responses.event_lists import EVENTS_ANSWER, AfterSeq, LastEventId, answer_with_events
from api.responses.problems import refusals
from api.schemas.events import EventResource
from api.schemas.jobs import JobResource, job_resource
from api.schemas.resources import Page
from store.database import run_in_transaction
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from store.videos.batches import BatchRepository

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
    *,
    job_id: UUID,
    wait: WaitSeconds = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Get a job. With `wait`, the answer comes when the job is over or the time is."""
    await wait_for_job(services, request, job_id=job_id, wait_seconds=wait)
    resource = await run_in_threadpool(_read, services, job_id)
    return fresh_or_304(resource, if_none_match=if_none_match)


@router.get(
    "/{job_id}/events",
    response_model=Page[EventResource],
    responses={
        200: EVENTS_ANSWER,
        204: {"description": "text/event-stream: the job is over and the client knows all"},
        **refusals("job_not_found", "invalid_page_token", "invalid_request", "too_many_streams"),
    },
)
async def list_job_events(
    request: Request,
    services: ServicesDep,
    *,
    page: PageDep,
    job_id: UUID,
    after: AfterSeq = 0,
    last_event_id: LastEventId = None,
) -> Response:
    """List what happened to a job, the oldest first; or stream it, with Accept: text/event-stream.

    A stream has one server-sent event for each: its id is `seq`, its name the type, its data the
    event as in the list. It ends after the job's last one.
    """
    return await answer_with_events(
        services, request, job_id=job_id, page=page, after=after, last_event_id=last_event_id
    )


@router.post(
    "/{job_id}:cancel",
    response_model=JobResource,
    responses=refusals("job_not_found", "illegal_state"),
)
def cancel_job(services: ServicesDep, job_id: UUID) -> JobResource:
    """Cancel a job that waits at once, or ask the worker of a running one to stop."""
    job = run_in_transaction(
        services.sessions, lambda session: JobRepository(session).request_cancel(job_id)
    )
    return job_resource(job)


@router.post(
    "/{job_id}:pause",
    response_model=JobResource,
    responses=refusals("job_not_found", "illegal_state"),
)
def pause_job(services: ServicesDep, job_id: UUID) -> JobResource:
    """Pause a finetune: at once if it waits, else as soon as it has saved its work."""
    with services.sessions.begin() as session:
        return job_resource(JobRepository(session).request_pause(job_id))


@router.post(
    "/{job_id}:resume",
    response_model=JobResource,
    responses=refusals("job_not_found", "illegal_state"),
)
def resume_job(services: ServicesDep, job_id: UUID) -> JobResource:
    """Resume a paused finetune where it stopped."""
    with services.sessions.begin() as session:
        job = JobRepository(session).resume(job_id)
    services.doorbell.ring(job.kind, job.id)
    return job_resource(job)


@router.post(
    "/{job_id}:retry",
    response_model=JobResource,
    responses=refusals("job_not_found", "illegal_state"),
)
def retry_job(services: ServicesDep, job_id: UUID) -> JobResource:
    """Retry a job that failed, was cancelled or was quarantined."""

    def retry(session: Session) -> Job:
        job = JobRepository(session).retry(job_id)
        if job.batch_id is not None:
            BatchRepository(session).withdraw_cancel(job.batch_id)
        return job

    job = run_in_transaction(services.sessions, retry)
    services.doorbell.ring(job.kind, job.id)
    return job_resource(job)


def _read(services: ServicesDep, job_id: UUID) -> JobResource:
    with services.sessions() as session:
        return job_resource(JobRepository(session).get(job_id))
