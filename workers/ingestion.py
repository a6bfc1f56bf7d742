"""Take a new video in: hash, probe, thumbnails, row, and the job that will embed it.

A file is trusted with nothing: it is opened under the allowed roots only and probed in a subprocess
with limits. The same content is taken in once, however many paths lead to it.
"""

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePath
from typing import Final
from urllib.parse import quote
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from clipbert.errors import (
    ClipBertError,
    EmptyFile,
    MediaNotFound,
    NoVideoStream,
    TruncatedMedia,
    UnsupportedMedia,
)
from clipbert.probe import probe_in_subprocess
from clipbert.video.decode import VideoProbe
from store.blobs import STAGED
from store.contents import hold_content, remove_unneeded_content, thumbnail_key
from store.database import Sessions
from store.errors import VideoNotFound
from store.job_records import SINGLE_PRIORITY
from store.job_state import JobKind, JobState
from store.jobs import JobRepository
from store.tables import Video, VideoState
from store.videos import VideoRepository
from workers.errors import JobError, WorkerError
from workers.generations import embed_job, generations_in_use
from workers.lease import Hold, Outcome
from workers.lifecycle import Workplace
from workers.media import OpenMedia, hash_file, name_in_uri, open_media

log = structlog.get_logger(__name__)

_SAME_CONTENT_DELAY_SECONDS: Final = 1.0
_LOCK_MARGIN_SECONDS: Final = 60.0
_PASSING_ERRORS: Final = ("cancelled", "media_not_found")
# Whatever limits or decoders a later version has, these bytes are no video: not worth keeping for
# a retry. Other failed uploads are kept for a while; workers.sweeping says how long.
_NO_VIDEOS: Final = (EmptyFile, UnsupportedMedia, NoVideoStream, TruncatedMedia)


class _ContentInHand(WorkerError):
    """Another worker is taking the same content in at this moment, or is giving it up."""


@dataclass(frozen=True)
class _Place:
    """Where a job says that its file is, and what it is called."""

    uri: str
    blob_key: str | None
    filename: str


@dataclass(frozen=True)
class _Facts:
    """What is found out about a file before its row is written."""

    sha256: str
    size_bytes: int
    probe: VideoProbe


def ingest_next(workplace: Workplace) -> int:
    """Claim one due ingest job and do it. Returns how many were claimed: 1, or 0 if none is due."""
    holds = workplace.leases.claim([JobKind.INGEST], limit=1)
    for hold in holds:
        try:
            embed_is_due = _ingest(workplace, hold)
        except _ContentInHand:
            # When the other is done, this job finds its video.
            delay = _SAME_CONTENT_DELAY_SECONDS * (0.5 + random.random())  # noqa: S311  jitter
            workplace.leases.snooze(hold, timedelta(seconds=delay))
        except Exception as error:  # noqa: BLE001  the edge of a job: settle logs it
            workplace.leases.settle(hold, error)
            if isinstance(error, _NO_VIDEOS):
                _remove_unneeded_upload(workplace, hold)
        else:
            if embed_is_due:
                workplace.doorbell.ring(JobKind.EMBED)
            else:
                _remove_unneeded_upload(workplace, hold)
    return len(holds)


def _ingest(workplace: Workplace, hold: Hold) -> bool:
    """Do one job. Returns whether it left an embed job."""
    place = _place_of(hold)
    with open_media(
        uri=place.uri,
        blob_key=place.blob_key,
        name=place.filename,
        roots=workplace.media_roots,
        blobs=workplace.blobs,
        on_piece=hold.advance,
    ) as media:
        if media.size_bytes == 0:
            raise EmptyFile(f"{media.name} is empty")
        sha256 = hash_file(media.path, on_piece=hold.advance)
        media.check_unchanged()
        if _link_known(workplace, hold, media, sha256):
            return False
        limit_seconds = workplace.settings.probe_timeout_seconds + _LOCK_MARGIN_SECONDS
        with _content_lock(workplace.sessions, sha256, limit_seconds=limit_seconds):
            if _link_known(workplace, hold, media, sha256):
                return False
            hold.advance()
            facts = _Facts(sha256, media.size_bytes, _probe(workplace, media, sha256))
            media.check_unchanged()
            hold.advance()
            workplace.leases.finish(hold, lambda session: _create_video(session, hold, facts))
    log.info("video.created", sha256=sha256, codec=facts.probe.codec)
    return True


def _place_of(hold: Hold) -> _Place:
    wanted = hold.claim.input
    filename = wanted.get("filename") or name_in_uri(wanted.get("uri", ""))
    uri = wanted.get("uri") or f"upload:///{quote(filename)}"
    return _Place(uri, wanted.get("blob_key"), filename)


def _link_known(workplace: Workplace, hold: Hold, media: OpenMedia, sha256: str) -> bool:
    """Finish the job with the video that has this content already, if there is one."""
    with workplace.sessions.begin() as session:
        video = VideoRepository(session).find_by_sha256(sha256)
    if video is None:
        return False
    is_moved = not _is_still_there(workplace, hold, video, media)
    try:
        workplace.leases.finish(
            hold, lambda session: _link_video(session, hold, video.id, is_moved=is_moved)
        )
    except VideoNotFound:
        return False  # deleted a moment ago: the content is new again
    return True


def _is_still_there(workplace: Workplace, hold: Hold, video: Video, media: OpenMedia) -> bool:
    """Tell whether a video's content is still where its row says; media is a file that has it."""
    if video.blob_key is not None:
        return workplace.blobs.exists(video.blob_key)
    try:
        with open_media(
            uri=video.uri,
            blob_key=None,
            name=media.name,
            roots=workplace.media_roots,
            blobs=workplace.blobs,
        ) as stored:
            if stored.path == media.path:
                return True
            return hash_file(stored.path, on_piece=hold.advance) == video.sha256
    except (MediaNotFound, UnsupportedMedia, JobError):
        return False


def _link_video(session: Session, hold: Hold, video_id: UUID, *, is_moved: bool) -> Outcome:
    videos = VideoRepository(session)
    # Locked, or an embed job that ends at this moment would look as if there were none.
    video = videos.lock(video_id)
    if is_moved:
        place = _place_of(hold)
        hold_content(session, video.sha256)  # the upload's, if this is one
        videos.relocate(video_id, uri=place.uri, blob_key=place.blob_key, filename=place.filename)
    # A video still without its clips gets their job again, unless it has one: then it gets that.
    is_waiting = video.state == VideoState.PROCESSING
    if video.state == VideoState.FAILED:
        # It is tried again if that was somebody else's wish or a file now found, or if this job was
        # asked for afterwards: so the copies of a bad file in one batch do not fail one by one.
        is_waiting = is_moved or video.error_code in _PASSING_ERRORS
        is_waiting |= video.updated_at < hold.claim.created_at
    videos.add_tags(video_id, hold.claim.input.get("tags") or [])
    embed_job_id = _enqueue_embeds(session, hold, video) if is_waiting else None
    return _outcome(hold, video, is_duplicate=True, embed_job_id=embed_job_id)


def _create_video(session: Session, hold: Hold, facts: _Facts) -> Outcome:
    wanted, place, probe = hold.claim.input, _place_of(hold), facts.probe
    video, is_new = VideoRepository(session).create(
        uri=place.uri,
        sha256=facts.sha256,
        blob_key=place.blob_key,
        filename=place.filename,
        size_bytes=facts.size_bytes,
        duration_seconds=probe.duration_seconds,
        width=probe.width,
        height=probe.height,
        frames_per_second=probe.average_fps,
        num_frames=probe.num_frames,
        codec=probe.codec,
        container=probe.container,
        rotation_degrees=probe.rotation_degrees,
        is_still=probe.is_still,
        probe=probe.to_json(),
        tags=wanted.get("tags") or [],
        metadata=wanted.get("metadata") or {},
    )
    embed_job_id = _enqueue_embeds(session, hold, video)
    return _outcome(hold, video, is_duplicate=not is_new, embed_job_id=embed_job_id)


def _outcome(hold: Hold, video: Video, *, is_duplicate: bool, embed_job_id: str | None) -> Outcome:
    result = {
        "video_id": str(video.id),
        "filename": _place_of(hold).filename,  # a copy's: the video is found by it too
        "duplicate": is_duplicate,
        "embed_job_id": embed_job_id,
    }
    return Outcome(result, video_id=video.id)


def _enqueue_embeds(session: Session, hold: Hold, video: Video) -> str | None:
    """Leave an embed job for each generation in use; give the id of the searched one's."""
    claim = hold.claim
    jobs = [
        JobRepository(session).enqueue(
            embed_job(
                video.id,
                generation.id,
                priority=SINGLE_PRIORITY if claim.batch_id is None else claim.priority,
                api_key_id=claim.api_key_id,
                batch_id=claim.batch_id,
            )
        )
        for generation in generations_in_use(session)
    ]
    if any(job.state == JobState.CANCELLING for job in jobs):
        raise _ContentInHand(video.sha256)  # when it is over, there is room for a new one
    return str(jobs[0].id) if jobs else None


def _remove_unneeded_upload(workplace: Workplace, hold: Hold) -> None:
    """Remove the blob of a job that is over, unless its video or another job needs it."""
    blob_key = hold.claim.input.get("blob_key")
    if blob_key is None:
        return
    try:
        remove_unneeded_content(workplace.sessions, workplace.blobs, PurePath(blob_key).name)
    except Exception as error:  # noqa: BLE001  the job is over; the sweep removes it
        log.warning("blob.not_deleted", key=blob_key, error=repr(error))


def _probe(workplace: Workplace, media: OpenMedia, sha256: str) -> VideoProbe:
    """Probe the file in a subprocess and keep the thumbnails that come with it."""
    staging = workplace.blobs.staging_folder()
    with tempfile.TemporaryDirectory(dir=staging, prefix=STAGED) as folder:
        poster, strip = Path(folder) / "poster.jpg", Path(folder) / "strip.jpg"
        try:
            probe = probe_in_subprocess(
                media.path,
                poster=poster,
                strip=strip,
                timeout_seconds=workplace.settings.probe_timeout_seconds,
                memory_bytes=workplace.settings.probe_memory_bytes,
            )
        except ClipBertError as error:
            raise media.with_name(error) from error
        for path in (poster, strip):
            if path.exists():
                workplace.blobs.put_file(thumbnail_key(sha256, path.name), path)
    return probe


@contextmanager
def _content_lock(sessions: Sessions, sha256: str, *, limit_seconds: float) -> Iterator[None]:
    """Be the only one to take this content in.

    A lock of PostgreSQL that ends with its transaction, and so with its process: nothing to clean
    up after a crash. The transaction is open while the file is probed: seconds, not minutes.

    Raises:
        _ContentInHand: another worker has the lock.
    """
    with sessions.begin() as session:
        # A worker that froze here gives the lock back long before somebody restarts it.
        session.execute(
            text("SELECT set_config('idle_in_transaction_session_timeout', :limit, true)"),
            {"limit": f"{limit_seconds * 1000:.0f}"},
        )
        locked = session.scalar(
            text("SELECT pg_try_advisory_xact_lock(hashtextextended(:sha256, 0))"),
            {"sha256": sha256},
        )
        if not locked:
            raise _ContentInHand(sha256)
        hold_content(session, sha256)  # the thumbnails come before the row
        yield
