"""A file as it is uploaded: regular, as long as at the start, under a name that forms carry."""

import errno
import os
import stat
import unicodedata
from pathlib import Path
from types import TracebackType
from typing import Self

from cli.show.console import as_text


class FileToSend:
    """Reads exactly the bytes that a file had when it was opened; use as a context manager.

    The length of a request is announced before its body: a file that still grows is sent as it was.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """

    def __init__(self, path: Path) -> None:
        # Without O_NONBLOCK a named pipe would wait for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no regular file")
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


def sendable_name(name: str) -> str:
    """Give a file name as a form can carry it: what is no text, and quotes, are replaced."""
    text = as_text(name).replace('"', "'")
    return "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)
