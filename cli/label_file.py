"""An annotation file on its way to the service: plain or compressed, from disk or from stdin."""

import gzip
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import cast

from cli.errors import CliError

STDIN = Path("-")
PIECE_BYTES = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def read_pieces(path: Path) -> Iterator[Iterator[bytes]]:
    """Open a file and give its content piece by piece; what is gzip is unpacked, by any name.

    Args:
        path: a file or a pipe; `-` is stdin.

    Raises:
        CliError: it cannot be opened or, while it is read, is found to be damaged.
    """
    if path == STDIN:
        yield _pieces(path, cast(BufferedReader, sys.stdin.buffer))
        return
    try:
        reader = path.expanduser().open("rb")
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}") from error
    with reader:
        yield _pieces(path, reader)


def _pieces(path: Path, reader: BufferedReader) -> Iterator[bytes]:
    """Raise CliError rather than end early: the service keeps nothing of a body that breaks off."""
    name = "stdin" if path == STDIN else str(path)
    try:
        source = _unpacked(reader)
        while piece := source.read(PIECE_BYTES):
            yield piece
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CliError(f"{name} is damaged gzip: {error}", "nothing was imported") from error
    except OSError as error:
        raise CliError(f"{name} cannot be read: {error.strerror or error}") from error


def _unpacked(reader: BufferedReader) -> BufferedIOBase:
    head = reader.peek(len(_GZIP_MAGIC))
    if head.startswith(_GZIP_MAGIC):
        return gzip.GzipFile(fileobj=reader)
    if head.startswith(_UTF_16_MARKS):
        raise CliError("this is UTF-16: labels are read as UTF-8", "iconv -f UTF-16 -t UTF-8")
    return reader
