"""Where the store is: the STORE_* variables of the environment."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class StoreSettings(BaseSettings):
    """The store's place, as deployed.

    Attributes:
        database_url: SQLAlchemy URL, `postgresql+psycopg://user:password@host/name`.
        blob_url: where blobs live, `file:///absolute/folder` or `s3://bucket/prefix`.
        media_roots: folders whose files may be indexed by path; in the environment they are
            absolute and parted by the system's path separator, `/videos:/mnt/archive`.
        min_free_bytes: below so much free space on a disk that the service writes to, nothing new
            is taken in; 0 turns this off.
        min_free_percent: or below this part of the disk if that is less, but at least 64 MiB.
        watched_folders: further folders whose disks need room, such as an embedded PostgreSQL's;
            in the environment as media_roots are.
    """

    model_config = SettingsConfigDict(env_prefix="STORE_", frozen=True)

    database_url: str
    blob_url: str
    media_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    min_free_bytes: int = Field(default=2**30, ge=0)
    min_free_percent: float = Field(default=10.0, ge=0, le=100)
    watched_folders: Annotated[tuple[Path, ...], NoDecode] = ()

    @field_validator("media_roots", "watched_folders", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part) for part in value.split(os.pathsep) if part)
        return value

    @field_validator("media_roots")
    @classmethod
    def _roots_are_absolute(cls, roots: tuple[Path, ...]) -> tuple[Path, ...]:
        for root in roots:
            if not root.is_absolute():
                raise ValueError(f"media root {root} is not an absolute path")
        return roots
