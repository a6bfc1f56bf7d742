"""Take a new video in: hash, probe, thumbnails, row, and the job that will embed it.

A file is trusted with nothing: it is opened once, under the allowed roots only, and hashed and
probed by that descriptor, in a subprocess with limits. The same content is taken in once, however
many paths lead to it.

What may happen at the same time, and what comes of it:

- Two paths with one content: a lock of the content lets one worker make the row; the other then
  finds it, and its path is a copy.
- One path with two contents, in one batch or two: each job writes under a lock of the path, and
  only if the file is still the one that it hashed. So the rows follow each other as the files did.
- The video is deleted meanwhile: its content is new again, and the job makes a new row.
- It is superseded while it is embedded: the row is locked, so the clips are either there before and
  go with it, or the embed job finds it superseded and is cancelled.
- It is superseded while a search runs: the search has read its clips, and answers with them.
"""

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path, PurePath
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from clipbert.errors import (
    DecodeFailed,
    EmptyFile,
    MediaNotFound,
    NoVideoStream,
    ProbeTimeout,
    TruncatedMedia,
    UnsupportedMedia,
    VideoError,
)
from clipbert.video.decode import VideoProbe
from clipbert.video.probe_process import probe_in_subprocess
from store.blobs import STAGED
from store.database import Sessions
from store.errors import VideoNotFound
from store.idling import bear_idling
from store.jobs.state import JobKind
from store.media_files import is_settled
from store.videos.contents import hold_content, remove_unneeded_content, thumbnail_key
from store.videos.locations import GROWING, VideoLocations, seconds_growing
from store.videos.repository import VideoRepository
from store.videos.tables import Video, VideoState
from workers.child.context import WorkerContext
from workers.errors import JobError, MediaChanged, WorkerError
from workers.indexing.media import OpenMedia, name_in_uri, open_media
from workers.indexing.video_rows import (
    ContentInHand,
    Copy,
    Facts,
    Written,
    create_video,
    is_strict,
    link_video,
    location_of,
)
from workers.jobs.best_effort import best_effort
from workers.jobs.group import JobGroup
from workers.jobs.lease import Outcome, RunningJob
from workers.settings import WorkerSettings

log = structlog.get_logger(__name__)

_SAME_CONTENT_DELAY_SECONDS: Final = 1.0
_LOCK_MARGIN_SECONDS: Final = 60.0
_LEAST_DELAY_SECONDS: Final = 1.0
_MOST_DELAY: Final = 300.0
# Whatever limits or decoders a later version has, these bytes are no video: not worth keeping for
# a retry. Other failed uploads are kept for a while; workers.maintenance.sweeping says how long.
_NO_VIDEOS: Final = (EmptyFile, UnsupportedMedia, NoVideoStream, TruncatedMedia)


class _StillGrowing(WorkerError):
    """The file is being written to, or was a moment ago."""

    def __init__(self, media: OpenMedia) -> None:
        super().__init__(f"{media.name} is being written to")
        self.name, self.size_bytes = media.name, media.size_bytes


def ingest_next(context: WorkerContext) -> int:
    """Claim one due ingest job and do it. Returns how many were claimed: 1, or 0 if none is due."""
    group = JobGroup(context.leases)
    jobs = context.leases.claim([JobKind.INGEST], limit=1)
    group.add(jobs)
    for job in jobs:
        group.attempt(partial(_ingest_or_put_off, context, job, group), job)
    return len(jobs)


def _ingest_or_put_off(context: WorkerContext, job: RunningJob, group: JobGroup) -> None:
    """Do one job, or hand it back if now is not the time for it."""
    try:
        embed_is_due = _ingest(context, job)
    except ContentInHand:
        # When the other is done, this job finds its video.
        delay = _SAME_CONTENT_DELAY_SECONDS * (0.5 + random.random())  # noqa: S311  jitter
        context.leases.snooze(job, timedelta(seconds=delay))
    except _StillGrowing as growing:
        _look_again_later(context, job, growing)
    except _NO_VIDEOS as error:
        group.settle(job, error)
        _remove_unneeded_upload(context, job)
    else:
        if embed_is_due:
            context.doorbell.ring(JobKind.EMBED)
        else:
            _remove_unneeded_upload(context, job)


def _ingest(context: WorkerContext, job: RunningJob) -> bool:
    """Do one job. Returns whether it left an embed job."""
    location = location_of(job)
    try:
        with open_media(
            uri=location.uri,
            blob_key=location.blob_key,
            name=location.filename,
            roots=context.media_roots,
            blobs=context.blobs,
            on_piece=job.advance,
        ) as media:
            _check_settled(context, media)
            try:
                return _take_in(context, job, media)
            except MediaChanged as error:
                raise _StillGrowing(media) from error
            except VideoError as error:
                # Half a file is a broken one.
                with _growth_of(media):
                    media.check_in_place()
                raise error from None
    except MediaNotFound:
        if location.is_in_place:
            _note_missing(context, location.uri)
        raise


def _take_in(context: WorkerContext, job: RunningJob, media: OpenMedia) -> bool:
    """Store what an open file is. Returns whether that left an embed job."""
    if media.size_bytes == 0:
        raise EmptyFile(f"{media.name} is empty")
    sha256 = media.hash(on_piece=job.advance)
    media.check_in_place()
    facts = Facts(media, sha256, _moves_from(context, job, media, sha256))
    if _link_known(context, job, facts):
        return False
    limit_seconds = probe_limit_seconds(context.settings, media.size_bytes)
    # A probe that timed out is tried once more.
    with _content_lock(
        context.sessions, sha256, limit_seconds=2 * limit_seconds + _LOCK_MARGIN_SECONDS
    ):
        if _link_known(context, job, facts):
            return False
        job.advance()
        facts = replace(facts, probe=_probe(context, job, media, sha256))
        job.advance()
        _finish(context, job, partial(create_video, job=job, facts=facts))
    log.info("video.created", sha256=sha256, codec=facts.probe.codec if facts.probe else None)
    return True


def _check_settled(context: WorkerContext, media: OpenMedia) -> None:
    """Leave a file alone that was written to a moment ago: it may not be whole yet."""
    settle_ns = int(context.settings.settle_seconds * 1e9)
    if media.location is not None and not is_settled(media.status, for_ns=settle_ns):
        raise _StillGrowing(media)


@contextmanager
def _growth_of(media: OpenMedia) -> Iterator[None]:
    try:
        yield
    except MediaChanged as error:
        raise _StillGrowing(media) from error


def _look_again_later(context: WorkerContext, job: RunningJob, growing: _StillGrowing) -> None:
    """Hand a job back until its file may be whole; it costs no attempt, but not for ever."""
    settings = context.settings
    with context.sessions.begin() as session:
        waited = seconds_growing(session, job.claim.id)
    if waited > settings.growing_seconds:
        raise JobError(
            "media_growing",
            f"{growing.name} is still being written to after {settings.growing_seconds:.0f} s "
            "(WORKER_GROWING_SECONDS): index it when it is whole",
        )
    context.leases.add_event(job, GROWING, {"size_bytes": growing.size_bytes})
    delay = min(max(settings.settle_seconds, _LEAST_DELAY_SECONDS, waited / 2), _MOST_DELAY)
    context.leases.snooze(job, timedelta(seconds=delay))


def _note_missing(context: WorkerContext, uri: str) -> None:
    with context.sessions.begin() as session:
        locations = VideoLocations(session)
        locations.note_checked(
            there=[], missing=[video.id for video in locations.others_at(uri, "")]
        )


def _finish(context: WorkerContext, job: RunningJob, write: Callable[[Session], Written]) -> None:
    """Finish a job; then remove the tokens of what it has superseded."""
    tokens_keys: list[str] = []

    def write_outcome(session: Session) -> Outcome:
        written = write(session)
        tokens_keys[:] = written.tokens_keys
        return written.outcome

    context.leases.finish(job, write_outcome)
    for key in tokens_keys:
        try:
            context.blobs.delete(key)
        except OSError as error:  # the rows are gone; the sweep removes what is left behind
            log.warning("blob.not_deleted", key=key, error=repr(error))


def _moves_from(
    context: WorkerContext, job: RunningJob, media: OpenMedia, sha256: str
) -> dict[UUID, Copy | None]:
    """Find out where the content is of the videos that were said to lie where this file lies."""
    location = location_of(job)
    if not location.is_in_place:
        return {}
    with context.sessions.begin() as session:
        locations = VideoLocations(session)
        others = locations.others_at(location.uri, sha256)
        uris_of = {other.id: locations.copies_of(other.id, but=location.uri) for other in others}
    return {
        other.id: next(
            (
                copy
                for uri in uris_of[other.id]
                if (copy := _copy_at(context, job, uri, other)) is not None
            ),
            None,
        )
        for other in others
    }


def _copy_at(context: WorkerContext, job: RunningJob, uri: str, video: Video) -> Copy | None:
    """Check whether a video's content lies at a location."""
    try:
        with open_media(
            uri=uri,
            blob_key=None,
            name=name_in_uri(uri),
            roots=context.media_roots,
            blobs=context.blobs,
        ) as media:
            if video.size_bytes not in (None, media.size_bytes):
                return None
            if media.hash(on_piece=job.advance) != video.sha256:
                return None
            return Copy(uri, media.name, media.stamp)
    except (MediaNotFound, UnsupportedMedia, JobError):
        return None


def _link_known(context: WorkerContext, job: RunningJob, facts: Facts) -> bool:
    """Finish the job with the video that has this content already, if there is one."""
    with context.sessions.begin() as session:
        video = VideoRepository(session).find_by_sha256(facts.sha256)
    if video is None:
        return False
    is_moved = not _is_still_there(context, job, video, facts.media)
    write = partial(link_video, job=job, facts=facts, video_id=video.id, is_moved=is_moved)
    try:
        _finish(context, job, write)
    except VideoNotFound:
        return False  # deleted a moment ago: the content is new again
    return True


def _is_still_there(
    context: WorkerContext, job: RunningJob, video: Video, media: OpenMedia
) -> bool:
    """Whether a video's content is still where its row says; media is a file that has it."""
    if video.state == VideoState.SUPERSEDED:
        return False
    if video.blob_key is not None:
        return context.blobs.exists(video.blob_key)
    if media.location is not None and media.location.as_uri() == video.uri:
        return True
    return _copy_at(context, job, video.uri, video) is not None


def _remove_unneeded_upload(context: WorkerContext, job: RunningJob) -> None:
    """Remove the blob of a job that is over, unless its video or another job needs it."""
    blob_key = job.claim.input.get("blob_key")
    if blob_key is None:
        return
    with best_effort("blob.not_deleted", key=blob_key):  # the sweep removes it
        remove_unneeded_content(context.sessions, context.blobs, sha256=PurePath(blob_key).name)


def _probe(context: WorkerContext, job: RunningJob, media: OpenMedia, sha256: str) -> VideoProbe:
    """Probe the file in a subprocess and keep the thumbnails that come with it."""
    settings = context.settings
    limit_seconds = probe_limit_seconds(settings, media.size_bytes)
    staging = context.blobs.staging_folder()
    with tempfile.TemporaryDirectory(dir=staging, prefix=STAGED) as folder:
        poster, strip = Path(folder) / "poster.jpg", Path(folder) / "strip.jpg"

        def probe() -> VideoProbe:
            return probe_in_subprocess(
                media.path,
                poster=poster,
                strip=strip,
                name=media.name,
                strict=is_strict(job),
                timeout_seconds=limit_seconds,
                memory_bytes=settings.probe_memory_bytes,
                pass_fds=(media.descriptor,),
                on_wait=job.advance,
            )

        try:
            found = probe()
        except ProbeTimeout as error:
            # The machine may have been busy, or the file on a disk that had to start up.
            log.warning("probe.repeated", name=media.name, error=str(error))
            found = probe()
        if is_strict(job) and found.is_partial:
            raise DecodeFailed(
                f"of {media.name} only the first recording is read, more are joined to it, and "
                "strict was asked for"
            )
        for path in (poster, strip):
            if path.exists():
                context.blobs.put_file(thumbnail_key(sha256, path.name), path)
    return found


def probe_limit_seconds(settings: WorkerSettings, size_bytes: int) -> float:
    """Return the seconds that a probe may take: the base, and what reading the file may take."""
    return settings.probe_timeout_seconds + size_bytes / settings.probe_bytes_per_second


@contextmanager
def _content_lock(sessions: Sessions, sha256: str, *, limit_seconds: float) -> Iterator[None]:
    """Be the only one to take this content in.

    A lock of PostgreSQL that ends with its transaction, and so with its process: nothing to clean
    up after a crash. The transaction is open while the file is probed: seconds, not minutes.

    Raises:
        ContentInHand: another worker has the lock.
    """
    with sessions.begin() as session:
        # A worker that froze here gives the lock back long before somebody restarts it.
        bear_idling(session, seconds=limit_seconds)
        locked = session.scalar(
            text("SELECT pg_try_advisory_xact_lock(hashtextextended(:sha256, 0))"),
            {"sha256": sha256},
        )
        if not locked:
            raise ContentInHand(sha256)
        hold_content(session, sha256)  # the thumbnails come before the row
        yield
