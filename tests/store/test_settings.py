from pathlib import Path

import pytest
from pydantic import ValidationError

from store.settings import StoreSettings


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("STORE_DATABASE_URL", "postgresql+psycopg://u:p@h/d")
    monkeypatch.setenv("STORE_BLOB_URL", "s3://bucket/prefix")
    monkeypatch.setenv("STORE_MEDIA_ROOTS", "/videos:/mnt/more videos")

    settings = StoreSettings()

    assert settings.database_url == "postgresql+psycopg://u:p@h/d"
    assert settings.media_roots == (Path("/videos"), Path("/mnt/more videos"))


def test_a_relative_media_root_is_refused(monkeypatch):
    monkeypatch.setenv("STORE_MEDIA_ROOTS", "videos")

    with pytest.raises(ValidationError, match="not an absolute path"):
        StoreSettings(database_url="x", blob_url="y")
