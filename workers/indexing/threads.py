"""The threads that open, decode and store videos, each for one video and one turn at a time.

A turn takes a fraction of a second, so that a thread is soon free for another video. A thread
cannot be ended: one that hangs is told by its turn, which has a budget of time since it last got
further. Imports torch.
"""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import torch

from clipbert.errors import FrameDamaged
from clipbert.sampling.plan import SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import VideoProbe, probe_video
from store.videos.repository import VideoRepository
from workers.child.context import WorkerContext
from workers.indexing.cores import usable_cores
from workers.indexing.kept_clips import about_clips, read_kept_clips
from workers.indexing.media import open_video_media
from workers.indexing.passages import part_into_passages, seconds_to_decode
from workers.indexing.videos_at_work import DamagedClip, DecodedClip, Passage, VideoAtWork
from workers.models.token_cache import put_tokens

Decoded = DecodedClip | DamagedClip

_TURN_SECONDS: Final = 0.2  # of a thread for one video, or one clip if that takes longer
# A decoder that needs longer than this for each second of a video is taken for hung.
_SECONDS_PER_SECOND: Final = 4.0


@dataclass(eq=False)
class Turn:
    """What a thread does for a video, in one go.

    Attributes:
        budget_seconds: it is taken for hung when it has run for so long since it got further.
        passage: what it decodes; None if it opens or stores.
        advanced_at: when it began or got further, as the thread itself says; None before that.
    """

    video: VideoAtWork
    budget_seconds: float
    passage: Passage | None = None
    advanced_at: float | None = None
    begun_at: float = field(default_factory=time.monotonic)

    def advance(self) -> None:
        """Note, in the thread, that it gets further."""
        self.advanced_at = time.monotonic()

    def is_late(self) -> bool:
        """Whether it has not got further for too long; asked of one that is not done."""
        advanced_at = self.advanced_at
        if advanced_at is None:  # its own time has not begun
            return False
        return time.monotonic() - advanced_at > self.budget_seconds


class DecodeThreads:
    """The threads of a process, and the turns under way in them.

    Args:
        context: of the process.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._stall_seconds = context.settings.stall_seconds
        self._num_threads = context.settings.decode_threads or usable_cores()
        self._pool = ThreadPoolExecutor(self._num_threads, "decode")
        self._turns: dict[Future[list[Decoded]], Turn] = {}

    @property
    def is_full(self) -> bool:
        """Whether every thread has something to do."""
        return len(self._turns) >= self._num_threads

    @property
    def is_idle(self) -> bool:
        """Whether no thread has anything to do."""
        return not self._turns

    @property
    def turns(self) -> list[Turn]:
        """The turns under way."""
        return list(self._turns.values())

    def open(self, video: VideoAtWork) -> None:
        """Have a video's media opened, and its clips planned."""
        turn = Turn(video, self._stall_seconds * _SECONDS_PER_SECOND)
        self._submit(turn, partial(self._open, turn))

    def decode(self, video: VideoAtWork, passage: Passage, *, most_cost: float) -> None:
        """Have the next clips of a passage decoded, and no more than a pass takes."""
        passage.is_at_work = True
        to_decode = seconds_to_decode(
            passage.clips[0], video.keyframe_seconds, position_seconds=passage.position_seconds
        )
        budget = self._stall_seconds / 2 + _SECONDS_PER_SECOND * to_decode
        turn = Turn(video, budget, passage)
        self._submit(turn, partial(_decode, turn, passage, most_cost=most_cost))

    def store(self, video: VideoAtWork) -> None:
        """Have a video's tokens stored."""
        turn = Turn(video, self._stall_seconds * _SECONDS_PER_SECOND)
        self._submit(turn, partial(self._store, turn))

    def take_done(self) -> list[tuple[Turn, Future[list[Decoded]]]]:
        """Take the turns that have ended. What is done is never late."""
        done = [future for future in self._turns if future.done()]
        return [(self._turns.pop(future), future) for future in done]

    def late_turns(self) -> list[Turn]:
        """List the turns whose threads hang."""
        return [
            turn for future, turn in self._turns.items() if turn.is_late() and not future.done()
        ]

    def wait(self, seconds: float) -> None:
        """Wait until a turn ends, at most for so long."""
        wait(self._turns, timeout=seconds, return_when=FIRST_COMPLETED)

    def close(self) -> None:
        """Release the threads; those at work are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, turn: Turn, work: Callable[[], list[Decoded]]) -> None:
        turn.video.share.begin_turn()
        self._turns[self._pool.submit(work)] = turn

    def _open(self, turn: Turn) -> list[Decoded]:
        """Find a job's media, plan its clips, and read those that are kept; in a thread."""
        video = turn.video
        turn.advance()

        def go_on() -> None:
            turn.advance()
            video.job.advance()

        with self._context.sessions.begin() as session:
            row = VideoRepository(session).get(video.video_id)
        media = video.media = video.stack.enter_context(
            open_video_media(
                row,
                roots=self._context.media_roots,
                blobs=self._context.blobs,
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
        with self._context.sessions.begin() as session:
            kept = read_kept_clips(session, video.job.claim.id, about=video.about)
        missing = sorted(
            (clip for clip in video.clips if clip.index not in kept),
            key=lambda clip: (max(clip.instants), clip.index),
        )
        for part in part_into_passages(missing, probe.keyframe_seconds, most=self._num_threads):
            frames = video.encoders.stream(media.path, part, name=media.name)
            video.stack.callback(frames.close)
            video.passages.append(Passage(deque(part), frames))
        video.keyframe_seconds = probe.keyframe_seconds
        video.encoded, video.num_kept, video.num_kept_before = dict(kept), len(kept), len(kept)
        return []

    def _store(self, turn: Turn) -> list[Decoded]:
        turn.advance()
        video = turn.video
        if video.media is not None:
            video.media.check_unwritten()  # or its clips would be of two contents
        tokens = [video.encoded[clip.index][0] for clip in video.clips]
        put_tokens(self._context.blobs, video.key, tokens=torch.stack(tokens))  # (K, h, w, D)
        video.is_stored = True
        return []


def _decode(turn: Turn, passage: Passage, *, most_cost: float) -> list[Decoded]:
    turn.advance()
    decoded: list[Decoded] = []
    cost = 0.0
    ends_at = time.monotonic() + _TURN_SECONDS
    for clip, frames in passage.frames:
        now = time.monotonic()
        if isinstance(frames, FrameDamaged):
            decoded.append(DamagedClip(clip, frames))
        else:
            made = DecodedClip(turn.video, clip, frames, now)
            decoded.append(made)
            cost += made.cost
        passage.clips.remove(clip)
        passage.position_seconds = max(clip.instants)
        turn.advance()
        if now > ends_at or cost >= most_cost:
            break
    return decoded
