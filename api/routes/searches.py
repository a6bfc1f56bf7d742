"""Searches: a text in, moments out. Each is a job, and stays to be looked at again."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.dependencies import IdempotencyKey, PageDep, Services, ServicesDep, WaitSeconds
from api.middleware.authentication import key_id_of
from api.responses.answers import accepted, fresh_or_304, wait_for_job
from api.responses.preconditions import require_generation
from api.responses.problems import refusals
from api.schemas.resources import Page
from api.schemas.searches import NewSearch, SearchResource, found_video_ids, search_resource
from store.errors import SearchNotFound
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.results.searches import SearchRepository
from store.videos.repository import VideoRepository

router = APIRouter(prefix="/v1/searches", tags=["searches"])


@router.post(
    "",
    status_code=202,
    response_model=SearchResource,
    responses={
        200: {"model": SearchResource, "description": "Done within `wait`"},
        202: {"description": "Not done yet; ask again at Location"},
        **refusals(
            "malformed_json", "no_active_generation", "invalid_request", "idempotency_conflict"
        ),
    },
)
async def create_search(
    request: Request,
    services: ServicesDep,
    *,
    new: NewSearch,
    wait: WaitSeconds = 0,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Search the library by text. With `wait`, the answer has the hits if they come in time."""
    search_id = await run_in_threadpool(
        _enqueue, services, new, idempotency_key, key_id_of(request)
    )
    await wait_for_job(services, request, job_id=search_id, wait_seconds=wait)
    resource = await run_in_threadpool(_read, services, search_id)
    return accepted(resource, location=f"/v1/searches/{search_id}", done=resource.done)


@router.get(
    "",
    response_model=Page[SearchResource],
    responses=refusals("invalid_page_token", "invalid_request"),
)
def list_searches(services: ServicesDep, page: PageDep) -> Page[SearchResource]:
    """List searches with what they found, the newest first."""
    with services.sessions() as session:
        found = SearchRepository(session).list(page_size=page.page_size, page_token=page.page_token)
        ids = found_video_ids(search for search, _ in found.items)
        videos = VideoRepository(session).get_many(ids)
    return Page(
        items=[search_resource(search, job, videos=videos) for search, job in found.items],
        next_page_token=found.next_page_token,
    )


@router.get(
    "/{search_id}",
    response_model=SearchResource,
    responses=refusals("search_not_found", "invalid_request"),
)
async def get_search(
    request: Request, services: ServicesDep, *, search_id: UUID, wait: WaitSeconds = 0
) -> Response:
    """Get a search with what it found. With `wait`, the answer comes when it is done."""
    resource = await run_in_threadpool(_read, services, search_id)
    if not resource.done and wait > 0:
        await wait_for_job(services, request, job_id=search_id, wait_seconds=wait)
        resource = await run_in_threadpool(_read, services, search_id)
    return fresh_or_304(resource, if_none_match=request.headers.get("if-none-match"))


def _enqueue(
    services: Services, new: NewSearch, idempotency_key: str | None, key_id: UUID | None
) -> UUID:
    asked: dict[str, Any] = new.model_dump(mode="json")
    with services.sessions.begin() as session:
        require_generation(session)
        job = JobRepository(session).enqueue(
            NewJob(
                kind=JobKind.SEARCH,
                input=asked,
                idempotency_key=idempotency_key,
                api_key_id=key_id,
            )
        )
        searches = SearchRepository(session)
        try:
            searches.get(job.id)
        except SearchNotFound:
            searches.create(job, text=new.text)
    services.doorbell.ring(job.kind, job.id)
    return job.id


def _read(services: Services, search_id: UUID) -> SearchResource:
    with services.sessions() as session:
        search, job = SearchRepository(session).get(search_id)
        videos = VideoRepository(session).get_many(found_video_ids([search]))
        return search_resource(search, job, videos=videos)
