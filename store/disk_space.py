"""Whether the disks that the service writes to have room, and which errors say that they have none.

Below a watermark nothing new is taken in, so that PostgreSQL, which ends itself when it cannot
write its log, keeps what it needs. It is taken in again once there is a quarter more than that:
a disk at the watermark would otherwise switch with each file.
"""

import errno
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from store.settings import StoreSettings

_LEAST_PERCENTAGE_BYTES: Final = 64 * 2**20  # a percentage of a small disk is not below this
_RESUME_FACTOR: Final = 1.25
_LEAST_INODES: Final = 1000
_INODES_SHARE: Final = 0.01
_NOTED_SECONDS: Final = 10.0
_FULL_ERRNOS: Final = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL_SQLSTATE: Final = "53100"
# Of errors that have neither number nor state: torch's, safetensors', those of Redis that cannot
# write its log.
_TEXT_ONLY_ERRORS: Final = frozenset({"SafetensorError", "ResponseError"})
_FULL_TEXTS: Final = (
    "no space left on device",
    "disk quota exceeded",
    "misconf ",
    "kind: storagefull",
)


@dataclass(frozen=True)
class DiskState:
    """What a check found.

    Attributes:
        has_room: whether new things may be taken in.
        free_bytes: on the fullest of the disks, above its watermark or below; None if unknown.
        spare_bytes: how much can be taken in before the watermark is reached; None if unknown.
        reason: why there is no room, as a sentence's beginning; None if there is.
    """

    has_room: bool
    free_bytes: int | None
    spare_bytes: int | None
    reason: str | None = None


class DiskWatch:
    """Measures the disks of some folders; safe to use from several threads.

    Args:
        folders: one that does not exist counts as the folder it would lie in.
        min_free_bytes: below so much free space there is no room; 0: only errors tell.
        min_free_percent: or below this part of a disk, if that is less, but at least 64 MiB.
    """

    def __init__(
        self, folders: Sequence[Path], *, min_free_bytes: int, min_free_percent: float
    ) -> None:
        self._folders = tuple(dict.fromkeys(folders))
        self._min_free_bytes, self._min_free_percent = min_free_bytes, min_free_percent
        self._lock = threading.Lock()
        self._noted_until = 0.0
        self._state = DiskState(has_room=True, free_bytes=None, spare_bytes=None)
        self.check()

    @property
    def state(self) -> DiskState:
        """What the last check found."""
        return self._state

    def check(self) -> DiskState:
        """Measure the disks now."""
        with self._lock:
            self._state = self._measure()
            return self._state

    def note_full(self) -> None:
        """Note that a write found no room, which a check may not see: a quota, another machine."""
        with self._lock:
            self._noted_until = time.monotonic() + _NOTED_SECONDS
            self._state = self._measure()

    def _measure(self) -> DiskState:
        found = [
            state for folder in self._folders if (state := self._measure_disk(folder)) is not None
        ]
        full = [state for state in found if not state.has_room]
        if full:
            return full[0]
        free = min(
            (state.free_bytes for state in found if state.free_bytes is not None), default=None
        )
        spare = min(
            (state.spare_bytes for state in found if state.spare_bytes is not None), default=None
        )
        if time.monotonic() < self._noted_until:
            return DiskState(False, free, 0, "a write found no room a moment ago")
        return DiskState(True, free, spare)

    def _measure_disk(self, folder: Path) -> DiskState | None:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        try:
            disk = os.statvfs(folder)
        except OSError:  # gone, or not ours to see: whoever writes to it will say so
            return None
        free_bytes = disk.f_bavail * disk.f_frsize
        needed_bytes = self.watermark_bytes(disk.f_blocks * disk.f_frsize)
        needed_inodes = min(_LEAST_INODES, int(disk.f_files * _INODES_SHARE))
        factor = 1.0 if self._state.has_room else _RESUME_FACTOR
        spare_bytes = max(0, free_bytes - needed_bytes)
        if free_bytes < needed_bytes * factor:
            wanted = f"{needed_bytes * factor / 2**20:.0f} MiB"
            reason = f"{folder} has {free_bytes / 2**20:.0f} MiB free and needs {wanted}"
            return DiskState(False, free_bytes, 0, reason)
        if disk.f_files and disk.f_favail < needed_inodes * factor and self._min_free_bytes:
            return DiskState(
                False, free_bytes, 0, f"{folder} has room for {disk.f_favail} more files only"
            )
        return DiskState(True, free_bytes, spare_bytes)

    def watermark_bytes(self, total_bytes: int) -> int:
        """Return how much must be free on a disk of this size."""
        by_percentage = max(
            int(total_bytes * self._min_free_percent / 100), _LEAST_PERCENTAGE_BYTES
        )
        return min(self._min_free_bytes, by_percentage)


def watch_disks(settings: StoreSettings, *others: Path) -> DiskWatch:
    """Watch the disks that the settings name, the one of the blobs if it is here, and others."""
    blobs = urlsplit(settings.blob_url)
    of_blobs = [Path(unquote(blobs.path))] if blobs.scheme == "file" else []
    return DiskWatch(
        [*of_blobs, *settings.watched_folders, *others],
        min_free_bytes=settings.min_free_bytes,
        min_free_percent=settings.min_free_percent,
    )


def is_storage_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that a disk is full.

    Of this machine's disks (ENOSPC, a quota), of PostgreSQL's, or of Redis's.
    """
    return any(_says_full(each) for each in _chain(error))


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL_ERRNOS:
        return True
    if getattr(error, "sqlstate", None) == _DISK_FULL_SQLSTATE:
        return True
    # Only of libraries: our own sentences, and SQL's, may repeat what somebody called a file.
    if isinstance(error, RuntimeError) or type(error).__name__ in _TEXT_ONLY_ERRORS:
        text = str(error).lower()
        return any(said in text for said in _FULL_TEXTS)
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        original = getattr(error, "orig", None)  # SQLAlchemy's word for the driver's own
        if isinstance(original, BaseException) and id(original) not in seen:
            yield original
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
