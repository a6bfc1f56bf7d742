"""Blobs: files under keys, in a local folder or in object storage.

A blob appears whole or not at all, and is never changed afterwards except by being replaced whole.
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol, cast
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.callbacks import Callback, NoOpCallback

from store.errors import BlobNotFound, InvalidBlobKey

MAX_KEY_BYTES = 900  # S3 allows 1024, and there is a prefix
COPY_BYTES = 1 << 20
MOVE_ATTEMPTS = 1000
ABANDONED_SECONDS = 86_400
STAGING = ".staging"
"""Where the local folder keeps what is not whole yet; no key begins with a dot."""
STAGED = "clipbert-staged-"
"""How the names of files and folders in a `staging_folder` begin; old ones are removed."""


class BlobStore(Protocol):
    """Files under keys such as `thumbnails/{sha256}/poster.jpg`.

    Every method raises InvalidBlobKey for a key that could leave the store, and every method that
    reads raises BlobNotFound.
    """

    def open_write(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open a blob to write; it appears when the block ends, and not if that raises."""
        ...

    def put_bytes(self, key: str, content: bytes) -> None:
        """Write a blob from memory."""
        ...

    def put_file(self, key: str, path: Path) -> None:
        """Write a blob from a file, which stays as it is."""
        ...

    def take_file(self, key: str, path: Path) -> None:
        """Write a blob from a file that nobody else needs; it is moved if it can be, or left."""
        ...

    def staging_folder(self) -> Path:
        """Return a folder of this machine for files that are not blobs yet, or never will be.

        What a killed process leaves there under a name that begins with STAGED is removed later.
        """
        ...

    def open_read(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open a blob to read from its beginning; the file can seek."""
        ...

    def read_range(self, key: str, *, start: int, end: int) -> bytes:
        """Read the bytes from start up to but not including end, or to the blob's end."""
        ...

    def size(self, key: str) -> int:
        """Return the size in bytes."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is a blob under a key."""
        ...

    def delete(self, key: str) -> None:
        """Remove a blob; nothing happens if there is none."""
        ...

    def keys(self, folder: str) -> Iterator[str]:
        """List the keys below a part of a key, such as `media`; some may be gone when they come."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Return the path of a blob that is a file of this machine already, else None."""
        ...

    def as_local_file(
        self, key: str, *, on_piece: Callable[[], object] | None = None
    ) -> AbstractContextManager[Path]:
        """Return a blob as a file of this machine, while the block lasts; not to be changed.

        What `on_piece` raises between two pieces of a download ends it.
        """
        ...


def open_blobs(url: str) -> BlobStore:
    """Open the blob store at a URL.

    Args:
        url: `file:///absolute/folder`, or `s3://bucket/prefix`, or another scheme of fsspec's.

    Raises:
        ValueError: the URL has no scheme, or names a folder that is not absolute.
    """
    parts = urlsplit(url)
    if not parts.scheme:
        raise ValueError(
            f"{url!r} is not a URL of a blob store: file:///folder or s3://bucket/prefix"
        )
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        if parts.netloc not in {"", "localhost"} or not folder.is_absolute():
            raise ValueError(f"{url!r} does not name an absolute folder: file:///folder")
        return LocalBlobs(folder)
    return RemoteBlobs(url)


class LocalBlobs:
    """Blobs in a folder of this machine.

    Args:
        folder: absolute; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / STAGING).mkdir(parents=True, exist_ok=True)
        _remove_abandoned((folder / STAGING).iterdir())

    @contextmanager
    def open_write(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        descriptor, name = tempfile.mkstemp(dir=self._folder / STAGING)
        staging = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _move_into_place(staging, path)
        finally:
            staging.unlink(missing_ok=True)

    def put_bytes(self, key: str, content: bytes) -> None:
        with self.open_write(key) as file:
            file.write(content)

    def put_file(self, key: str, path: Path) -> None:
        with path.open("rb") as source, self.open_write(key) as target:
            shutil.copyfileobj(source, target, COPY_BYTES)

    def take_file(self, key: str, path: Path) -> None:
        try:
            _move_into_place(path, self._path(key))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self.put_file(key, path)

    def staging_folder(self) -> Path:
        return self._folder / STAGING

    @contextmanager
    def open_read(self, key: str) -> Iterator[BinaryIO]:
        with _opened(key, self._path(key)) as file:
            yield file

    def read_range(self, key: str, *, start: int, end: int) -> bytes:
        with self.open_read(key) as file:
            file.seek(start)
            return file.read(max(0, end - start))

    def size(self, key: str) -> int:
        return self._existing(key).stat().st_size

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        path = self._path(key)
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
        # The folders it leaves empty; one in which another blob appears meanwhile is not.
        for folder in path.relative_to(self._folder).parents:
            if folder == Path():
                break
            with suppress(OSError):
                (self._folder / folder).rmdir()

    def local_path(self, key: str) -> Path | None:
        return self._existing(key)

    def keys(self, folder: str) -> Iterator[str]:
        for parent, _, names in os.walk(self._path(folder)):  # folders vanish meanwhile
            for name in names:
                yield (Path(parent) / name).relative_to(self._folder).as_posix()

    @contextmanager
    def as_local_file(
        self, key: str, *, on_piece: Callable[[], object] | None = None
    ) -> Iterator[Path]:
        yield self._existing(key)

    def _path(self, key: str) -> Path:
        return self._folder / valid_key(key)

    def _existing(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise BlobNotFound(key)
        return path


class RemoteBlobs:
    """Blobs in object storage, by fsspec; an upload there appears when it is complete.

    Args:
        url: of the folder.
    """

    def __init__(self, url: str) -> None:
        # Without this s3fs remembers listings for ever: it would not see what other processes
        # write and delete.
        self._system, folder = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self._folder = str(folder).rstrip("/")
        _remove_abandoned(self.staging_folder().glob(f"{STAGED}*"))

    @contextmanager
    def open_write(self, key: str) -> Iterator[BinaryIO]:
        # Whole on this machine first: a block that raises must leave no blob.
        path = self._path(key)
        with tempfile.TemporaryFile() as file:
            yield cast("BinaryIO", file)
            file.seek(0)
            with self._system.open(path, "wb") as target:
                shutil.copyfileobj(file, target, COPY_BYTES)

    def put_bytes(self, key: str, content: bytes) -> None:
        self._system.pipe_file(self._path(key), content)

    def put_file(self, key: str, path: Path) -> None:
        self._system.put_file(str(path), self._path(key))

    def take_file(self, key: str, path: Path) -> None:
        self.put_file(key, path)

    def staging_folder(self) -> Path:
        return Path(tempfile.gettempdir())

    @contextmanager
    def open_read(self, key: str) -> Iterator[BinaryIO]:
        with self._found(key), self._system.open(self._path(key), "rb") as file:
            yield file

    def read_range(self, key: str, *, start: int, end: int) -> bytes:
        end = min(end, self.size(key))
        if start >= end:
            return b""
        with self._found(key):
            return cast("bytes", self._system.cat_file(self._path(key), start=start, end=end))

    def size(self, key: str) -> int:
        with self._found(key):
            found = self._system.info(self._path(key))
        if found["type"] != "file":
            raise BlobNotFound(key)
        return int(found["size"])

    def exists(self, key: str) -> bool:
        return bool(self._system.isfile(self._path(key)))

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._system.rm_file(self._path(key))

    def local_path(self, key: str) -> Path | None:
        valid_key(key)
        return None

    def keys(self, folder: str) -> Iterator[str]:
        for path in self._system.find(self._path(folder)):
            yield str(path).removeprefix(f"{self._folder}/")

    @contextmanager
    def as_local_file(
        self, key: str, *, on_piece: Callable[[], object] | None = None
    ) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.staging_folder(), prefix=STAGED) as folder:
            path = Path(folder) / Path(key).name
            self.size(key)  # raises where there is none, or a folder of others
            callback = _EachPiece(on_piece) if on_piece else NoOpCallback()
            with self._found(key):
                self._system.get_file(self._path(key), str(path), callback=callback)
            yield path

    def _path(self, key: str) -> str:
        return f"{self._folder}/{valid_key(key)}"

    @contextmanager
    def _found(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise BlobNotFound(key) from error


def valid_key(key: str) -> str:
    """Check a key: parts of a relative path, none of them empty or beginning with a dot.

    Raises:
        InvalidBlobKey: it is something else.
    """
    parts = key.split("/")
    is_bad = any(not part or part.startswith(".") for part in parts)
    has_bad_character = any(not c.isprintable() or c == "\\" for c in key)
    if is_bad or has_bad_character or len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidBlobKey(key)
    return key


def _move_into_place(staging: Path, path: Path) -> None:
    for attempt in range(MOVE_ATTEMPTS):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            staging.replace(path)
        except FileNotFoundError:
            # A deletion next to it took the empty folder away.
            if attempt == MOVE_ATTEMPTS - 1 or not staging.exists():
                raise
        else:
            break
    # A row that speaks of the blob is committed next, and a power cut must not part the two.
    with suppress(FileNotFoundError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class _EachPiece(Callback):  # type: ignore[misc]  # fsspec has no types
    """Calls a function after each piece of a transfer."""

    def __init__(self, on_piece: Callable[[], object]) -> None:
        super().__init__()
        self._on_piece = on_piece

    def call(self, hook_name: str | None = None, **_: object) -> None:
        self._on_piece()


def _remove_abandoned(paths: Iterable[Path]) -> None:
    # What a killed process did not finish; nobody works on one for a day. A shared folder may hold
    # what is another user's.
    oldest = time.time() - ABANDONED_SECONDS
    for path in paths:
        with suppress(FileNotFoundError, PermissionError):
            if path.lstat().st_mtime >= oldest:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _opened(key: str, path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise BlobNotFound(key) from error
