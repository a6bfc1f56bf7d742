"""Files that lie under a media root: opened once, and known again by their stamp.

The folders belong to other people, who may replace a file or a folder by a link at any moment. So
a path is walked from `/`, each part opened below the one before it and without following links; a
link is followed on purpose, by walking its target in the same way. What comes out is a descriptor,
and whether the walk went through a root is judged by the folders that were really opened. All that
is done with the file afterwards is done with that descriptor.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from store.errors import MediaFileMissing, NotARegularFile, OutsideMediaRoots

SETTLED_NS: Final = 2_000_000_000
"""A file written to within so long may be written to again without its times showing it."""

_MAX_LINKS: Final = 40  # as the kernel's own bound
_READ_BYTES: Final = 1 << 20
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NO_SUCH_FILE: Final = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of its path is not a folder",
    errno.EACCES: "it may not be read",
    errno.EPERM: "it may not be read",
    errno.ELOOP: "its links lead round in a circle",
    errno.ENAMETOOLONG: "its name is too long",
}


@dataclass
class MediaFile:
    """An open file below a media root; to be closed.

    Attributes:
        descriptor: open for reading.
        path: where it was found, with no link left in it.
        status: what the system said of it when it was opened.
    """

    descriptor: int
    path: Path
    status: os.stat_result

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_media_file(path: str | Path, roots: Sequence[Path]) -> MediaFile:
    """Open a regular file below one of the roots, wherever its links lead below them.

    Args:
        path: absolute.
        roots: absolute folders; they may be links themselves.

    Raises:
        OutsideMediaRoots: it leads out of every root; whether it exists there is not told.
        MediaFileMissing: it is not there, or cannot be reached; the sentence says why.
        NotARegularFile: there is a folder, a pipe, a socket or a device.
        OSError: it cannot be read now, and perhaps later.
    """
    walk = _Walk(roots)
    try:
        found = walk.to(os.fspath(path))
        status = os.fstat(found)
        if not walk.is_below_a_root():
            raise OutsideMediaRoots(path)
        if not stat.S_ISREG(status.st_mode):
            raise NotARegularFile(path)
        # The very file that was looked at, by its descriptor: no name is looked up again.
        descriptor = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
        return MediaFile(descriptor, Path("/", *walk.names), status)
    except OSError as error:
        reason = _NO_SUCH_FILE.get(error.errno or 0)
        if reason is None:
            raise
        if not (walk.is_below_a_root() or walk.leads_to_absent_root(path)):
            raise OutsideMediaRoots(path) from error
        raise MediaFileMissing(path, reason) from error
    finally:
        walk.close()


def stamp_of(status: os.stat_result) -> str:
    """Write down what shows cheaply whether a file is the one seen before, unwritten since.

    The time of the last change of the inode is part of it: unlike that of the last write, nobody
    can set it back.
    """
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"


def is_settled(status: os.stat_result, *, for_ns: int = SETTLED_NS) -> bool:
    """Whether a file was last written to long enough ago for its stamp to be trusted.

    Within one tick of the file system's clock it can be written to twice, with one stamp.
    """
    now = time.time_ns()
    # A time of writing in the future is a camera's or a copy's and says nothing.
    written_ago = now - status.st_mtime_ns
    return now - status.st_ctime_ns >= for_ns and not 0 <= written_ago < for_ns


def trusted_stamp(status: os.stat_result) -> str | None:
    """Return a file's stamp if it can be trusted, else None."""
    return stamp_of(status) if is_settled(status) else None


def hash_file(path: Path) -> str:
    """Compute the SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hash_descriptor(file.fileno())


def hash_descriptor(descriptor: int, *, on_piece: Callable[[], object] | None = None) -> str:
    """Compute the SHA-256 of an open file, as 64 hexadecimal digits; its position stays.

    Args:
        descriptor: of a file of any size.
        on_piece: called after each mebibyte; what it raises ends the work.
    """
    digest = hashlib.sha256()
    offset = 0
    while piece := os.pread(descriptor, _READ_BYTES, offset):
        digest.update(piece)
        offset += len(piece)
        if on_piece is not None:
            on_piece()
    return digest.hexdigest()


class _Walk:
    """The folders that were opened on the way, the names they were opened by, and the file."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._root_ids: set[tuple[int, int]] = set()
        self._absent_roots: list[str] = []
        for root in roots:
            try:
                status = os.stat(root)  # noqa: PTH116  roots may be links, files below them not
                self._root_ids.add((status.st_dev, status.st_ino))
            except OSError:
                self._absent_roots.append(os.path.normpath(root))
        self._folders: list[int] = []
        self._file: int | None = None
        self.names: list[str] = []

    def to(self, path: str) -> int:
        """Walk to the end of a path. Returns its descriptor, which only names the file."""
        if not path.startswith("/") or "\0" in path:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._go_to_top()
        num_links = 0
        parts = _parts(path)
        while parts:
            part = parts.pop(0)
            if part == "..":
                self._go_up()
                continue
            opened = os.open(
                part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folders[-1]
            )
            mode = os.fstat(opened).st_mode
            if stat.S_ISLNK(mode):
                num_links += 1
                try:
                    target = os.readlink("", dir_fd=opened)
                finally:
                    os.close(opened)
                if num_links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if target.startswith("/"):
                    self._go_to_top()
                parts = _parts(target) + parts
            elif stat.S_ISDIR(mode):
                self._folders.append(opened)
                self.names.append(part)
            else:
                self._file = opened
                self.names.append(part)
                if parts:
                    raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return self._folders[-1] if self._file is None else self._file

    def is_below_a_root(self) -> bool:
        """Whether the walk went down through a root to where it is now."""
        statuses = (os.fstat(folder) for folder in self._folders)
        return any((status.st_dev, status.st_ino) in self._root_ids for status in statuses)

    def leads_to_absent_root(self, path: str | Path) -> bool:
        """Whether a path is below a root that is not there now: a disk that is not mounted."""
        plain = os.path.normpath(path)
        return any(plain.startswith(root.rstrip("/") + "/") for root in self._absent_roots)

    def close(self) -> None:
        for descriptor in (*self._folders, *(() if self._file is None else (self._file,))):
            with suppress(OSError):
                os.close(descriptor)
        self._folders, self._file = [], None

    def _go_to_top(self) -> None:
        for folder in self._folders:
            os.close(folder)
        self._folders, self.names = [], []
        self._folders.append(os.open("/", _FOLDER))

    def _go_up(self) -> None:
        # The folder that was come from, rather than the kernel's `..`: a folder that was moved
        # meanwhile would lead elsewhere.
        if len(self._folders) > 1:
            os.close(self._folders.pop())
            self.names.pop()


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]
