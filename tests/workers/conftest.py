"""Fixtures for tests that work on jobs, in this process or in real worker processes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from store.blobs import BlobStore
from store.database import Sessions
from tests.conftest import TEMPLATE, Services, new_database, passable_folder
from tests.workers.library import add_video, write_long_video
from tests.workers.service import SAMPLES, Service, running_service
from tests.workers.snapshots import Snapshot
from workers.child.context import WorkerContext


@pytest.fixture
def begins_at() -> Snapshot | None:
    """Where a test begins: with nothing indexed, unless its module says otherwise."""
    return None


@pytest.fixture
def database_url(services: Services, begins_at: Snapshot | None) -> Iterator[str]:
    template = TEMPLATE if begins_at is None else begins_at.database
    with new_database(services, template) as url:
        yield url


@pytest.fixture
def data_folder(begins_at: Snapshot | None) -> Iterator[Path]:
    with passable_folder() as folder:
        if begins_at is not None:
            begins_at.link_into(folder)
        yield folder


@pytest.fixture
def media_folder(tmp_path: Path, begins_at: Snapshot | None) -> Path:
    """A second allowed media root, for videos that a test writes."""
    if begins_at is not None:
        return begins_at.media_folder
    folder = tmp_path / "media"
    folder.mkdir()
    return folder


@pytest.fixture
def service(  # noqa: PLR0917  fixtures are given by name
    database_url: str,
    redis_url: str,
    blobs: BlobStore,
    data_folder: Path,
    sessions: Sessions,
    media_folder: Path,
) -> Iterator[Service]:
    with running_service(
        database_url=database_url,
        redis_url=redis_url,
        blobs=blobs,
        data_folder=data_folder,
        sessions=sessions,
        media_roots=(SAMPLES, media_folder),
    ) as service:
        yield service


@pytest.fixture
def context(service: Service) -> Iterator[WorkerContext]:
    context = service.context()
    yield context
    context.close()


@pytest.fixture
def long_video(service: Service, media_folder: Path) -> Callable[[], UUID]:
    """Add a long video; gives the id of its embed job."""

    def make() -> UUID:
        return add_video(service, write_long_video(media_folder))[1]

    return make
