"""An embed job at work: how far its video is decoded, and what the model made of it."""

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from clipbert.errors import FrameDamaged
from clipbert.sampling.plan import Clip
from store.errors import VideoNotFound
from store.models.repository import GenerationRepository
from store.videos.records import NewClip
from store.videos.repository import VideoRepository
from workers.errors import CancelRequested
from workers.indexing.kept_clips import Encoded
from workers.indexing.media import OpenMedia
from workers.indexing.turns import Share
from workers.jobs.lease import Outcome, RunningJob
from workers.models.encoders import ClipFrames, ClipStream, Encoders
from workers.models.token_cache import tokens_key


@dataclass
class Passage:
    """A stretch of a video that is decoded in order; advanced by one thread at a time."""

    clips: deque[Clip]  # still to come
    frames: ClipStream
    position_seconds: float = 0.0
    is_at_work: bool = False


@dataclass(frozen=True)
class DamagedClip:
    """A clip that cannot be decoded, and why."""

    clip: Clip
    error: FrameDamaged


@dataclass(eq=False)
class VideoAtWork:
    """One embed job at work."""

    job: RunningJob
    video_id: UUID
    order: int  # in which the jobs were claimed
    share: Share
    encoders: Encoders
    begun_at: float
    kept_at: float
    stack: ExitStack = field(default_factory=ExitStack)
    media: OpenMedia | None = None
    keyframe_seconds: Sequence[float] = ()
    about: dict[str, Any] = field(default_factory=dict)  # what its clips are made from
    clips: list[Clip] = field(default_factory=list)  # those that are not damaged
    damaged_spans: list[tuple[float, float]] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    encoded: dict[int, Encoded] = field(default_factory=dict)  # by clip index
    num_kept: int = 0
    num_kept_before: int = 0  # by the workers before
    reported_at: float = 0.0
    is_open: bool = False  # whether its media are
    is_stored: bool = False

    @property
    def generation_id(self) -> UUID:
        """Whose clips are made."""
        return self.encoders.generation.id

    @property
    def level(self) -> int:
        """Which videos go before it and which after; lower is sooner."""
        return self.share.level(len(self.clips))

    @property
    def is_strict(self) -> bool:
        """Whether a damaged frame is to fail the job."""
        return self.job.claim.input.get("strict") is True

    @property
    def is_suspect(self) -> bool:
        """Whether it was lost with a worker and has not got further since."""
        return bool(self.job.claim.worker_losses) and len(self.encoded) <= self.num_kept_before

    @property
    def key(self) -> str:
        """Key of its tokens in the blobs."""
        return tokens_key(self.generation_id, self.video_id)

    def leave_out(self, damaged: Sequence[DamagedClip]) -> None:
        """Go on without the clips that cannot be decoded.

        Raises:
            FrameDamaged: no clip is left, or the job is strict and none may be left out.
        """
        gone = {each.clip.index for each in damaged}
        self.clips = [clip for clip in self.clips if clip.index not in gone]
        self.damaged_spans += [each.error.span for each in damaged]
        if self.is_strict or not self.clips:
            raise damaged[0].error

    def write(self, session: Session) -> Outcome:
        """Write the rows of its clips.

        Raises:
            CancelRequested: the video was deleted.
        """
        rows = [
            NewClip(
                index=index,
                start_seconds=clip.start_seconds,
                end_seconds=clip.end_seconds,
                instants=list(clip.instants),
                vector=self.encoded[clip.index][1].tolist(),
                tokens_key=self.key,
            )
            for index, clip in enumerate(self.clips)
        ]
        videos = VideoRepository(session)
        try:
            if self.damaged_spans:
                videos.note_damage(self.video_id, self.damaged_spans)
            videos.replace_clips(self.video_id, self.generation_id, clips=rows)
            # A video becomes searchable with its clips of the generation that searches use.
            active = GenerationRepository(session).active()
            if active is None or active.id == self.generation_id:
                videos.mark_ready(self.video_id)
        except VideoNotFound as error:
            # Deleted after its last pass, and so before its job heard that it is cancelled.
            raise CancelRequested(f"video {self.video_id} was deleted") from error
        return Outcome({"clips": len(rows)})

    def close(self) -> None:
        """Close the media, unless a thread reads them: then with the end of its turn."""
        if not self.share.num_at_work:
            self.passages.clear()
            self.stack.close()


@dataclass(frozen=True)
class DecodedClip:
    """A clip on its way to the model."""

    video: VideoAtWork
    clip: Clip
    frames: ClipFrames
    decoded_at: float

    @property
    def cost(self) -> float:
        """Megapixels that the model's CNN sees."""
        return self.video.encoders.cost(self.frames)
