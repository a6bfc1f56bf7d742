"""Room that is kept back on a disk, and given up when the disk is full.

PostgreSQL ends itself when it cannot write its log. With this it has some more, for what goes on
while nothing new is taken in: cancelling, deleting, starting again after such an end.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

RESERVE_BYTES: Final = 32 * 2**20  # two segments of PostgreSQL's log


class DiskReserve:
    """A file that only takes room.

    Args:
        file: where; on the disk that needs the room.
        size_bytes: how much.
    """

    def __init__(self, file: Path, *, size_bytes: int = RESERVE_BYTES) -> None:
        self._file, self._size_bytes = file, size_bytes

    @property
    def size_bytes(self) -> int:
        """How much is kept back."""
        return self._size_bytes

    def is_held(self) -> bool:
        """Whether the room is kept back now: all of it, whoever died while taking it."""
        try:
            return self._file.stat().st_size >= self._size_bytes
        except OSError:
            return False

    def hold(self) -> None:
        """Keep the room back; does nothing if it is, or if it is not there."""
        if self.is_held():
            return
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(descriptor, 0, self._size_bytes)
        except OSError:
            self.release()
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Give up the room, for whoever needs it now."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)
