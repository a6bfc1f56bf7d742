"""Counts and health."""

from http import HTTPStatus

from fastapi import APIRouter

from api.dependencies import ServicesDep
from api.errors import ApiError
from api.responses.problems import open_refusals, refusals
from api.schemas.system import (
    GenerationStats,
    Health,
    Readiness,
    Stats,
)
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind
from store.models.repository import GenerationRepository
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState
from workers.dispatch import QUEUES

router = APIRouter()


@router.get("/v1/stats", tags=["system"], response_model=Stats, responses=refusals())
def get_stats(services: ServicesDep) -> Stats:
    """Count videos, jobs and waiting messages."""
    with services.sessions() as session:
        jobs = JobRepository(session)
        videos = VideoRepository(session).counts()
        counts, due = jobs.counts(), jobs.due_counts()
        generation = _generation_stats(GenerationRepository(session))
    queues = {queue: services.doorbell.queue_length(queue) for queue in QUEUES}
    return Stats(
        videos={state: videos.get(state, 0) for state in VideoState},
        jobs={kind: counts.get(kind, {}) for kind in JobKind},
        due={kind: due.get(kind, 0) for kind in JobKind},
        queues=queues,
        generation=generation,
        waiting_requests=services.waiting_room.num_waiters,
    )


@router.get("/healthz", tags=["system"], response_model=Health, responses=open_refusals())
async def get_health() -> Health:
    """Whether the process answers. Needs no key."""
    return Health(status="ok")


@router.get(
    "/readyz", tags=["system"], response_model=Readiness, responses=open_refusals("not_ready")
)
async def get_readiness(services: ServicesDep) -> Readiness:
    """Whether requests can be served. Needs no key; costs nothing, however often it comes."""
    seen = await services.readiness.seen()
    if not seen.database:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", "The database does not answer.")
    if not seen.schema_current:
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "not_ready",
            "The database's schema is not the one of this version; run the migrations.",
        )
    return Readiness(
        status="ready" if seen.redis else "degraded",
        state="read_write" if services.disk.state.has_room else "read_only",
        database=True,
        schema_current=True,
        redis=seen.redis,
    )


def _generation_stats(generations: GenerationRepository) -> GenerationStats | None:
    generation = generations.active()
    if generation is None:
        return None
    coverage = generations.coverage(generation.id)
    return GenerationStats(
        id=generation.id,
        model_id=generation.model_id,
        recall_model_id=generation.recall_model_id,
        plan=generation.plan,
        num_videos=coverage.num_videos,
        num_indexed=coverage.num_indexed,
    )
