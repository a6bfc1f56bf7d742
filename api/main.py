"""The API's entry point: settings -> services -> app. Never loads torch."""

import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
from fastapi import Depends, FastAPI
from starlette.types import Lifespan

from api.content_types import refuse_what_is_not_json
from api.dependencies import Services
from api.document import install_openapi
from api.errors import install_error_handlers
from api.middleware.access_log import AccessLogMiddleware
from api.middleware.authentication import AuthenticationMiddleware, KeyVerifier
from api.middleware.body_limit import BodyLimitMiddleware
from api.middleware.methods import HeadMiddleware
from api.middleware.read_only import ReadOnlyMiddleware
from api.routes import (
    batches,
    datasets,
    finetunes,
    jobs,
    labels,
    models,
    questions,
    schedules,
    searches,
    suggestions,
    system,
    videos,
)
from api.services.media_roots import MediaRoots
from api.services.readiness import ReadinessWatch
from api.services.waiting import WaitingRoom
from api.settings import ApiSettings
from api.unknown_parameters import refuse_unknown_parameters
from store.blobs import open_blobs
from store.database import make_sessions
from store.disk_space import watch_disks
from workers.dispatch import Doorbell

_MAX_JSON_BYTES = 2**20  # of every body but uploads and batches
_BATCH_THREADS = 2
_UPLOAD_THREADS = 4
_TRANSFER_THREADS = 8  # to a remote blob store; others wait, as their clients do
_LABEL_THREADS = 1  # the database lets one import of labels work at a time anyway
_SPARE_CONNECTIONS = 8  # for batches and for requests that wait for a job


def create_app(settings: ApiSettings) -> FastAPI:
    """Make the app.

    Args:
        settings: where the services are; nothing is connected to before the first request.
    """
    blobs = open_blobs(settings.store.blob_url)
    sessions = make_sessions(
        settings.store.database_url,
        pool_size=settings.num_threads // 2,
        max_overflow=settings.num_threads - settings.num_threads // 2 + _SPARE_CONNECTIONS,
    )
    spool_folder = settings.spool_folder or blobs.staging_folder()
    disk = watch_disks(settings.store, spool_folder)
    doorbell = Doorbell(settings.redis_url)
    readiness = ReadinessWatch(settings.store.database_url, doorbell, disk=disk)
    services = Services(
        settings=settings,
        sessions=sessions,
        blobs=blobs,
        doorbell=doorbell,
        media_roots=MediaRoots(settings.store.media_roots),
        waiting_room=WaitingRoom(max_waiters=settings.max_waiters),
        spool_folder=spool_folder,
        disk=disk,
        readiness=readiness,
        batch_threads=anyio.CapacityLimiter(_BATCH_THREADS),
        upload_threads=anyio.CapacityLimiter(_UPLOAD_THREADS),
        transfer_threads=anyio.CapacityLimiter(_TRANSFER_THREADS),
        label_threads=anyio.CapacityLimiter(_LABEL_THREADS),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = settings.num_threads
        readiness.start()
        yield
        services.waiting_room.close()
        readiness.close()
        services.doorbell.close()
        sessions.kw["bind"].dispose()

    app = describe_app(lifespan)
    app.state.services = services
    verifier = KeyVerifier(sessions, remember=settings.key_cache)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(BodyLimitMiddleware, max_bytes=_MAX_JSON_BYTES)
    app.add_middleware(ReadOnlyMiddleware, disk=disk)
    app.add_middleware(AuthenticationMiddleware, verifier=verifier)
    app.add_middleware(AccessLogMiddleware)
    return app


def describe_app(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """Make the app without services: enough for its OpenAPI document."""
    app = FastAPI(
        title="ClipBERT workers",
        summary="Index videos in bulk, search them by text down to the moment, ask about them.",
        version=importlib.metadata.version("clipbert-workers"),
        lifespan=lifespan,
        dependencies=[Depends(refuse_unknown_parameters), Depends(refuse_what_is_not_json)],
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    routers = (
        *(videos, batches, jobs, searches, questions),
        *(suggestions, labels, datasets),  # suggestions first: "suggestions" is not a label's id
        *(finetunes, models, schedules, system),
    )
    for routes in routers:
        app.include_router(routes.router)
    install_error_handlers(app)
    install_openapi(app)
    return app
