"""Open the media of a job: a file under an allowed root, or an uploaded blob."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from clipbert.errors import ClipBertError, MediaNotFound, UnsupportedMedia, VideoError
from store.blobs import BlobStore
from store.errors import BlobNotFound
from workers.errors import JobError, MediaChanged

_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class OpenMedia:
    """A local file that may be read.

    Attributes:
        path: where it really is, with no symbolic link left in it.
        name: what people call it; a blob's own name is its hash, a link's that of its target.
        size_bytes: its size when it was opened.
        modified_ns: when it was last written, at that time.
    """

    path: Path
    name: str
    size_bytes: int
    modified_ns: int

    def check_unchanged(self) -> None:
        """Make sure that what was read at different times is one file.

        Raises:
            MediaNotFound: it is gone.
            MediaChanged: it was written to, perhaps is still being copied.
        """
        try:
            now = self.path.stat()
        except OSError as error:
            raise MediaNotFound(f"{self.name} vanished while it was read") from error
        if (now.st_size, now.st_mtime_ns) != (self.size_bytes, self.modified_ns):
            raise MediaChanged(self.name)

    def with_name(self, error: ClipBertError) -> ClipBertError:
        """Give the same error with the file called what people call it."""
        message = str(error).replace(self.path.name, self.name)
        if isinstance(error, VideoError):
            return VideoError.from_code(error.code, message)
        return ClipBertError(message)


@contextmanager
def open_media(
    *,
    uri: str | None,
    blob_key: str | None,
    name: str,
    roots: Sequence[Path],
    blobs: BlobStore,
    on_piece: Callable[[], object] | None = None,
) -> Iterator[OpenMedia]:
    """Give the media as a local file, for as long as the context lasts.

    Args:
        uri: where the file is, if it was not uploaded.
        blob_key: where the upload is; then the uri does not count.
        name: what people call it.
        roots: folders that a uri may lead into.
        blobs: where uploads are.
        on_piece: called after each piece of a download; what it raises ends the download.

    Raises:
        JobError: `outside_media_roots`: the uri names no file under an allowed root.
        MediaNotFound: there is no such file or blob.
        UnsupportedMedia: what is there is no regular file.
    """
    if blob_key is not None:
        with ExitStack() as stack:
            try:
                path = stack.enter_context(blobs.as_local_file(blob_key, on_piece=on_piece))
                found = path.stat()
            except (BlobNotFound, FileNotFoundError) as error:
                raise MediaNotFound("the uploaded file is not in the blob store") from error
            yield OpenMedia(path, name, found.st_size, found.st_mtime_ns)
    elif uri is not None:
        yield _open_under_roots(_path_of(uri), name, roots)
    else:
        raise JobError("internal_error", "the job names neither a uri nor a blob")


def hash_file(path: Path, *, on_piece: Callable[[], object] | None = None) -> str:
    """Compute the SHA-256 of a file, as 64 hexadecimal digits.

    Args:
        path: the file, of any size.
        on_piece: called after each mebibyte; what it raises ends the work.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
            if on_piece is not None:
                on_piece()
    return digest.hexdigest()


def name_in_uri(uri: str) -> str:
    """Give the file name that a uri ends in, as text: what is no UTF-8 in it is replaced."""
    return unquote(uri.rsplit("/", 1)[-1])


def _path_of(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise JobError("outside_media_roots", "only file:// uris under the media roots can be read")
    path = Path(unquote(parts.path, errors="surrogateescape"))  # names are bytes, of any coding
    if not path.is_absolute():
        raise JobError("outside_media_roots", f"{uri} is not an absolute path")
    return path


def _open_under_roots(path: Path, name: str, roots: Sequence[Path]) -> OpenMedia:
    """Open first and check what was opened: a check before could be outrun by a changed link."""
    try:
        # Without O_NONBLOCK a named pipe would wait for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise MediaNotFound(f"there is no file {name}") from error
    except (NotADirectoryError, PermissionError) as error:
        raise MediaNotFound(f"{name} cannot be read: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        opened = Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)
    if not any(opened.is_relative_to(root.resolve()) for root in roots):
        raise JobError("outside_media_roots", f"{name} is not under an allowed media root")
    if not stat.S_ISREG(found.st_mode):
        raise UnsupportedMedia(f"{name} is not a regular file")
    return OpenMedia(opened, name, found.st_size, found.st_mtime_ns)
