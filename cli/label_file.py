"""An annotation file on its way to the service: plain or compressed, from disk or from stdin."""

import gzip
import json
import sys
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader, RawIOBase, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cli.errors import CliError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STDIN = Path("-")
PIECE_BYTES = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"
# The longer ones first: UTF-32's begins with UTF-16's.
_OTHER_MARKS = {
    BOM_UTF32_LE: "UTF-32",
    BOM_UTF32_BE: "UTF-32",
    BOM_UTF16_LE: "UTF-16",
    BOM_UTF16_BE: "UTF-16",
}


@contextmanager
def read_pieces(path: Path) -> Iterator[Iterator[bytes]]:
    """Open a file and give its content piece by piece; what is gzip is unpacked, by any name.

    A file in the form in which its data set is shipped (see clipbert.datasets.shipped) comes as the
    lines that it means. What the first bytes tell is told before anything is given: so nothing is
    sent of a file that cannot be read at all.

    Args:
        path: a file or a pipe; `-` is stdin.

    Raises:
        CliError: it cannot be opened, is not UTF-8 by its first bytes or, while it is read, is
            found to be damaged.
    """
    if path == STDIN:
        yield _checked_pieces(path, cast(BufferedReader, sys.stdin.buffer))
        return
    try:
        reader = path.expanduser().open("rb")
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}") from error
    with reader:
        yield _checked_pieces(path, reader)


def _checked_pieces(path: Path, reader: BufferedReader) -> Iterator[bytes]:
    pieces = _pieces(path, reader)
    first = next(pieces, b"")
    for mark, name in _OTHER_MARKS.items():
        if first.startswith(mark):
            what = "this" if path == STDIN else str(path)
            raise CliError(
                f"{what} is {name}: labels are read as UTF-8", f"iconv -f {name} -t UTF-8"
            )
    if b"\0" in first:
        what = "this" if path == STDIN else str(path)
        raise CliError(f"{what} is not a text file: labels are read from lines of JSON in UTF-8")
    first = first.removeprefix(BOM_UTF8)
    whole = chain([first], pieces)
    from clipbert.datasets.shipped import HEAD_BYTES, is_lines

    return whole if is_lines(first[:HEAD_BYTES]) else _lines_of_shipped(path, whole)


def _lines_of_shipped(path: Path, pieces: Iterator[bytes]) -> Iterator[bytes]:
    from clipbert.datasets.shipped import NotShipped, read_shipped

    text = TextIOWrapper(BufferedReader(_Joined(pieces)), encoding="utf-8", newline="")
    try:
        for record in read_shipped(text):
            # ASCII carries half a surrogate pair too; the service names the line that has one.
            yield json.dumps(record).encode("ascii") + b"\n"
    except NotShipped as error:
        name = "stdin" if path == STDIN else str(path)
        raise CliError(f"{name} {error}", "nothing was imported") from error


class _Joined(RawIOBase):
    """Pieces of a file as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        target = memoryview(buffer)
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _pieces(path: Path, reader: BufferedReader) -> Iterator[bytes]:
    """Raise CliError rather than end early: the service keeps nothing of a body that breaks off."""
    name = "stdin" if path == STDIN else str(path)
    try:
        source: BufferedIOBase = reader
        if reader.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC):
            source = gzip.GzipFile(fileobj=reader)
        while piece := source.read(PIECE_BYTES):
            yield piece
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CliError(f"{name} is damaged gzip: {error}", "nothing was imported") from error
    except OSError as error:
        raise CliError(f"{name} cannot be read: {error.strerror or error}") from error
