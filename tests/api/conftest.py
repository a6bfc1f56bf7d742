"""The real app on real PostgreSQL, Redis and a folder of blobs."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy
from fastapi import FastAPI
from sqlalchemy import delete
from starlette.testclient import TestClient

from api.main import create_app
from api.settings import ApiSettings
from store.api_keys import ApiKeyRepository
from store.blobs import BlobStore, open_blobs
from store.database import Sessions, make_sessions
from store.jobs.tables import Job
from store.labels.tables import Dataset, Vocabulary
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Generation, Model, Schedule, Serving
from store.settings import StoreSettings
from store.table_base import Task
from store.videos.records import NewClip
from store.videos.repository import VideoRepository
from store.videos.tables import Batch, Video

MakeVideo = Callable[..., UUID]
# Of rows that others point to; those go with them.
TABLES = (Job, Batch, Video, Schedule, Dataset, Vocabulary, Serving, Generation, Model)


# One database, app and client for all tests of the API; each test finds the tables empty.


@pytest.fixture(scope="session")
def api_database_url(services) -> Iterator[str]:
    url = sqlalchemy.make_url(services.database_url)
    services.execute(f"CREATE DATABASE api_tests TEMPLATE {url.database}")
    yield url.set(database="api_tests").render_as_string(hide_password=False)
    services.execute("DROP DATABASE api_tests WITH (FORCE)")


@pytest.fixture(scope="session")
def shared_sessions(api_database_url: str) -> Iterator[Sessions]:
    sessions = make_sessions(api_database_url)
    yield sessions
    sessions.kw["bind"].dispose()


@pytest.fixture
def sessions(shared_sessions: Sessions) -> Iterator[Sessions]:
    yield shared_sessions
    with shared_sessions.begin() as session:
        for table in TABLES:
            session.execute(delete(table))


@pytest.fixture(scope="session")
def media_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def blob_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blobs")


@pytest.fixture
def blobs(blob_folder: Path) -> BlobStore:
    return open_blobs(blob_folder.as_uri())


@pytest.fixture(scope="session")
def settings(api_database_url: str, services, blob_folder: Path, media_root: Path) -> ApiSettings:
    return ApiSettings(
        store=StoreSettings(
            database_url=api_database_url,
            blob_url=blob_folder.as_uri(),
            media_roots=(media_root,),
        ),
        redis_url=services.redis_url,
        max_upload_bytes=4 * 2**20,
    )


@pytest.fixture(scope="session")
def app(settings: ApiSettings) -> FastAPI:
    return create_app(settings)


@pytest.fixture(scope="session")
def api_key(shared_sessions: Sessions) -> str:
    with shared_sessions.begin() as session:
        return ApiKeyRepository(session).create("tests")


@pytest.fixture(scope="session")
def shared_client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def anonymous(shared_client: TestClient, sessions: Sessions) -> TestClient:
    """Somebody without a key."""
    shared_client.headers.pop("Authorization", None)
    return shared_client


@pytest.fixture
def client(shared_client: TestClient, sessions: Sessions, api_key: str) -> TestClient:
    """Somebody with a key."""
    shared_client.headers["Authorization"] = f"Bearer {api_key}"
    return shared_client


@pytest.fixture
def generation_id(sessions: Sessions) -> UUID:
    """An active generation of a model that recalls and chooses, as the default one does."""
    with sessions.begin() as session:
        models = ModelRepository(session)
        model = models.register(
            name="clipbert-mini",
            version="1",
            heads=[],
            tasks=[Task.RECALL, Task.MULTIPLE_CHOICE, Task.QA],
            folder_key="models/mini",
            sha256="0" * 64,
            visual_sha256="1" * 64,
            config={"hidden_size": 4},
        )
        models.promote(model.id, [Task.RECALL, Task.MULTIPLE_CHOICE])
        generations = GenerationRepository(session)
        generation = generations.create(
            model_id=model.id, recall_model_id=model.id, plan={"name": "segments"}
        )
        generations.ensure_index(generation.id, 4)
        generations.activate(generation.id)
        return generation.id


@pytest.fixture
def make_video(sessions: Sessions, blobs: BlobStore) -> MakeVideo:
    """Make what the workers make of a file: a row, a poster, clips if there is a generation."""

    def make(
        content: bytes = b"a video, more or less",
        *,
        uri: str | None = None,
        filename: str = "parrot.mp4",
        ready: bool = True,
        generation_id: UUID | None = None,
        **values: Any,
    ) -> UUID:
        sha256 = hashlib.sha256(content).hexdigest()
        key = None
        if uri is None:
            key = f"media/{sha256[:2]}/{sha256}"
            blobs.put_bytes(key, content)
        blobs.put_bytes(f"thumbnails/{sha256}/poster.jpg", b"\xff\xd8 poster of " + content)
        with sessions.begin() as session:
            videos = VideoRepository(session)
            video, _ = videos.create(
                uri=uri or f"upload:///{filename}",
                sha256=sha256,
                blob_key=key,
                filename=filename,
                size_bytes=len(content),
                container="mov,mp4,m4a,3gp,3g2,mj2",
                **values,
            )
            if ready:
                videos.mark_ready(video.id)
            if generation_id is not None:
                clip = NewClip(0, 0.0, 2.0, [1.0], [1.0, 0.0, 0.0, 0.0], "tokens/x.safetensors")
                videos.replace_clips(video.id, generation_id, clips=[clip])
            return video.id

    return make
