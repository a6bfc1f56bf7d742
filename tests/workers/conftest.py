"""Fixtures for tests that work on jobs, in this process or in real worker processes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from videos import write_counting_video

from store.blobs import BlobStore
from store.database import Sessions
from tests.workers.library import add_video
from tests.workers.service import SAMPLES, Service, running_service
from workers.lifecycle import Workplace


@pytest.fixture
def media_folder(tmp_path: Path) -> Path:
    """A second allowed media root, for videos that a test writes."""
    folder = tmp_path / "media"
    folder.mkdir()
    return folder


@pytest.fixture
def service(
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
def workplace(service: Service) -> Iterator[Workplace]:
    workplace = service.workplace()
    yield workplace
    workplace.close()


@pytest.fixture
def long_video(service: Service, media_folder: Path) -> Callable[[], UUID]:
    """Make a video of 256 clips; gives the id of its embed job.

    With ONE_FRAME_PASSES the job takes a few seconds, so that a test can meet it half done.
    """

    def make() -> UUID:
        path = write_counting_video(media_folder / "long.mp4", 1030, fps=1, gop=100)
        return add_video(service, path)[1]

    return make
