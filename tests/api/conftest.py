"""The real app on real PostgreSQL, Redis and a folder of blobs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.main import create_app
from api.settings import ApiSettings
from store.api_keys import ApiKeyRepository
from store.blobs import BlobStore
from store.database import Sessions
from store.models import GenerationRepository, ModelRepository
from store.settings import StoreSettings
from store.tables import Task
from store.videos import NewClip, VideoRepository


@pytest.fixture
def media_root(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(
    database_url: str, redis_url: str, data_folder: Path, blobs: BlobStore, media_root: Path
) -> ApiSettings:
    return ApiSettings(
        store=StoreSettings(
            database_url=database_url,
            blob_url=(data_folder / "blobs").as_uri(),
            media_roots=(media_root,),
        ),
        redis_url=redis_url,
        max_upload_bytes=8 * 2**20,
    )


@pytest.fixture
def app(settings: ApiSettings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def api_key(sessions: Sessions) -> str:
    with sessions.begin() as session:
        return ApiKeyRepository(session).create("tests")


@pytest.fixture
def anonymous(app: FastAPI) -> Iterator[TestClient]:
    """Somebody without a key."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(app: FastAPI, api_key: str) -> Iterator[TestClient]:
    """Somebody with a key."""
    headers = {"Authorization": f"Bearer {api_key}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        yield client
