"""Whether a file in place still has the bytes that were indexed, found out by hashing it."""

import os
import threading
from collections import OrderedDict
from http import HTTPStatus
from typing import Final

from api.errors import ApiError
from store.media_files import MediaFile, hash_descriptor, is_settled, stamp_of
from store.videos.tables import Video

_MOST_AT_ONCE: Final = 2  # of the threads that answer requests
_WAIT_SECONDS: Final = 10.0
_MOST_REMEMBERED: Final = 4096


class ContentChecks:
    """Hashes files whose stamp is not the one noted, few at once, and remembers what came out."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(_MOST_AT_ONCE)
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, int, str], str] = OrderedDict()

    def is_same(self, file: MediaFile, video: Video) -> bool:
        """Whether an open file has the content of a video.

        Raises:
            ApiError: 503 media_being_checked, too many files are being hashed now.
        """
        if video.size_bytes not in {None, file.status.st_size}:
            return False
        key = (video.uri, file.status.st_dev, stamp_of(file.status))
        with self._lock:
            known = self._known.get(key)
        if known is None:
            known = self._hash(file)
            # What was hashed is one content only if nobody wrote meanwhile.
            if stamp_of(os.fstat(file.descriptor)) != key[2]:
                return False
            if is_settled(file.status):
                self._remember(key, known)
        return known == video.sha256

    def _hash(self, file: MediaFile) -> str:
        if not self._slots.acquire(timeout=_WAIT_SECONDS):
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "media_being_checked",
                "The file may have changed since it was indexed, and others are checked before it.",
                headers={"Retry-After": "10"},
            )
        try:
            return hash_descriptor(file.descriptor)
        finally:
            self._slots.release()

    def _remember(self, key: tuple[str, int, str], sha256: str) -> None:
        with self._lock:
            self._known[key] = sha256
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
