"""Where and within which limits the API runs: the API_* variables, and the services' own."""

from datetime import timedelta
from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from store.settings import StoreSettings

_MIB = 2**20
_GIB = 2**30


class ApiSettings(BaseSettings):
    """The API's place and limits, as deployed.

    Attributes:
        store: the database, the blobs and the media roots (STORE_*).
        redis_url: where the workers' queues are (WORKER_REDIS_URL).
        host: address to listen on.
        port: TCP port to listen on.
        listen_fd: a listening socket that whoever started this process hands over; several
            processes may share one, and a new one takes over what an old one leaves.
        head_seconds: within which the head of a request must have come.
        body_seconds: within which some more of a body must have come; a slow one that moves is
            waited for.
        idle_seconds: after which a connection without a request is closed.
        max_connections: open at once; when there are as many, those without a request and then
            the slowest give way.
        num_threads: requests that may be in the store at once; each needs a connection.
        max_waiters: requests with ?wait= that may wait at once; more are answered as with wait=0.
        key_cache: for how long a checked API key is believed without asking the database.
        max_upload_bytes: largest video that can be uploaded.
        max_batch_bytes: largest body of POST /v1/batches.
        max_batch_items: most items of one batch.
        spool_folder: where uploads and large bodies wait on disk; None: beside the blobs when
            these are a folder here, so that a finished upload is renamed and not copied, else
            the system's temporary folder.
    """

    model_config = SettingsConfigDict(
        env_prefix="API_", frozen=True, populate_by_name=True, extra="ignore"
    )

    store: StoreSettings = Field(default_factory=StoreSettings)
    redis_url: str = Field(validation_alias=AliasChoices("redis_url", "WORKER_REDIS_URL"))
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    listen_fd: int | None = Field(default=None, ge=3)
    head_seconds: float = Field(default=15.0, gt=0)
    body_seconds: float = Field(default=30.0, gt=0)
    idle_seconds: int = Field(default=75, ge=1)
    max_connections: int = Field(default=1000, ge=1)
    num_threads: int = Field(default=24, ge=2)
    max_waiters: int = Field(default=200, ge=0)
    key_cache: timedelta = timedelta(seconds=5)
    max_upload_bytes: int = Field(default=16 * _GIB, ge=1)
    max_batch_bytes: int = Field(default=256 * _MIB, ge=1)
    max_batch_items: int = Field(default=100_000, ge=1)
    spool_folder: Path | None = None
