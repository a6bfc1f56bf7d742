"""What one child process works with: its connections, its leases, and what else it has one of."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TypeVar, cast, runtime_checkable
from urllib.parse import unquote, urlsplit

from store.blobs import BlobStore, open_blobs
from store.database import Sessions, make_sessions
from store.disk_space import DiskWatch, watch_disks
from store.settings import StoreSettings
from workers.dispatch import Doorbell
from workers.jobs.lease import LeaseKeeper
from workers.settings import WorkerSettings

Part = TypeVar("Part")


@runtime_checkable
class _Closable(Protocol):
    def close(self) -> None: ...


@dataclass
class WorkerContext:
    """What one process works with. Made in the child; never crosses a fork."""

    settings: WorkerSettings
    media_roots: tuple[Path, ...]
    sessions: Sessions
    blobs: BlobStore
    doorbell: Doorbell
    leases: LeaseKeeper
    disk: DiskWatch
    is_stopping: Callable[[], bool]
    run_folder: Path
    """Where finetunes keep what they go on from."""
    mirrors_runs: bool
    """Whether other workers find it in the blobs only."""
    _parts: dict[object, object] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(
        cls,
        settings: WorkerSettings,
        store: StoreSettings,
        *,
        owner: str,
        is_stopping: Callable[[], bool] = lambda: False,
        is_idle: Callable[[], bool] = lambda: False,
    ) -> "WorkerContext":
        """Connect to the store and begin to keep leases."""
        sessions = make_sessions(store.database_url)
        blobs = open_blobs(store.blob_url)
        run_folder = settings.run_folder or _default_run_folder(store.blob_url)
        disk = watch_disks(store, blobs.staging_folder(), run_folder)
        return cls(
            settings=settings,
            media_roots=store.media_roots,
            sessions=sessions,
            blobs=blobs,
            doorbell=Doorbell(settings.redis_url),
            leases=LeaseKeeper(
                sessions,
                owner=owner,
                lease=timedelta(seconds=settings.lease_seconds),
                heartbeat_seconds=settings.heartbeat_seconds,
                stall_seconds=settings.stall_seconds,
                is_stopping=is_stopping,
                is_idle=is_idle,
                has_room=lambda: disk.check().has_room,
            ),
            disk=disk,
            is_stopping=is_stopping,
            run_folder=run_folder,
            mirrors_runs=settings.run_folder is None and _blob_folder(store.blob_url) is None,
        )

    def own(self, kind: Callable[["WorkerContext"], Part]) -> Part:
        """Return what this process has one of, made on the first call.

        What is worked with in a process, such as the models in memory, is declared where it is
        worked with, and this module knows none of it: so the parent loads none of it either.

        Args:
            kind: its class, made from a context. One with `close()` is closed with it.
        """
        if kind not in self._parts:
            self._parts[kind] = kind(self)
        return cast("Part", self._parts[kind])

    def close(self) -> None:
        """Hand back what is held, stop the heartbeats and close the connections."""
        self.leases.hand_back()
        for part in self._parts.values():
            if isinstance(part, _Closable):
                part.close()
        self.leases.close()
        self.doorbell.close()
        self.sessions.kw["bind"].dispose()


def _default_run_folder(blob_url: str) -> Path:
    # No key of a blob begins with this word, so that the one never meets the other.
    beside_blobs = _blob_folder(blob_url)
    return (beside_blobs or Path(tempfile.gettempdir()) / "clipbert") / "runs"


def _blob_folder(blob_url: str) -> Path | None:
    parts = urlsplit(blob_url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None
