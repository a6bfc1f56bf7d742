"""Open the media of a job: a file under an allowed root, or an uploaded blob.

It is opened once. What is hashed, probed and decoded is that descriptor, `/proc/self/fd/N`, so that
nothing can be put in its place between a check and a use.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from clipbert.errors import MediaNotFound, UnsupportedMedia
from store.blobs import BlobStore
from store.errors import (
    BlobNotFound,
    MediaFileError,
    MediaFileMissing,
    NotARegularFile,
    OutsideMediaRoots,
    shown_path,
)
from store.media_files import (
    MediaFile,
    hash_descriptor,
    open_media_file,
    stamp_of,
    trusted_stamp,
)
from store.videos.names import as_name
from store.videos.tables import Video
from workers.errors import JobError, MediaChanged


@dataclass(frozen=True)
class OpenMedia:
    """A file of this machine that is open for reading, for as long as its context lasts.

    Attributes:
        descriptor: the open file.
        name: what people call it; a blob's own name is its hash, a link's that of its target.
        status: what the system said of it when it was opened.
        real_path: where it was found then, with no symbolic link left in it.
        stamp: what shows that a file in place is still this one; None if it was written to so
            shortly before that this cannot be trusted.
        location: where it was looked for; None for a blob.
        roots: folders that the location must lead into.
    """

    descriptor: int
    name: str
    status: os.stat_result
    real_path: Path
    stamp: str | None = None
    location: Path | None = None
    roots: tuple[Path, ...] = field(default=(), repr=False)

    @property
    def path(self) -> Path:
        """A path that opens this very file, whatever lies at its location now; in this process."""
        return Path(f"/proc/self/fd/{self.descriptor}")

    @property
    def size_bytes(self) -> int:
        """Its size when it was opened."""
        return self.status.st_size

    def hash(self, *, on_piece: Callable[[], object] | None = None) -> str:
        """Compute the SHA-256 of its bytes, as `hash_descriptor` does."""
        return hash_descriptor(self.descriptor, on_piece=on_piece)

    def check_unwritten(self) -> None:
        """Make sure that what was read at different times is one content.

        Raises:
            MediaChanged: it was written to, perhaps is still being copied.
        """
        now = os.fstat(self.descriptor)
        # Not the time of the inode: a link made, or a name changed, moves it too.
        if (now.st_size, now.st_mtime_ns) != (self.status.st_size, self.status.st_mtime_ns):
            raise MediaChanged(self.name)

    def check_in_place(self) -> None:
        """Make sure that it is unwritten, and still what lies at its location.

        Raises:
            MediaNotFound: it is gone.
            MediaChanged: it was written to, or another file was put there.
        """
        self.check_unwritten()
        if self.location is None:
            return
        with _open_at(self.location, self.name, self.roots) as file:
            there = file.status
        if (there.st_dev, there.st_ino) != (self.status.st_dev, self.status.st_ino):
            raise MediaChanged(self.name)

    def check_content(self, video: Video, *, on_piece: Callable[[], object] | None = None) -> None:
        """Make sure that these are the bytes that were indexed; they are hashed where in doubt.

        Args:
            video: the row; an uploaded file is named by its hash, and not looked at.
            on_piece: called after each piece that is hashed.

        Raises:
            JobError: `media_changed`.
        """
        if self.location is None or stamp_of(self.status) == video.file_stamp:
            return
        if video.size_bytes in (None, self.size_bytes) and self.hash(on_piece=on_piece) == (
            video.sha256
        ):
            self.check_unwritten()
            return
        raise JobError(
            "media_changed",
            f"{self.name} has other content than was indexed: index it again",
        )


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
    """Open the media as a local file, for as long as the context lasts.

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
        UnsupportedMedia: what is there is not a regular file.
    """
    with ExitStack() as stack:
        if blob_key is not None:
            try:
                path = stack.enter_context(blobs.as_local_file(blob_key, on_piece=on_piece))
                file = stack.enter_context(path.open("rb"))
            except (BlobNotFound, FileNotFoundError) as error:
                raise MediaNotFound("the uploaded file is not in the blob store") from error
            yield OpenMedia(file.fileno(), name, os.fstat(file.fileno()), path)
        elif uri is not None:
            location = path_of_uri(uri)
            found = stack.enter_context(_open_at(location, name, roots))
            yield OpenMedia(
                found.descriptor,
                name,
                found.status,
                found.path,
                stamp=trusted_stamp(found.status),
                location=location,
                roots=tuple(roots),
            )
        else:
            raise JobError("internal_error", "the job names neither a uri nor a blob")


@contextmanager
def open_video_media(
    video: Video,
    *,
    roots: Sequence[Path],
    blobs: BlobStore,
    on_piece: Callable[[], object] | None = None,
) -> Iterator[OpenMedia]:
    """Open the media of a video, with the bytes that were indexed, as `open_media` does.

    Raises:
        JobError: also `media_changed`: other bytes lie at its location now.
    """
    with open_media(
        uri=video.uri,
        blob_key=video.blob_key,
        name=video.filename or name_in_uri(video.uri),
        roots=roots,
        blobs=blobs,
        on_piece=on_piece,
    ) as media:
        media.check_content(video, on_piece=on_piece)
        yield media


def name_in_uri(uri: str) -> str:
    """Return the file name that a uri ends in, as text in NFC: what is not UTF-8 is replaced."""
    return as_name(unquote(uri.rsplit("/", 1)[-1]))


def path_of_uri(uri: str) -> Path:
    """Return the absolute path that a uri names.

    Raises:
        JobError: `outside_media_roots`: it names none.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise JobError("outside_media_roots", "only file:// uris under the media roots can be read")
    path = Path(unquote(parts.path, errors="surrogateescape"))  # names are bytes, of any coding
    if not path.is_absolute():
        raise JobError("outside_media_roots", f"{uri} is not an absolute path")
    return path


def _open_at(location: Path, name: str, roots: Sequence[Path]) -> MediaFile:
    try:
        return open_media_file(location, roots)
    except OutsideMediaRoots as error:
        raise JobError(
            "outside_media_roots", f"{name} is not under an allowed media root"
        ) from error
    except NotARegularFile as error:
        raise UnsupportedMedia(f"{name} is not a regular file") from error
    except MediaFileMissing as error:
        why = f"{error.reason} at {shown_path(location)}"
        raise MediaNotFound(f"{name} cannot be read: {why}") from error
    except MediaFileError as error:
        raise MediaNotFound(str(error)) from error
