"""Look at new videos: decode their clips, run the CNN, store tokens and recall vectors.

Videos of several jobs are under way side by side. Threads open them (which may be a download),
decode them and store what was made; each thread does a turn of a fraction of a second for the
video whose turn it is (workers.indexing.turns). Clips go through the model as they come, those of
several videos in one pass of a quarter of a second. Between two passes people are served, and new
jobs are claimed, so that a small video overtakes one of ten hours.

A video is decoded in passages (workers.indexing.passages), each in one go, so that one with a
single keyframe is decoded once. It may take longer than a task is allowed to, and so goes on from
one look to the next: what is under way belongs to the process, not to the look.

Clips that are finished are kept (workers.indexing.kept_clips): the loss of a worker costs the work
since then, and of a video with few keyframes the decoding up to there.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NoReturn, TypeVar
from uuid import UUID

import structlog
import torch
from sqlalchemy.orm import Session

from clipbert.errors import DecodeFailed, FrameDamaged
from clipbert.sampling.plan import Clip, SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import VideoProbe, probe_video
from policy.generations import is_in_use
from store.database import run_in_transaction
from store.errors import VideoNotFound
from store.jobs.pieces import JobPieces
from store.jobs.state import JobKind
from store.models.repository import GenerationRepository
from store.videos.repository import NewClip, VideoRepository
from workers.answering.interactive import InteractiveDesk, serve_between
from workers.child.workplace import Workplace
from workers.errors import CancelRequested, JobError
from workers.indexing.cores import usable_cores
from workers.indexing.kept_clips import Encoded, about_clips, pack_clips, read_kept_clips
from workers.indexing.media import OpenMedia, open_video_media
from workers.indexing.passages import part_into_passages, seconds_to_decode
from workers.indexing.turns import Share
from workers.jobs.batching import CostLimit, batches_by_cost, forward_each
from workers.jobs.group import JobGroup, leave_process
from workers.jobs.lease import Hold, Outcome
from workers.models.encoders import ClipFrames, ClipStream, Encoders, open_encoders
from workers.models.loaded_models import LoadedModels
from workers.models.token_cache import put_tokens, tokens_key

log = structlog.get_logger(__name__)

Value = TypeVar("Value")

_TURN_SECONDS: Final = 0.2  # of a thread for one video, or one clip if that takes longer
_WAIT_SECONDS: Final = 0.05  # for a thread, before people are served again
_GATHER_SECONDS: Final = 0.3  # that a clip waits for others to share its pass
_CLAIM_SECONDS: Final = 0.5
_PROGRESS_SECONDS: Final = 0.5
_SHORT_SECONDS: Final = 5.0  # a video that is under way for longer does not keep new ones out
_MOST_LONG: Final = 4  # times as many videos as are claimed at once may be under way
# A decoder that needs longer than this for each second of a video is taken for hung.
_SECONDS_PER_SECOND: Final = 4.0


@dataclass
class _Passage:
    """A stretch of a video that is decoded in order; advanced by one thread at a time."""

    clips: deque[Clip]  # still to come
    frames: ClipStream
    position_seconds: float = 0.0
    is_at_work: bool = False


@dataclass(eq=False)
class _Video:
    """One embed job at work."""

    hold: Hold
    video_id: UUID
    place: int  # in the order in which the jobs were claimed
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
    passages: list[_Passage] = field(default_factory=list)
    encoded: dict[int, Encoded] = field(default_factory=dict)  # by clip index
    num_kept: int = 0
    num_kept_before: int = 0  # by the workers before
    reported_at: float = 0.0
    is_open: bool = False  # whether its media are
    is_stored: bool = False

    @property
    def generation_id(self) -> UUID:
        return self.encoders.generation.id

    @property
    def level(self) -> int:
        """Which videos go before it and which after; lower is sooner."""
        return self.share.level(len(self.clips))

    @property
    def is_strict(self) -> bool:
        """Whether a damaged frame is to fail the job."""
        return self.hold.claim.input.get("strict") is True

    @property
    def is_suspect(self) -> bool:
        """Whether it was lost with a worker and has not got further yet."""
        return bool(self.hold.claim.worker_losses) and len(self.encoded) <= self.num_kept_before

    @property
    def key(self) -> str:
        return tokens_key(self.generation_id, self.video_id)

    def close(self) -> None:
        """Close the media, unless a thread reads them: then with the end of its turn."""
        if not self.share.num_at_work:
            self.passages.clear()
            self.stack.close()


@dataclass(frozen=True)
class _Piece:
    """A decoded clip on its way to the model."""

    video: _Video
    clip: Clip
    frames: ClipFrames
    decoded_at: float


@dataclass(frozen=True)
class _Damaged:
    """A clip that cannot be decoded, and why."""

    clip: Clip
    error: FrameDamaged


_Decoded = _Piece | _Damaged


@dataclass(eq=False)
class _Turn:
    """What a thread does for a video, in one go.

    Attributes:
        budget_seconds: it is taken for hung when it has run for so long since it got further.
        advanced_at: when it began or got further, as the thread itself says; None before that.
    """

    video: _Video
    budget_seconds: float
    passage: _Passage | None = None
    advanced_at: float | None = None
    begun_at: float = field(default_factory=time.monotonic)

    def advance(self) -> None:
        """Say, in the thread, that it gets further."""
        self.advanced_at = time.monotonic()

    def is_late(self) -> bool:
        """Whether it has not got further for too long; asked of one that is not done."""
        advanced_at = self.advanced_at
        if advanced_at is None:  # its own time has not begun
            return False
        return time.monotonic() - advanced_at > self.budget_seconds


def embed_next(workplace: Workplace) -> int:
    """Claim due embed jobs and do them until none is left, or for as long as a look lasts.

    Returns:
        How many were claimed; more than none if one is under way still.
    """
    return workplace.own(Embedder).work(workplace.settings.look_seconds)


class Embedder:
    """The videos that a process has begun to look at.

    Args:
        workplace: of the process.
        leave: ends the process; a test passes its own.
    """

    def __init__(
        self,
        workplace: Workplace,
        *,
        leave: Callable[[str, BaseException | None], NoReturn] = leave_process,
    ) -> None:
        self._workplace = workplace
        self._group = JobGroup(workplace.leases, keep=self.keep, leave=leave)
        self._num_threads = workplace.settings.decode_threads or usable_cores()
        self._pool = ThreadPoolExecutor(self._num_threads, "decode")
        self._stall_seconds = workplace.settings.stall_seconds
        self._videos: list[_Video] = []
        self._turns: dict[Future[list[_Decoded]], _Turn] = {}
        self._ready: deque[_Piece] = deque()
        self._encoders: dict[UUID, Encoders] = {}
        self._num_begun = 0
        self._claimed_at = 0.0

    @property
    def _desk(self) -> InteractiveDesk:
        return self._workplace.own(InteractiveDesk)

    @property
    def _forward_limit(self) -> CostLimit:
        return self._workplace.own(LoadedModels).forward_limit

    def work(self, seconds: float) -> int:
        """Work on what is under way and on what is due, for as long as that.

        Returns:
            How many jobs were claimed; more than none if one is under way still.
        """
        ends_at = time.monotonic() + seconds
        serve_between(self._workplace)
        claimed = self._claim()
        while self._videos and time.monotonic() < ends_at:
            self._collect()
            self._give_turns()
            pieces = self._next_slice()
            if pieces:
                self._forward(pieces)
            elif self._turns:
                wait(self._turns, timeout=_WAIT_SECONDS, return_when=FIRST_COMPLETED)
            else:
                time.sleep(_WAIT_SECONDS)  # each of them waits for something of another's
            self._look_after_videos()
            serve_between(self._workplace)
            claimed += self._claim_at_times()
        if not self._desk.is_empty:
            self._desk.hand_back()
            self._workplace.doorbell.ring(JobKind.SEARCH)
        if not self._videos:
            self._encoders.clear()
        return claimed or len(self._videos)

    def close(self) -> None:
        """Let the threads go; their videos are handed back."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def keep(self) -> None:
        """Store the finished clips of the videos that are not finished."""
        for video in self._videos:
            self._keep(video)

    def _claim_at_times(self) -> int:
        if time.monotonic() - self._claimed_at < _CLAIM_SECONDS:
            return 0
        return self._claim()

    def _claim(self) -> int:
        """Begin the videos that are due, as far as there is room beside those under way."""
        now = self._claimed_at = time.monotonic()
        at_once = self._workplace.settings.embed_claim_limit
        num_short = sum(now - video.begun_at < _SHORT_SECONDS for video in self._videos)
        room = min(at_once - num_short, _MOST_LONG * at_once - len(self._videos))
        if room <= 0 or self._workplace.is_stopping():
            return 0
        holds = self._workplace.leases.claim([JobKind.EMBED], limit=room)
        self._group.add(holds)
        for hold in holds:
            if hold.claim.worker_losses:
                self._desk.hand_back()  # it may end this process
            self._group.attempt(partial(self._begin, hold), hold)
        return len(holds)

    def _begin(self, hold: Hold) -> None:
        hold.advance()
        try:
            generation_id = UUID(hold.claim.input["generation_id"])
            video_id = UUID(hold.claim.input["video_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(
                "invalid_request", f"it does not name a generation and a video: {error!r}"
            ) from error
        with self._workplace.sessions.begin() as session:
            in_use = is_in_use(GenerationRepository(session).get(generation_id))
        if not in_use:  # a newer one took its place, and has its own jobs
            self._group.finish(hold, lambda _: Outcome({"clips": 0}))
            return
        if generation_id not in self._encoders:
            self._encoders[generation_id] = open_encoders(self._workplace, generation_id)
        self._num_begun += 1
        now = time.monotonic()
        encoders = self._encoders[generation_id]
        others = (video.share for video in self._videos)
        share = Share.beside(others, priority=hold.claim.priority)
        self._videos.append(
            _Video(hold, video_id, self._num_begun, share, encoders, begun_at=now, kept_at=now)
        )

    def _give_turns(self) -> None:
        """Give the free threads something to do, for the videos whose turn it is."""
        while len(self._turns) < self._num_threads:
            waiting = sorted(
                self._videos,
                key=lambda video: (
                    video.level,
                    video.share.num_at_work,
                    video.share.num_served,
                    video.place,
                ),
            )
            if not any(self._give_turn(video) for video in waiting):
                return

    def _has_a_turn(self, video: _Video) -> bool:
        """Whether a video may be worked on: one that was lost with a worker is tried alone.

        If it ends this process too, that was not because of another.
        """
        suspects = [
            each for each in self._videos if each.is_suspect and self._group.is_open(each.hold)
        ]
        return video in suspects if suspects else True

    def _give_turn(self, video: _Video) -> bool:
        """Give a thread to a video, if there is something to do for it."""
        if video.is_stored or not self._group.is_open(video.hold) or not self._has_a_turn(video):
            return False
        is_decoded = video.is_open and len(video.encoded) == len(video.clips)
        if not video.is_open or is_decoded:
            if video.share.num_at_work:
                return False
            turn = _Turn(video, self._stall_seconds * _SECONDS_PER_SECOND)
            self._submit(turn, partial(self._store if is_decoded else self._open, turn))
            return True
        passage = next(
            (each for each in video.passages if each.clips and not each.is_at_work), None
        )
        if passage is None or self._has_enough(video.level):
            return False
        passage.is_at_work = True
        to_decode = seconds_to_decode(
            passage.clips[0], video.keyframe_seconds, position_seconds=passage.position_seconds
        )
        budget = self._stall_seconds / 2 + _SECONDS_PER_SECOND * to_decode
        turn = _Turn(video, budget, passage)
        most_cost = self._forward_limit.allowed
        self._submit(turn, partial(_decode, turn, passage, most_cost=most_cost))
        return True

    def _has_enough(self, level: int) -> bool:
        """Whether enough is decoded for the next passes: of this level or of what goes before it.

        What may not be passed on now does not count, or it would keep that from being decoded for
        which it waits.
        """
        ready = [
            piece
            for piece in self._ready
            if piece.video.level <= level and self._has_a_turn(piece.video)
        ]
        return sum(map(_cost, ready)) > 2 * self._forward_limit.allowed

    def _submit(self, turn: _Turn, work: Callable[[], list[_Decoded]]) -> None:
        turn.video.share.begin_turn()
        self._turns[self._pool.submit(work)] = turn

    def _open(self, turn: _Turn) -> list[_Decoded]:
        """Find a job's media, plan its clips, and read those that are kept; in a thread."""
        video = turn.video
        turn.advance()

        def go_on() -> None:
            turn.advance()
            video.hold.advance()

        with self._workplace.sessions.begin() as session:
            row = VideoRepository(session).get(video.video_id)
        media = video.media = video.stack.enter_context(
            open_video_media(
                row,
                roots=self._workplace.media_roots,
                blobs=self._workplace.blobs,
                on_piece=go_on,
            )
        )
        plan = SamplingPlan.from_json(video.encoders.generation.plan)
        # The authors' plan computes with every frame's timestamp, which the row does not keep.
        probe = (
            probe_video(media.path, name=media.name, strict=video.is_strict)
            if plan.name == "authors"
            else VideoProbe.from_json(row.probe)
        )
        video.clips = plan_clips(probe, plan)
        video.about = about_clips(video.generation_id, video.clips)
        with self._workplace.sessions.begin() as session:
            kept = read_kept_clips(session, video.hold.claim.id, video.about)
        missing = sorted(
            (clip for clip in video.clips if clip.index not in kept),
            key=lambda clip: (max(clip.instants), clip.index),
        )
        for part in part_into_passages(missing, probe.keyframe_seconds, most=self._num_threads):
            frames = video.encoders.stream(media.path, part, name=media.name)
            video.stack.callback(frames.close)
            video.passages.append(_Passage(deque(part), frames))
        video.keyframe_seconds = probe.keyframe_seconds
        video.encoded, video.num_kept, video.num_kept_before = dict(kept), len(kept), len(kept)
        return []

    def _store(self, turn: _Turn) -> list[_Decoded]:
        """Store a video's tokens; in a thread."""
        turn.advance()
        video = turn.video
        if video.media is not None:
            video.media.check_unwritten()  # or its clips would be of two contents
        tokens = [video.encoded[clip.index][0] for clip in video.clips]
        put_tokens(self._workplace.blobs, video.key, torch.stack(tokens))  # (K, h, w, D)
        video.is_stored = True
        return []

    def _collect(self) -> None:
        """Take what the threads have done. What is done is never late."""
        for future in [future for future in self._turns if future.done()]:
            turn = self._turns.pop(future)
            video = turn.video
            video.hold.touch()
            if turn.passage is not None:
                turn.passage.is_at_work = False
            pieces = self._attempt(video, future.result)
            video.share.end_turn(num_clips=len(pieces or ()))
            if pieces is not None and self._group.is_open(video.hold):
                self._ready.extend(piece for piece in pieces if isinstance(piece, _Piece))
                damaged = [piece for piece in pieces if isinstance(piece, _Damaged)]
                if damaged:
                    self._attempt(video, partial(_leave_out, video, damaged))
                if not video.is_open:
                    video.is_open = True
                    self._report(video)
        late = [
            turn for future, turn in self._turns.items() if turn.is_late() and not future.done()
        ]
        if late:
            # Its thread cannot be ended. All else is handed back, with what is finished of it.
            self._group.leave(
                "decode.stuck",
                DecodeFailed("decoding took too long"),
                *(turn.video.hold for turn in late),
            )
        for turn in self._turns.values():
            turn.video.hold.touch()  # within its time

    def _next_slice(self) -> list[_Piece]:
        """Take the clips of the next pass: as many as fit, unless others may soon join them."""
        for piece in [p for p in self._ready if not self._group.is_open(p.video.hold)]:
            self._ready.remove(piece)
        waiting = [piece for piece in self._ready if self._has_a_turn(piece.video)]
        if not waiting:
            return []
        first = min(waiting, key=lambda piece: (piece.video.level, piece.decoded_at))
        together = [p for p in waiting if p.video.generation_id == first.video.generation_id]
        allowed = self._forward_limit.allowed
        is_full = sum(map(_cost, together)) >= allowed
        is_old = time.monotonic() - first.decoded_at > _GATHER_SECONDS
        if not is_full and not is_old and self._turns:
            return []
        together.sort(key=lambda piece: (piece.video.level, piece.video.place, piece.clip.index))
        pieces = next(batches_by_cost(together, _cost, self._forward_limit))
        for piece in pieces:
            self._ready.remove(piece)
        return pieces

    def _forward(self, pieces: Sequence[_Piece]) -> None:
        if self._workplace.is_stopping():
            return
        going_on = [piece for piece in pieces if self._group.advance(piece.video.hold)]
        if not going_on:
            return
        limit = self._forward_limit
        encoders = going_on[0].video.encoders
        began_at = time.monotonic()
        outcomes = self._group.attempt(
            lambda: forward_each(
                going_on,
                lambda some: encoders.encode([piece.frames for piece in some]),
                on_out_of_memory=lambda batch: limit.lower_below(sum(map(_cost, batch))),
            ),
            *(piece.video.hold for piece in going_on),
        )
        limit.note(sum(map(_cost, going_on)), time.monotonic() - began_at)
        for piece, outcome in zip(going_on, outcomes or (), strict=bool(outcomes)):
            if isinstance(outcome, Exception):
                self._group.settle(piece.video.hold, outcome)
            else:
                piece.video.encoded[piece.clip.index] = outcome
        for video in {piece.video.place: piece.video for piece in going_on}.values():
            if self._group.advance(video.hold):
                self._report(video)

    def _look_after_videos(self) -> None:
        """Finish what is stored, keep what takes long, and let go of what is over."""
        now = time.monotonic()
        for video in list(self._videos):
            if self._workplace.is_stopping():
                self._keep(video)
            self._group.check(video.hold)  # to be looked after is not to get further
            if video.is_stored and not video.share.num_at_work:
                self._finish(video)
            elif now - video.kept_at > self._workplace.settings.keep_seconds:
                self._keep(video)
            if not self._group.is_open(video.hold):
                video.close()
                if not video.share.num_at_work:
                    self._videos.remove(video)

    def _finish(self, video: _Video) -> None:
        """Store the rows and the job's end in one transaction; the tokens are there already."""
        if not self._group.finish(video.hold, partial(_write_clips, video)):
            self._delete_if_unneeded(video)

    def _delete_if_unneeded(self, video: _Video) -> None:
        """Delete the tokens of a video that was deleted while they were stored."""
        with self._workplace.sessions.begin() as session:
            is_there = VideoRepository(session).existing([video.video_id])
        if not is_there:
            self._workplace.blobs.delete(video.key)

    def _keep(self, video: _Video) -> None:
        """Store the clips that were finished since the last time."""
        video.kept_at = time.monotonic()
        new = dict(list(video.encoded.items())[video.num_kept :])
        if not new or video.is_stored or not self._group.is_open(video.hold):
            return
        piece = pack_clips(video.about, new)

        def write() -> None:
            run_in_transaction(
                self._workplace.sessions,
                lambda session: JobPieces(session).add(video.hold.claim, piece),
            )
            video.num_kept += len(new)

        self._group.attempt(write, video.hold)

    def _report(self, video: _Video) -> None:
        now = time.monotonic()
        if now - video.reported_at < _PROGRESS_SECONDS:
            return
        video.reported_at = now
        report = partial(
            self._workplace.leases.report_progress,
            video.hold,
            done=len(video.encoded),
            total=len(video.clips),
            stage="embedding",
        )
        self._group.attempt(report, video.hold)

    def _attempt(self, video: _Video, step: Callable[[], Value]) -> Value | None:
        """Do a step of a video; that it is gone is said in the words of the job."""

        def said() -> Value:
            try:
                return step()
            except VideoNotFound as error:
                raise JobError("video_not_found", str(error)) from error

        return self._group.attempt(said, video.hold)


def _decode(turn: _Turn, passage: _Passage, *, most_cost: float) -> list[_Decoded]:
    """Decode on for a moment, and no more clips than a pass takes; in a thread."""
    turn.advance()
    pieces: list[_Decoded] = []
    cost = 0.0
    ends_at = time.monotonic() + _TURN_SECONDS
    for clip, frames in passage.frames:
        now = time.monotonic()
        if isinstance(frames, FrameDamaged):
            pieces.append(_Damaged(clip, frames))
        else:
            piece = _Piece(turn.video, clip, frames, now)
            pieces.append(piece)
            cost += _cost(piece)
        passage.clips.remove(clip)
        passage.position_seconds = max(clip.instants)
        turn.advance()
        if now > ends_at or cost >= most_cost:
            break
    return pieces


def _leave_out(video: _Video, damaged: Sequence[_Damaged]) -> None:
    """Go on without the clips that cannot be decoded.

    Raises:
        FrameDamaged: nothing of the video can, or nothing may be left out.
    """
    gone = {each.clip.index for each in damaged}
    video.clips = [clip for clip in video.clips if clip.index not in gone]
    video.damaged_spans += [each.error.span for each in damaged]
    if video.is_strict or not video.clips:
        raise damaged[0].error


def _cost(piece: _Piece) -> float:
    return piece.video.encoders.cost(piece.frames)


def _write_clips(video: _Video, session: Session) -> Outcome:
    rows = [
        NewClip(
            index=index,
            start_seconds=clip.start_seconds,
            end_seconds=clip.end_seconds,
            instants=list(clip.instants),
            vector=video.encoded[clip.index][1].tolist(),
            tokens_key=video.key,
        )
        for index, clip in enumerate(video.clips)
    ]
    videos = VideoRepository(session)
    try:
        if video.damaged_spans:
            videos.note_damage(video.video_id, video.damaged_spans)
        videos.replace_clips(video.video_id, video.generation_id, rows)
        # A video becomes searchable with its clips of the generation that searches use.
        active = GenerationRepository(session).active()
        if active is None or active.id == video.generation_id:
            videos.mark_ready(video.video_id)
    except VideoNotFound as error:
        # Deleted after its last pass, and so before its job heard that it is cancelled.
        raise CancelRequested(f"video {video.video_id} was deleted") from error
    return Outcome({"clips": len(rows)})
