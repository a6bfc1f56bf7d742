"""Look at new videos: decode their clips, run the CNN, store tokens and recall vectors.

Several videos share the forward passes. Decoding runs in threads ahead of the model. A video that
cannot be decoded fails alone. Between two passes, searches and questions are served, so that
nobody waits for a bulk of videos.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID

import structlog
import torch
from sqlalchemy.orm import Session
from torch import Tensor

from clipbert.errors import ClipBertError, DecodeFailed
from clipbert.sampling import Clip, SamplingPlan, plan_clips
from clipbert.video.decode import VideoProbe, probe_video
from store.errors import VideoNotFound
from store.job_state import JobKind
from store.models import GenerationRepository
from store.videos import NewClip, VideoRepository
from workers.batching import CostLimit, batches_by_cost, forward_each
from workers.encoders import ClipFrames, Encoders, open_encoders
from workers.errors import CancelRequested, Interrupted, JobError
from workers.generations import is_in_use
from workers.interactive import serve_interactive
from workers.lease import Hold, Outcome
from workers.lifecycle import Workplace, leave_if_device_lost, leave_process
from workers.media import OpenMedia, open_video_media
from workers.token_cache import put_tokens, tokens_key

log = structlog.get_logger(__name__)

_CLIPS_PER_DECODE: Final = 4  # few, so that a long video's decoding is spread over the threads
_DECODE_WAIT_SECONDS: Final = 0.1  # how long a question may wait for a slow decode
_PROGRESS_SECONDS: Final = 0.5


@dataclass
class _Video:
    """One embed job at work."""

    hold: Hold
    video_id: UUID
    media: OpenMedia
    clips: list[Clip]
    tokens: dict[int, Tensor] = field(default_factory=dict)  # (h, w, D) float16 by clip index
    vectors: dict[int, Tensor] = field(default_factory=dict)  # (R,) float32 by clip index
    reported_at: float = 0.0
    is_open: bool = True


@dataclass(frozen=True)
class _Piece:
    """A decoded clip on its way to the model."""

    video: _Video
    clip: Clip
    frames: ClipFrames


def embed_next(workplace: Workplace) -> int:
    """Claim some due embed jobs and do them together. Returns how many were claimed."""
    serve_interactive(workplace)
    holds = workplace.leases.claim([JobKind.EMBED], limit=workplace.settings.embed_claim_limit)
    by_generation: dict[UUID, list[Hold]] = {}
    for hold in holds:
        try:
            generation_id = UUID(hold.claim.input["generation_id"])
        except (KeyError, TypeError, ValueError) as error:
            workplace.leases.settle(hold, JobError("invalid_request", f"no generation: {error!r}"))
        else:
            by_generation.setdefault(generation_id, []).append(hold)
    for generation_id, group in by_generation.items():
        embed_together(workplace, generation_id, group, claimed=holds)
    return len(holds)


def embed_together(
    workplace: Workplace, generation_id: UUID, holds: Sequence[Hold], *, claimed: Sequence[Hold]
) -> None:
    """Do embed jobs of one generation, each with its own outcome.

    Args:
        workplace: of this process.
        generation_id: of all of them.
        holds: the jobs.
        claimed: these and others that wait for their turn, whose leases are kept meanwhile.
    """
    run = _Run(workplace, generation_id, claimed)
    try:
        with ExitStack() as stack:
            with workplace.sessions.begin() as session:
                in_use = is_in_use(GenerationRepository(session).get(generation_id))
            if not in_use:
                for hold in holds:  # a newer one took its place, and has its own jobs
                    workplace.leases.finish(hold, lambda _: Outcome({"clips": 0}))
                return
            run.encoders = open_encoders(workplace, generation_id)
            pool = ThreadPoolExecutor(workplace.settings.decode_threads, "decode")
            # Not waited for: a thread may hang in a decoder.
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            videos = [video for hold in holds if (video := run.open(hold, stack)) is not None]
            run.embed(videos, pool)
    except Exception as error:  # noqa: BLE001  what concerns all jobs alike; settle logs it
        for hold in holds:
            run.settle(hold, error)
        leave_if_device_lost(error)
    if run.has_stuck_thread:
        leave_process("decode.stuck")


class _Run:
    """Embed jobs of one generation that share their forward passes."""

    encoders: Encoders

    def __init__(self, workplace: Workplace, generation_id: UUID, claimed: Sequence[Hold]) -> None:
        self.workplace = workplace
        self.generation_id = generation_id
        self.has_stuck_thread = False
        self._claimed = claimed
        self._settled: set[UUID] = set()

    def open(self, hold: Hold, stack: ExitStack) -> _Video | None:
        """Find a job's media and plan its clips; None if that already settled the job."""
        try:
            self._advance(hold)
            with self.workplace.sessions.begin() as session:
                row = VideoRepository(session).get(UUID(hold.claim.input["video_id"]))
            media = stack.enter_context(
                open_video_media(
                    row,
                    roots=self.workplace.media_roots,
                    blobs=self.workplace.blobs,
                    on_piece=partial(self._advance, hold),
                )
            )
            plan = SamplingPlan.from_json(self.encoders.generation.plan)
            # The authors' plan computes with every frame's timestamp, which the row does not keep.
            probe = (
                probe_video(media.path)
                if plan.name == "authors"
                else VideoProbe.from_json(row.probe)
            )
            return _Video(hold, row.id, media, plan_clips(probe, plan))
        except VideoNotFound as error:
            self.settle(hold, JobError("video_not_found", str(error)))
        except Exception as error:  # noqa: BLE001  the edge of a job: settle logs it
            self.settle(hold, error)
        return None

    def embed(self, videos: Sequence[_Video], pool: ThreadPoolExecutor) -> None:
        """Run all clips of the videos through the model and finish each video after its last."""
        for video in videos:
            self._report(video)
        limit = self.workplace.forward_limit
        for pieces in batches_by_cost(self._decoded(videos, pool), self._cost, limit):
            self._forward(pieces, limit)
            serve_interactive(self.workplace)

    def settle(self, hold: Hold, error: BaseException) -> None:
        """Give a job its outcome, once."""
        if hold.claim.id in self._settled:
            return
        self._settled.add(hold.claim.id)
        self.workplace.leases.settle(hold, error)

    def _forward(self, pieces: Sequence[_Piece], limit: CostLimit) -> None:
        pieces = [piece for piece in pieces if self._goes_on(piece.video)]
        outcomes = forward_each(
            pieces,
            lambda some: self.encoders.encode([piece.frames for piece in some]),
            on_out_of_memory=lambda batch: limit.lower_below(sum(map(self._cost, batch))),
        )
        for piece, outcome in zip(pieces, outcomes, strict=True):
            video = piece.video
            if isinstance(outcome, Exception):
                self._close(video, outcome)
                continue
            video.tokens[piece.clip.index], video.vectors[piece.clip.index] = outcome
        for video in {piece.video.hold.claim.id: piece.video for piece in pieces}.values():
            if self._goes_on(video):
                self._report(video)
                if len(video.tokens) == len(video.clips):
                    self._finish(video)

    def _finish(self, video: _Video) -> None:
        """Store a video's clips: the blob first, the rows and the job's end in one transaction."""
        video.is_open = False
        key = tokens_key(self.generation_id, video.video_id)
        order = range(len(video.clips))
        try:
            video.media.check_unwritten()  # or its clips would be of two contents
            tokens = torch.stack([video.tokens[index] for index in order])  # (K, h, w, D)
            put_tokens(self.workplace.blobs, key, tokens)
            rows = [
                NewClip(
                    index=clip.index,
                    start_seconds=clip.start_seconds,
                    end_seconds=clip.end_seconds,
                    instants=list(clip.instants),
                    vector=video.vectors[clip.index].tolist(),
                    tokens_key=key,
                )
                for clip in video.clips
            ]
            self.workplace.leases.finish(
                video.hold, partial(_write_clips, video.video_id, self.generation_id, rows)
            )
            self._settled.add(video.hold.claim.id)
        except VideoNotFound:
            # Deleted after its last chunk, and so before its job heard that it is cancelled.
            self.workplace.blobs.delete(key)
            self.settle(video.hold, CancelRequested(f"video {video.video_id} was deleted"))
        except Exception as error:  # noqa: BLE001  the edge of a job: settle logs it
            self.settle(video.hold, error)

    def _decoded(self, videos: Sequence[_Video], pool: ThreadPoolExecutor) -> Iterator[_Piece]:
        """Yield the clips in order, while threads decode a few clips ahead."""
        waiting: deque[tuple[_Video, list[Clip], Future[list[ClipFrames]]]] = deque()
        ahead = self.workplace.settings.decode_threads + 1
        todo = _parts(videos)
        while True:
            while len(waiting) < ahead and (part := next(todo, None)) is not None:
                video, clips = part
                if video.is_open:
                    decoding = pool.submit(self.encoders.decode, video.media.path, clips)
                    waiting.append((video, clips, decoding))
            if not waiting:
                return
            video, clips, future = waiting.popleft()
            if not video.is_open:
                future.cancel()
                continue
            try:
                frames = self._wait_for(future)
                for hold in self._claimed:  # those whose turn is later advance too
                    hold.touch()
            except Exception as error:  # noqa: BLE001  the edge of a job: settle logs it
                self._close(video, error)
                continue
            for clip, clip_frames in zip(clips, frames, strict=True):
                yield _Piece(video, clip, clip_frames)

    def _wait_for(self, future: Future[list[ClipFrames]]) -> list[ClipFrames]:
        """Wait for a decode and meanwhile serve whoever asks."""
        give_up_at = time.monotonic() + self.workplace.settings.stall_seconds / 2
        while True:
            wait([future], timeout=_DECODE_WAIT_SECONDS)
            if future.done():
                return future.result()
            serve_interactive(self.workplace)
            if time.monotonic() > give_up_at:
                self.has_stuck_thread = not future.cancel()
                raise DecodeFailed("decoding took too long")

    def _advance(self, hold: Hold) -> None:
        """Note that a job's work advances, for those too that wait for their turn meanwhile."""
        for claimed in self._claimed:
            claimed.touch()
        hold.advance()

    def _goes_on(self, video: _Video) -> bool:
        """Note that the work advances; close the video if its job should not go on."""
        if video.is_open:
            try:
                video.hold.advance()
            except Interrupted as interruption:
                self._close(video, interruption)
        return video.is_open

    def _close(self, video: _Video, error: BaseException) -> None:
        video.is_open = False
        video.tokens.clear()
        if isinstance(error, ClipBertError):
            error = video.media.with_name(error)
        self.settle(video.hold, error)

    def _cost(self, piece: _Piece) -> float:
        return self.encoders.cost(piece.frames)

    def _report(self, video: _Video) -> None:
        now = time.monotonic()
        if now - video.reported_at < _PROGRESS_SECONDS:
            return
        video.reported_at = now
        try:
            self.workplace.leases.report_progress(
                video.hold, done=len(video.tokens), total=len(video.clips), stage="embedding"
            )
        except Interrupted as interruption:
            self._close(video, interruption)


def _write_clips(
    video_id: UUID, generation_id: UUID, rows: Sequence[NewClip], session: Session
) -> Outcome:
    videos = VideoRepository(session)
    videos.replace_clips(video_id, generation_id, rows)
    # A video becomes searchable with its clips of the generation that searches use.
    active = GenerationRepository(session).active()
    if active is None or active.id == generation_id:
        videos.mark_ready(video_id)
    return Outcome({"clips": len(rows)})


def _parts(videos: Sequence[_Video]) -> Iterator[tuple[_Video, list[Clip]]]:
    for video in videos:
        for begin in range(0, len(video.clips), _CLIPS_PER_DECODE):
            yield video, video.clips[begin : begin + _CLIPS_PER_DECODE]
