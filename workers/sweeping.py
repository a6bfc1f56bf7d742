"""Remove the blobs that no row needs: what a process left that was killed between blob and row.

Rung by beat now and then. The blobs of models are left alone.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import chain, islice
from pathlib import PurePath
from typing import Final
from uuid import UUID

import structlog

from store.contents import MEDIA, THUMBNAILS, TOKENS, media_key, remove_unneeded_content
from store.videos import VideoRepository
from workers.lifecycle import Workplace

log = structlog.get_logger(__name__)

_CHUNK: Final = 500
_RETRYABLE_FOR: Final = timedelta(days=7)
"""How long a job that failed or was cancelled can be retried with the upload it came with."""


def sweep_blobs(workplace: Workplace) -> None:
    """Remove uploads, thumbnails and tokens that belong to no video and no job."""
    for sha256 in chain(_uploads_without_video(workplace), _thumbnails_without_video(workplace)):
        remove_unneeded_content(
            workplace.sessions, workplace.blobs, sha256, retryable_for=_RETRYABLE_FOR
        )
    for key in _tokens_without_video(workplace):
        workplace.blobs.delete(key)
        log.info("blob.swept", key=key)


def _uploads_without_video(workplace: Workplace) -> Iterator[str]:
    sha256s = (PurePath(key).name for key in workplace.blobs.keys(MEDIA))
    while chunk := set(islice(sha256s, _CHUNK)):
        with workplace.sessions.begin() as session:
            used = VideoRepository(session).blob_keys(chunk)
        # A video that is indexed in place may have been uploaded too.
        yield from (sha256 for sha256 in chunk if used.get(sha256) != media_key(sha256))


def _thumbnails_without_video(workplace: Workplace) -> Iterator[str]:
    sha256s = (PurePath(key).parent.name for key in workplace.blobs.keys(THUMBNAILS))
    while chunk := set(islice(sha256s, _CHUNK)):
        with workplace.sessions.begin() as session:
            known = VideoRepository(session).blob_keys(chunk)
        yield from chunk - known.keys()


def _tokens_without_video(workplace: Workplace) -> Iterator[str]:
    keys = iter(workplace.blobs.keys(TOKENS))
    while chunk := list(islice(keys, _CHUNK)):
        by_id: dict[UUID, list[str]] = {}
        for key in chunk:
            with suppress(ValueError):  # not named by us
                by_id.setdefault(UUID(PurePath(key).stem), []).append(key)
        with workplace.sessions.begin() as session:
            known = VideoRepository(session).existing(by_id)
        for video_id in by_id.keys() - known:
            yield from by_id[video_id]
