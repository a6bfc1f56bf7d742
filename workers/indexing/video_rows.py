"""Write down what an ingest job found: a new video, or a location of one that is known.

Each is one transaction, with the job's end and the embed jobs that come next. It holds the lock of
the file's location and looks at the file once more, so that of two jobs with two contents of one
path the later content stays. Never imports torch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from clipbert.video.probed_video import VideoProbe
from policy.generations import embed_job, generations_in_use
from store.jobs.records import SINGLE_PRIORITY
from store.jobs.repository import JobRepository
from store.jobs.state import JobState
from store.lock_order import lock_videos
from store.videos.contents import hold_content
from store.videos.locations import VideoLocations
from store.videos.names import as_name
from store.videos.repository import VideoRepository
from store.videos.tables import Video, VideoState
from workers.errors import JobError, WorkerError
from workers.indexing.media import OpenMedia, name_in_uri
from workers.jobs.lease import Outcome, RunningJob

log = structlog.get_logger(__name__)

_PASSING_ERRORS: Final = ("cancelled", "media_not_found", "media_changed")


class ContentInHand(WorkerError):
    """Another worker is taking in the same content or location just now, or is giving it up."""


@dataclass(frozen=True)
class FileLocation:
    """Where a job says that its file is, and what it is called."""

    uri: str
    blob_key: str | None
    filename: str

    @property
    def is_in_place(self) -> bool:
        """Whether the file stays where it lies, under a media root."""
        return self.blob_key is None


@dataclass(frozen=True)
class Copy:
    """A location where a video's content lies too."""

    uri: str
    name: str
    stamp: str | None


@dataclass(frozen=True)
class Written:
    """What a job has written: its outcome, and the keys of tokens to remove after the commit."""

    outcome: Outcome
    tokens_keys: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """What is found out about a file before its row is written.

    Attributes:
        moves: where the content of videos is that were said to lie at the file's location, by their
            ids; None for a video whose content is no longer known anywhere.
        probe: None if the content is known already.
    """

    media: OpenMedia
    sha256: str
    moves: Mapping[UUID, Copy | None]
    probe: VideoProbe | None = None


def location_of(job: RunningJob) -> FileLocation:
    """Return where an ingest job says that its file is."""
    wanted = job.claim.input
    filename = as_name(wanted.get("filename") or name_in_uri(wanted.get("uri", "")))
    uri = wanted.get("uri") or f"upload:///{quote(filename)}"
    return FileLocation(uri, wanted.get("blob_key"), filename)


def is_strict(job: RunningJob) -> bool:
    """Whether a job refuses a video of which a part cannot be decoded."""
    return job.claim.input.get("strict") is True


def create_video(session: Session, *, job: RunningJob, facts: Facts) -> Written:
    """Write the row of a content that was not known, and the jobs that will embed it.

    Args:
        session: in the transaction that finishes the job.
        job: the job.
        facts: with the probe.

    Raises:
        MediaChanged: another content lies at the file's location by now.
        MediaNotFound: nothing does.
        ContentInHand: another job is at work on the location or the content.
    """
    wanted, location, probe = job.claim.input, location_of(job), facts.probe
    assert probe is not None  # noqa: S101  no input can break this
    others = _lock_location(session, job, facts)
    videos = VideoRepository(session)
    video, is_new = videos.create(
        uri=location.uri,
        sha256=facts.sha256,
        blob_key=location.blob_key,
        filename=location.filename,
        size_bytes=facts.media.size_bytes,
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
        damaged_spans=probe.damaged_spans,
        is_strict=is_strict(job),
        file_stamp=facts.media.stamp,
        tags=wanted.get("tags") or [],
        metadata=wanted.get("metadata") or {},
    )
    tokens_keys = _leave_location(session, facts, others, to=video.id, uri=location.uri)
    embed_job_id = _enqueue_embeds(session, job, video)
    outcome = _outcome(job, video, is_duplicate=not is_new, embed_job_id=embed_job_id)
    return Written(outcome, tokens_keys)


def link_video(
    session: Session, *, job: RunningJob, facts: Facts, video_id: UUID, is_moved: bool
) -> Written:
    """Add what a job says to the video that has its content: a location, tags, a wish to retry.

    Args:
        session: in the transaction that finishes the job.
        job: the job.
        facts: without a probe.
        video_id: the video.
        is_moved: its content is no longer where its row says.

    Raises:
        VideoNotFound: it was deleted meanwhile.
        JobError: `decode_failed`: it is damaged, and the job is strict.
        MediaChanged, MediaNotFound, ContentInHand: as create_video.
    """
    videos, location = VideoRepository(session), location_of(job)
    # Locked, or an embed job that ends at this moment would look as if there were none.
    others = _lock_location(session, job, facts, lock=[video_id])
    video = videos.get(video_id)
    if is_strict(job) and video.is_partial:
        spans = ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in video.damaged_spans)
        raise JobError(
            "decode_failed",
            f"{location.filename} is read in part only, and strict was asked for: "
            + (spans or "more recordings are joined to the first"),
        )
    if is_strict(job) and not video.is_strict:
        videos.ask_for_whole(video_id)
    # Superseded meanwhile: what is at hand is the only location known.
    is_moved = is_moved or video.state == VideoState.SUPERSEDED
    was_missing = video.missing_since is not None
    if is_moved:
        hold_content(session, video.sha256)  # the upload's, if this is one
        videos.relocate(
            video_id,
            uri=location.uri,
            blob_key=location.blob_key,
            filename=location.filename,
            file_stamp=facts.media.stamp,
        )
        video = videos.get(video_id)
    elif location.is_in_place and location.uri == video.uri:
        VideoLocations(session).keep_stamp(video_id, facts.media.stamp)
    # A video still without its clips gets their job again, unless it has one: then it gets that.
    is_waiting = video.state == VideoState.PROCESSING
    if video.state == VideoState.FAILED:
        # It is tried again if that was somebody else's wish or a file now found, or if this job was
        # asked for afterwards: so the copies of a bad file in one batch do not fail one by one.
        is_waiting = is_moved or was_missing or video.error_code in _PASSING_ERRORS
        is_waiting |= video.updated_at < job.claim.created_at
    videos.add_tags(video_id, job.claim.input.get("tags") or [])
    tokens_keys = _leave_location(session, facts, others, to=video_id, uri=location.uri)
    embed_job_id = _enqueue_embeds(session, job, video) if is_waiting else None
    outcome = _outcome(job, video, is_duplicate=True, embed_job_id=embed_job_id)
    return Written(outcome, tokens_keys)


def _lock_location(
    session: Session, job: RunningJob, facts: Facts, *, lock: Collection[UUID] = ()
) -> Sequence[UUID]:
    """Be the only one to say what lies at the file's location, and make sure that it still does.

    Args:
        session: of the transaction.
        job: the job.
        facts: of the file.
        lock: videos to be locked too.

    Returns:
        The videos whose content was said to lie there, locked.
    """
    location = location_of(job)
    if not location.is_in_place:
        facts.media.check_unwritten()
        lock_videos(session, lock)
        return []
    locations = VideoLocations(session)
    locations.lock(location.uri)
    # Under the lock: whoever was here before saw an older file, whoever comes later a newer one.
    facts.media.check_in_place()
    found = locations.others_at(location.uri, facts.sha256)
    lock_videos(session, {*lock, *(video.id for video in found)})
    # Again: what was being deleted is gone now.
    others = [video.id for video in locations.others_at(location.uri, facts.sha256)]
    if not facts.moves.keys() >= set(others):
        raise ContentInHand(location.uri)
    return others


def _leave_location(
    session: Session, facts: Facts, others: Sequence[UUID], *, to: UUID, uri: str
) -> Sequence[str]:
    """Make other videos leave a location: for a copy of theirs, or for good.

    Returns:
        The keys of tokens that are no longer needed.
    """
    if facts.media.location is None:
        return []
    videos, locations = VideoRepository(session), VideoLocations(session)
    superseded = []
    for video_id in others:
        copy = facts.moves[video_id]
        if copy is None:
            superseded.append(video_id)
            continue
        videos.relocate(
            video_id, uri=copy.uri, blob_key=None, filename=copy.name, file_stamp=copy.stamp
        )
    locations.forget_copies_at(uri, but=to)
    if not superseded:
        return []
    log.info("video.superseded", video_ids=[str(each) for each in superseded], by=str(to))
    return locations.supersede(superseded, by=to)


def _outcome(
    job: RunningJob, video: Video, *, is_duplicate: bool, embed_job_id: str | None
) -> Outcome:
    result = {
        "video_id": str(video.id),
        "filename": location_of(job).filename,  # a copy's: the video is found by it too
        "duplicate": is_duplicate,
        "embed_job_id": embed_job_id,
    }
    return Outcome(result, video_id=video.id)


def _enqueue_embeds(session: Session, job: RunningJob, video: Video) -> str | None:
    """Leave an embed job for each generation in use; return the id of the searched one's."""
    claim = job.claim
    embeds = [
        JobRepository(session).enqueue(
            embed_job(
                video.id,
                generation.id,
                priority=SINGLE_PRIORITY if claim.batch_id is None else claim.priority,
                api_key_id=claim.api_key_id,
                batch_id=claim.batch_id,
                strict=is_strict(job),
            )
        )
        for generation in generations_in_use(session)
    ]
    if any(embed.state == JobState.CANCELLING for embed in embeds):
        raise ContentInHand(video.sha256)  # when it is over, there is room for a new one
    return str(embeds[0].id) if embeds else None
