"""What routes are given: the services of the process, and parameters that several share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import anyio
from fastapi import Depends, Header, Query, Request

from api.services.media_roots import MediaRoots
from api.services.readiness import ReadinessWatch
from api.services.waiting import MAX_WAIT_SECONDS, WaitingRoom
from api.settings import ApiSettings
from store.blobs import BlobStore
from store.database import Sessions
from store.disk_space import DiskWatch
from workers.dispatch import Doorbell


@dataclass(frozen=True)
class Services:
    """Made once by create_app, used by every request."""

    settings: ApiSettings
    sessions: Sessions
    blobs: BlobStore
    doorbell: Doorbell
    media_roots: MediaRoots
    waiting_room: WaitingRoom
    spool_folder: Path
    disk: DiskWatch
    readiness: ReadinessWatch
    batch_threads: anyio.CapacityLimiter
    upload_threads: anyio.CapacityLimiter
    """Write uploads to the disk of this machine."""
    transfer_threads: anyio.CapacityLimiter
    """Bring them to the blob store."""
    label_threads: anyio.CapacityLimiter


@dataclass(frozen=True)
class PageQuery:
    """Which part of a list is asked for."""

    page_size: int
    page_token: str | None


async def _services(request: Request) -> Services:
    return cast("Services", request.app.state.services)


async def _key_name(request: Request) -> str | None:
    name = request.scope.get("state", {}).get("key_name")
    return name if isinstance(name, str) else None


async def _page_query(
    page_size: Annotated[
        int, Query(ge=1, description="at most this many; more than 500 counts as 500")
    ] = 50,
    page_token: Annotated[
        str | None, Query(max_length=200, description="next_page_token of the previous page")
    ] = None,
) -> PageQuery:
    return PageQuery(page_size=page_size, page_token=page_token)


ServicesDep = Annotated[Services, Depends(_services)]
KeyName = Annotated[str | None, Depends(_key_name)]
"""Name of the API key that the request came with, for histories."""
PageDep = Annotated[PageQuery, Depends(_page_query)]
WaitSeconds = Annotated[
    float,
    Query(
        alias="wait",
        ge=0,
        le=MAX_WAIT_SECONDS,
        allow_inf_nan=False,
        description="seconds to wait for the end of the job before answering",
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="the same key with the same request gives the same job; "
        "with another request, 422 idempotency_conflict",
    ),
]
