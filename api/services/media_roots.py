"""Which files of this machine a client may name: those under the media roots, and no others."""

import errno
import os
import stat
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

from api.errors import ApiError
from api.services.content_checks import ContentChecks
from store.errors import MediaFileMissing, NotARegularFile, OutsideMediaRoots
from store.media_files import MediaFile, open_media_file

_MAX_REMEMBERED_FOLDERS = 4096
_NO_SUCH_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


class MediaRoots:
    """The folders whose files may be indexed and watched by path.

    A path is judged by where it really leads, symbolic links resolved. Workers judge again when
    they open the file, since links can change.

    Args:
        roots: absolute folders.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._given = tuple(roots)
        self._roots = tuple(os.path.realpath(root) for root in roots)
        self.contents = ContentChecks()

    def locate(self, uri: str, *, folders: "Folders | None" = None) -> Path:
        """Turn `file:///a/b.mp4` or `/a/b.mp4` into an absolute path under a root.

        Args:
            uri: what the client sent.
            folders: remembers resolved folders between calls, for many paths at once.

        Raises:
            ApiError: 422 invalid_request, no absolute path; 422 media_not_found, no way leads
                there; 403 outside_media_roots. Whether a file outside exists is not told.
        """
        path = path_of_uri(uri)
        try:
            real = (folders or Folders()).real_path(path)
        except ValueError:  # a name that no file can have
            real = None
        except OSError:  # a loop of links, say: this tells what
            return self.locate_file(uri)
        if real is None or not self.contains(real):
            raise _outside(uri)
        return Path(path)

    def locate_file(self, uri: str) -> Path:
        """As `locate`, and the file must be there.

        Raises:
            ApiError: also 422 media_not_found.
        """
        try:
            self.open(uri).close()
        except MediaFileMissing as error:
            raise ApiError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "media_not_found",
                f"{uri} cannot be read: {error.reason}.",
            ) from error
        except NotARegularFile as error:
            raise ApiError(
                HTTPStatus.UNPROCESSABLE_ENTITY, "media_not_found", f"{uri} is not a file."
            ) from error
        except OSError as error:
            raise ApiError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "media_not_found",
                f"{uri} cannot be read: {error.strerror or error}.",
            ) from error
        return Path(path_of_uri(uri))

    def open(self, uri: str) -> MediaFile:
        """Open a file under a root, once; links are followed as long as they lead under one.

        Raises:
            ApiError: 422 invalid_request, 403 outside_media_roots, as `locate`.
            MediaFileMissing, NotARegularFile: there is no file to read.
            OSError: it cannot be read now.
        """
        try:
            return open_media_file(path_of_uri(uri), self._given)
        except OutsideMediaRoots as error:
            raise _outside(uri) from error

    def contains(self, real_path: str) -> bool:
        """Whether a resolved path lies under a root."""
        return any(
            real_path.startswith(root if root.endswith("/") else root + "/") for root in self._roots
        )


class Folders:
    """Resolves many paths, each folder once: a batch has few folders and many files."""

    def __init__(self) -> None:
        self._real_of: dict[str, str] = {}

    def real_path(self, path: str) -> str:
        folder, name = os.path.split(path)
        if name in {"", ".", ".."}:
            return os.path.realpath(path)
        real_folder = self._real_of.get(folder)
        if real_folder is None:
            real_folder = os.path.realpath(folder)
            if len(self._real_of) < _MAX_REMEMBERED_FOLDERS:
                self._real_of[folder] = real_folder
        real = os.path.join(real_folder, name)  # noqa: PTH118  called 100,000 times in a request
        try:
            is_link = stat.S_ISLNK(os.lstat(real).st_mode)
        except OSError as error:
            if error.errno in _NO_SUCH_FILE:
                return real
            raise
        return os.path.realpath(real) if is_link else real


def path_of_uri(uri: str) -> str:
    """Read the absolute path out of a `file:` URI, or take an absolute path as it is.

    Raises:
        ApiError: 422 invalid_request, when it is neither.
    """
    path = uri
    if uri[:5].lower() == "file:":
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise _invalid_uri(uri) from error
        if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment:
            raise _invalid_uri(uri)
        path = unquote(parts.path, errors="surrogateescape")
    if not path.startswith("/") or "\0" in path or path.startswith("//"):
        raise _invalid_uri(uri)
    return path


def _outside(uri: str) -> ApiError:
    return ApiError(
        HTTPStatus.FORBIDDEN,
        "outside_media_roots",
        f"{uri} is not under any of the folders that this service may read.",
    )


def _invalid_uri(uri: str) -> ApiError:
    return ApiError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid_request",
        f"uri must be file:///an/absolute/path or /an/absolute/path, got {uri[:200]!r}.",
        errors=[{"field": "body.uri", "message": "neither a file: URI nor an absolute path"}],
    )
