"""A file as it is uploaded: a regular one, as long as it was at the start."""

import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self


class FileToSend:
    """Reads exactly the bytes that a file had when it was opened; use as a context manager.

    The length of a request is announced before its body: a file that still grows is sent as it was.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        # Without O_NONBLOCK a named pipe would wait for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a regular file")
        self.size_bytes = status.st_size
        self._reader = os.fdopen(descriptor, "rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reader.close()

    def read(self, size: int) -> bytes:
        """Read at most so many bytes; none at the end.

        Raises:
            OSError: the file became shorter meanwhile.
        """
        left = self.size_bytes - self._reader.tell()
        piece = self._reader.read(min(size, left))
        if left and not piece:
            raise OSError(errno.EIO, "it became shorter while it was sent")
        return piece
