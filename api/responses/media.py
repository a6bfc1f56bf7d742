"""The bytes of a video: out of the blob store, or from where its file lies under a media root."""

import os
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import quote

from api.errors import ApiError
from api.responses.ranges import CHUNK_BYTES, Source
from api.services.media_roots import MediaRoots
from store.blobs import BlobStore
from store.errors import BlobNotFound, MediaFileMissing, NotARegularFile
from store.media_files import stamp_of, trusted_stamp
from store.videos.tables import Video, VideoState

# What players need to be told, by the names FFmpeg gives containers. Anything else is bytes: never
# a type that a browser would run.
_TYPE_OF_CONTAINER: Final = {
    "mov": "video/mp4",
    "mp4": "video/mp4",
    "matroska": "video/x-matroska",
    "webm": "video/webm",
    "avi": "video/x-msvideo",
    "ogg": "video/ogg",
    "mpeg": "video/mpeg",
    "mpegts": "video/mp2t",
    "flv": "video/x-flv",
    "asf": "video/x-ms-asf",
    "gif": "image/gif",
    "jpeg_pipe": "image/jpeg",
    "image2": "image/jpeg",
    "png_pipe": "image/png",
    "webp_pipe": "image/webp",
}
_TYPE_OF_SUFFIX: Final = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".ogv": "video/ogg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}


class OpenFile:
    """A file that is open, so that nothing can be put in its place between check and read.

    Args:
        descriptor: of the file; closed after the first read.
        etag: quoted.
        stamp: of a file in place: reading ends as soon as it is no longer true.
    """

    def __init__(self, descriptor: int, *, etag: str, stamp: str | None = None) -> None:
        self._descriptor = descriptor
        self._stamp = stamp
        self.size_bytes = os.fstat(descriptor).st_size
        self.etag = etag

    def read(self, start: int, end: int) -> Iterator[bytes]:
        try:
            while start < end:
                piece = os.pread(self._descriptor, min(CHUNK_BYTES, end - start), start)
                if not piece:
                    return
                # After the read: what was written before it shows, and what comes later is not
                # in the piece. The client sees an answer that ends too early.
                if self._stamp not in {None, stamp_of(os.fstat(self._descriptor))}:
                    raise FileWritten("the file was written to while it was sent")
                yield piece
                start += len(piece)
        finally:
            self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        # A client may go before the first byte was read: the iterator never ran then.
        self.close()


class FileWritten(OSError):
    """A file in place was written to while it was sent."""


class RemoteBlob:
    """A blob that is not a file of this machine, read range by range."""

    _RANGE_BYTES = 4 * 2**20

    def __init__(self, blobs: BlobStore, key: str, *, etag: str) -> None:
        self._blobs, self._key = blobs, key
        self.size_bytes = blobs.size(key)
        self.etag = etag

    def read(self, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            piece = self._blobs.read_range(
                self._key, start=start, end=min(start + self._RANGE_BYTES, end)
            )
            if not piece:
                return
            yield piece
            start += len(piece)

    def close(self) -> None:
        pass


def open_media(
    video: Video,
    *,
    blobs: BlobStore,
    media_roots: MediaRoots,
    on_checked: Callable[[str | None], None],
) -> Source:
    """Open the file of a video, which has the bytes that were indexed.

    Args:
        video: its row.
        blobs: where uploads are.
        media_roots: where files in place may be.
        on_checked: called with the stamp of a file in place that was hashed and found the same.

    Raises:
        ApiError: 404 media_gone, the file is no longer there; 409 media_changed, it has other
            content now; 403 outside_media_roots, its folder is not, or no longer, among those that
            may be read; 503 media_being_checked.
    """
    etag = f'"{video.sha256}"'
    if video.state == VideoState.SUPERSEDED:
        raise media_changed(video)
    if video.blob_key is not None:
        try:
            return open_blob(blobs, video.blob_key, etag=etag)
        except BlobNotFound as error:
            raise _gone(video) from error
    try:
        file = media_roots.open(video.uri)
    except (MediaFileMissing, NotARegularFile) as error:
        raise _gone(video) from error
    try:
        stamp = stamp_of(file.status)
        if stamp != video.file_stamp:
            if not media_roots.contents.is_same(file, video):
                raise media_changed(video)
            on_checked(trusted_stamp(file.status))
        return OpenFile(os.dup(file.descriptor), etag=etag, stamp=stamp)
    finally:
        file.close()


def open_blob(blobs: BlobStore, key: str, *, etag: str) -> Source:
    """Open a blob.

    Raises:
        BlobNotFound: there is none under this key.
    """
    path = blobs.local_path(key)
    if path is None:
        return RemoteBlob(blobs, key, etag=etag)
    try:
        return OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), etag=etag)
    except FileNotFoundError as error:  # deleted a moment ago
        raise BlobNotFound(key) from error


def media_type_of(video: Video) -> str:
    """Return the content type of a video's file, from a list of types that no browser runs."""
    suffix = Path(video.filename or path_name(video.uri)).suffix.lower()
    if suffix in _TYPE_OF_SUFFIX:
        return _TYPE_OF_SUFFIX[suffix]
    for name in (video.container or "").split(","):
        if name in _TYPE_OF_CONTAINER:
            return _TYPE_OF_CONTAINER[name]
    return "application/octet-stream"


def disposition_of(video: Video) -> str:
    """Offer the file's own name to whoever saves it."""
    return f"inline; filename*=UTF-8''{quote(video.filename or path_name(video.uri), safe='')}"


def path_name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def media_changed(video: Video) -> ApiError:
    """Make the error of a video whose file has other content than was indexed."""
    facts = {} if video.superseded_by_id is None else {"superseded_by": str(video.superseded_by_id)}
    return ApiError(
        HTTPStatus.CONFLICT,
        "media_changed",
        f"The file of video {video.id} has other content than was indexed: index it again.",
        facts=facts,
    )


def _gone(video: Video) -> ApiError:
    return ApiError(
        HTTPStatus.NOT_FOUND,
        "media_gone",
        f"The file of video {video.id} is no longer there.",
    )
