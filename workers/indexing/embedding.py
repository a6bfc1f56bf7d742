"""Index new videos: decode their clips, run the CNN, store tokens and recall vectors.

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
from functools import partial
from typing import Final, NoReturn, TypeVar
from uuid import UUID

from clipbert.errors import DecodeFailed
from policy.generations import is_in_use
from store.database import run_in_transaction
from store.errors import VideoNotFound
from store.jobs.pieces import JobPieces
from store.jobs.state import JobKind
from store.models.repository import GenerationRepository
from store.videos.repository import VideoRepository
from workers.answering.interactive import InteractiveDesk, serve_between
from workers.child.context import WorkerContext
from workers.errors import JobError
from workers.indexing.kept_clips import pack_clips
from workers.indexing.threads import DecodeThreads
from workers.indexing.turns import Share
from workers.indexing.videos_at_work import DamagedClip, DecodedClip, VideoAtWork
from workers.jobs.batching import CostLimit, batches_by_cost, forward_each
from workers.jobs.group import JobGroup, leave_process
from workers.jobs.lease import Outcome, RunningJob
from workers.models.encoders import Encoders, open_encoders
from workers.models.loaded_models import LoadedModels

Value = TypeVar("Value")

_WAIT_SECONDS: Final = 0.05  # for a thread, before people are served again
_GATHER_SECONDS: Final = 0.3  # that a clip waits for others to share its pass
_CLAIM_SECONDS: Final = 0.5
_PROGRESS_SECONDS: Final = 0.5
_SHORT_SECONDS: Final = 5.0  # a video that is under way for longer does not keep new ones out
_MOST_LONG: Final = 4  # times as many videos as are claimed at once may be under way


def embed_next(context: WorkerContext) -> int:
    """Claim due embed jobs and do them until none is left, or for as long as a look lasts.

    Returns:
        How many were claimed; more than none if one is under way still.
    """
    return context.own(Embedder).work(context.settings.look_seconds)


class Embedder:
    """The videos that a process has begun to look at.

    Args:
        context: of the process.
        leave: ends the process; a test passes its own.
    """

    def __init__(
        self,
        context: WorkerContext,
        *,
        leave: Callable[[str, BaseException | None], NoReturn] = leave_process,
    ) -> None:
        self._context = context
        self._group = JobGroup(context.leases, keep=self.keep, leave=leave)
        self._threads = DecodeThreads(context)
        self._videos: list[VideoAtWork] = []
        self._decoded: deque[DecodedClip] = deque()  # waits for a pass
        self._encoders: dict[UUID, Encoders] = {}
        self._num_begun = 0
        self._claimed_at = 0.0

    @property
    def _desk(self) -> InteractiveDesk:
        return self._context.own(InteractiveDesk)

    @property
    def _forward_limit(self) -> CostLimit:
        return self._context.own(LoadedModels).forward_limit

    def work(self, seconds: float) -> int:
        """Work on what is under way and on what is due, for as long as that.

        Returns:
            How many jobs were claimed; more than none if one is under way still.
        """
        ends_at = time.monotonic() + seconds
        serve_between(self._context)
        claimed = self._claim()
        while self._videos and time.monotonic() < ends_at:
            self._collect()
            self._give_turns()
            clips = self._next_slice()
            if clips:
                self._forward(clips)
            elif self._threads.is_idle:
                time.sleep(_WAIT_SECONDS)  # each of them waits for something of another's
            else:
                self._threads.wait(_WAIT_SECONDS)
            self._look_after_videos()
            serve_between(self._context)
            claimed += self._claim_at_times()
        if not self._desk.is_empty:
            self._desk.hand_back()
            self._context.doorbell.ring(JobKind.SEARCH)
        if not self._videos:
            self._encoders.clear()
        return claimed or len(self._videos)

    def close(self) -> None:
        """Release the threads; their videos are handed back."""
        self._threads.close()

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
        at_once = self._context.settings.embed_claim_limit
        num_short = sum(now - video.begun_at < _SHORT_SECONDS for video in self._videos)
        room = min(at_once - num_short, _MOST_LONG * at_once - len(self._videos))
        if room <= 0 or self._context.is_stopping():
            return 0
        jobs = self._context.leases.claim([JobKind.EMBED], limit=room)
        self._group.add(jobs)
        for job in jobs:
            if job.claim.worker_losses:
                self._desk.hand_back()  # it may end this process
            self._group.attempt(partial(self._begin, job), job)
        return len(jobs)

    def _begin(self, job: RunningJob) -> None:
        job.advance()
        try:
            generation_id = UUID(job.claim.input["generation_id"])
            video_id = UUID(job.claim.input["video_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(
                "invalid_request", f"it does not name a generation and a video: {error!r}"
            ) from error
        with self._context.sessions.begin() as session:
            in_use = is_in_use(GenerationRepository(session).get(generation_id))
        if not in_use:  # a newer one took its place, and has its own jobs
            self._group.finish(job, lambda _: Outcome({"clips": 0}))
            return
        if generation_id not in self._encoders:
            self._encoders[generation_id] = open_encoders(self._context, generation_id)
        self._num_begun += 1
        now = time.monotonic()
        encoders = self._encoders[generation_id]
        others = (video.share for video in self._videos)
        share = Share.beside(others, priority=job.claim.priority)
        self._videos.append(
            VideoAtWork(job, video_id, self._num_begun, share, encoders, begun_at=now, kept_at=now)
        )

    def _give_turns(self) -> None:
        """Give the free threads something to do, for the videos whose turn it is."""
        while not self._threads.is_full:
            waiting = sorted(
                self._videos,
                key=lambda video: (
                    video.level,
                    video.share.num_at_work,
                    video.share.num_served,
                    video.order,
                ),
            )
            if not any(self._give_turn(video) for video in waiting):
                return

    def _has_a_turn(self, video: VideoAtWork) -> bool:
        """Whether a video may be worked on: one that was lost with a worker is tried alone.

        If it ends this process too, that was not because of another.
        """
        suspects = [
            each for each in self._videos if each.is_suspect and self._group.is_open(each.job)
        ]
        return video in suspects if suspects else True

    def _give_turn(self, video: VideoAtWork) -> bool:
        """Give a thread to a video, if there is something to do for it."""
        if video.is_stored or not self._group.is_open(video.job) or not self._has_a_turn(video):
            return False
        if not video.is_open or len(video.encoded) == len(video.clips):
            if video.share.num_at_work:
                return False
            (self._threads.store if video.is_open else self._threads.open)(video)
            return True
        passage = next(
            (each for each in video.passages if each.clips and not each.is_at_work), None
        )
        if passage is None or self._has_enough(video.level):
            return False
        self._threads.decode(video, passage, most_cost=self._forward_limit.allowed)
        return True

    def _has_enough(self, level: int) -> bool:
        """Whether enough is decoded for the next passes: of this level or of what goes before it.

        What may not be passed on now does not count, or it would keep that from being decoded for
        which it waits.
        """
        enough = 2 * self._forward_limit.allowed
        return enough < sum(
            each.cost
            for each in self._decoded
            if each.video.level <= level and self._has_a_turn(each.video)
        )

    def _collect(self) -> None:
        """Take what the threads have done, and end the process if one of them hangs."""
        for turn, future in self._threads.take_done():
            video = turn.video
            video.job.touch()
            if turn.passage is not None:
                turn.passage.is_at_work = False
            decoded = self._attempt(video, future.result)
            video.share.end_turn(num_clips=len(decoded or ()))
            if decoded is not None and self._group.is_open(video.job):
                self._decoded.extend(each for each in decoded if isinstance(each, DecodedClip))
                damaged = [each for each in decoded if isinstance(each, DamagedClip)]
                if damaged:
                    self._attempt(video, partial(video.leave_out, damaged))
                if not video.is_open:
                    video.is_open = True
                    self._report(video)
        late = self._threads.late_turns()
        if late:
            # Its thread cannot be ended. All else is handed back, with what is finished of it.
            self._group.leave(
                "decode.stuck",
                DecodeFailed("decoding took too long"),
                *(turn.video.job for turn in late),
            )
        for turn in self._threads.turns:
            turn.video.job.touch()  # within its time

    def _next_slice(self) -> list[DecodedClip]:
        """Take the clips of the next pass: as many as fit, unless others may soon join them."""
        for each in [each for each in self._decoded if not self._group.is_open(each.video.job)]:
            self._decoded.remove(each)
        waiting = [each for each in self._decoded if self._has_a_turn(each.video)]
        if not waiting:
            return []
        first = min(waiting, key=lambda each: (each.video.level, each.decoded_at))
        together = [
            each for each in waiting if each.video.generation_id == first.video.generation_id
        ]
        allowed = self._forward_limit.allowed
        is_full = sum(each.cost for each in together) >= allowed
        is_old = time.monotonic() - first.decoded_at > _GATHER_SECONDS
        if not is_full and not is_old and not self._threads.is_idle:
            return []
        together.sort(key=lambda each: (each.video.level, each.video.order, each.clip.index))
        clips = next(batches_by_cost(together, lambda each: each.cost, limit=self._forward_limit))
        for each in clips:
            self._decoded.remove(each)
        return clips

    def _forward(self, clips: Sequence[DecodedClip]) -> None:
        if self._context.is_stopping():
            return
        going_on = [each for each in clips if self._group.advance(each.video.job)]
        if not going_on:
            return
        limit = self._forward_limit
        encoders = going_on[0].video.encoders
        began_at = time.monotonic()
        outcomes = self._group.attempt(
            lambda: forward_each(
                going_on,
                lambda some: encoders.encode([each.frames for each in some]),
                on_out_of_memory=lambda some: limit.lower_below(sum(each.cost for each in some)),
            ),
            *(each.video.job for each in going_on),
        )
        limit.note(sum(each.cost for each in going_on), time.monotonic() - began_at)
        for each, outcome in zip(going_on, outcomes or (), strict=bool(outcomes)):
            if isinstance(outcome, Exception):
                self._group.settle(each.video.job, outcome)
            else:
                each.video.encoded[each.clip.index] = outcome
        for video in {each.video.order: each.video for each in going_on}.values():
            if self._group.advance(video.job):
                self._report(video)

    def _look_after_videos(self) -> None:
        """Finish what is stored, keep what takes long, and let go of what is over."""
        now = time.monotonic()
        for video in list(self._videos):
            if self._context.is_stopping():
                self._keep(video)
            self._group.check(video.job)  # to be looked after is not to get further
            if video.is_stored and not video.share.num_at_work:
                self._finish(video)
            elif now - video.kept_at > self._context.settings.keep_seconds:
                self._keep(video)
            if not self._group.is_open(video.job):
                video.close()
                if not video.share.num_at_work:
                    self._videos.remove(video)

    def _finish(self, video: VideoAtWork) -> None:
        """Store the rows and the job's end in one transaction; the tokens are there already."""
        if not self._group.finish(video.job, video.write):
            self._delete_if_unneeded(video)

    def _delete_if_unneeded(self, video: VideoAtWork) -> None:
        """Delete the tokens of a video that was deleted while they were stored."""
        with self._context.sessions.begin() as session:
            is_there = VideoRepository(session).existing([video.video_id])
        if not is_there:
            self._context.blobs.delete(video.key)

    def _keep(self, video: VideoAtWork) -> None:
        """Store the clips that were finished since the last time."""
        video.kept_at = time.monotonic()
        new = dict(list(video.encoded.items())[video.num_kept :])
        if not new or video.is_stored or not self._group.is_open(video.job):
            return
        piece = pack_clips(video.about, new)

        def write() -> None:
            run_in_transaction(
                self._context.sessions,
                lambda session: JobPieces(session).add(video.job.claim, piece),
            )
            video.num_kept += len(new)

        self._group.attempt(write, video.job)

    def _report(self, video: VideoAtWork) -> None:
        now = time.monotonic()
        if now - video.reported_at < _PROGRESS_SECONDS:
            return
        video.reported_at = now
        report = partial(
            self._context.leases.report_progress,
            video.job,
            done=len(video.encoded),
            total=len(video.clips),
            stage="embedding",
        )
        self._group.attempt(report, video.job)

    def _attempt(self, video: VideoAtWork, step: Callable[[], Value]) -> Value | None:
        """Do a step of a video; that it is gone is said in the words of the job."""

        def said() -> Value:
            try:
                return step()
            except VideoNotFound as error:
                raise JobError("video_not_found", str(error)) from error

        return self._group.attempt(said, video.job)
