"""Put a data set to a model: each video is decoded and encoded once, then meets all its texts."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipbert.datasets.media_folder import MediaFolder
from clipbert.errors import CheckpointError, NothingToEvaluate, VideoError
from clipbert.evaluation.clips import ClipsOrError, ClipSource, MediaClips, Moment
from clipbert.evaluation.evaluators import Evaluator, Metrics
from clipbert.evaluation.score_store import ScoreStore
from clipbert.inference.clipbert import ClipBert
from clipbert.model.config import ClipBertConfig
from clipbert.model.head_names import HeadName
from clipbert.sampling.plan import PlanName, SamplingPlan

DEFAULT_NUM_CLIPS = 16
# Pairs of a text and a clip between two reports of progress; memory is bounded by the model.
_PAIRS_PER_CALL = 4096


@dataclass(frozen=True)
class UnusableVideo:
    """A video that is missing or broken: it is reported and left out, never replaced.

    Attributes:
        name: as the annotations call it.
        code: of the VideoError.
        reason: its sentence.
        num_annotations: lines that could not be evaluated for it.
    """

    name: str
    code: str
    reason: str
    num_annotations: int


@dataclass(frozen=True)
class EvaluationProgress:
    """How far an evaluation is. Videos whose scores were there already count as done."""

    done_texts: int
    total_texts: int
    done_videos: int
    total_videos: int
    num_unusable: int
    num_pairs: int


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        metrics: over what could be evaluated.
        line_scores: how right each annotation was answered, 0 to 1, by its line; without those of
            videos that could not be looked at.
        num_annotations: lines that were asked for, repeated ones left out.
        num_evaluated: those of videos that could be looked at.
        num_videos: that the lines are about.
        unusable: those that could not be looked at, by name.
        num_resumed: videos whose scores were there already.
        num_clips: encoded in this run.
        num_pairs: of a text and a clip, scored in this run.
        seconds: this run as a whole.
        encoding_seconds: the part spent in the CNN.
        scoring_seconds: the part spent in the cross-encoder.
    """

    metrics: Metrics
    line_scores: Mapping[int, float]
    num_annotations: int
    num_evaluated: int
    num_videos: int
    unusable: tuple[UnusableVideo, ...]
    num_resumed: int
    num_clips: int
    num_pairs: int
    seconds: float
    encoding_seconds: float
    scoring_seconds: float


def choose_plan(
    config: ClipBertConfig,
    *,
    head: HeadName,
    name: PlanName | None = None,
    num_clips: int = DEFAULT_NUM_CLIPS,
    frames_per_clip: int | None = None,
) -> SamplingPlan:
    """Choose the clips to evaluate with: the model's own plan, with a fixed number of clips.

    Args:
        config: of the model.
        head: that will score.
        name: another plan than the model's.
        num_clips: K.
        frames_per_clip: another T than the model's.

    Returns:
        The plan. A single clip of the `authors` plan is their `middle` one for the retrieval
        head, and the first one for the others: so does their code.

    Raises:
        ValueError: a number is out of range, or the model tells fewer frames apart.
    """
    plan = config.plan
    frames_per_clip = frames_per_clip or plan.frames_per_clip
    if config.frame_positions and frames_per_clip > config.frame_positions:
        raise ValueError(
            f"frames_per_clip is {frames_per_clip}: the model tells {config.frame_positions} apart"
        )
    name = name or plan.name
    middle = name == "authors" and num_clips == 1 and head == "retrieval"
    return replace(
        plan,
        name=name,
        num_clips=num_clips,
        frames_per_clip=frames_per_clip,
        seconds_per_clip=None,
        max_clips=max(plan.max_clips, num_clips),
        strategy="middle" if middle else "clips",
    )


def evaluate(
    model: ClipBert,
    evaluator: Evaluator,
    *,
    media: MediaFolder,
    plan: SamplingPlan,
    store: ScoreStore | None = None,
    progress: Callable[[EvaluationProgress], None] = lambda _: None,
    num_threads: int = 2,
) -> Evaluation:
    """Look at every video once and measure what the model says of it; as evaluate_clips.

    Args:
        model: that is asked.
        evaluator: the annotations, see build_evaluator.
        media: where the videos are.
        plan: which clips to look at.
        store: keeps what was found of each video; None keeps nothing.
        progress: is called after each video and at least every few thousand pairs.
        num_threads: videos that are decoded ahead of the model at a time.
    """
    return evaluate_clips(
        model,
        evaluator,
        source=MediaClips(media, plan),
        store=store,
        progress=progress,
        num_threads=num_threads,
    )


def evaluate_clips(
    model: ClipBert,
    evaluator: Evaluator,
    *,
    source: ClipSource,
    store: ScoreStore | None = None,
    progress: Callable[[EvaluationProgress], None] = lambda _: None,
    num_threads: int = 2,
) -> Evaluation:
    """Look at every video once and measure what the model says of it.

    The CNN runs once per clip, however many texts there are. Annotations that hold for a part of a
    video are put to clips of this part, and each part counts as a video of its own. The same inputs
    give the same result, also when a run was interrupted and goes on with its store.

    Args:
        model: that is asked.
        evaluator: the annotations, see build_evaluator.
        source: the clips to look at: decoded, or stored as tokens.
        store: keeps what was found of each video; None keeps nothing.
        progress: is called after each video and at least every few thousand pairs.
        num_threads: videos that are decoded ahead of the model at a time.

    Returns:
        Metrics and counts. A missing or broken video is listed, not raised.

    Raises:
        NothingToEvaluate: no video could be looked at.
        CheckpointError: the model gives numbers that are not finite.
    """
    run = _EvaluationRun(model, evaluator, store, progress)
    pending = run.locate(source)
    looked = source.read(pending, max_side_px=model.config.max_side_px, num_threads=num_threads)
    for moment, clips in looked:
        run.score_moment(moment, clips)
    return run.finish()


@dataclass
class _EvaluationRun:
    """The state of one evaluation."""

    model: ClipBert
    evaluator: Evaluator
    store: ScoreStore | None
    progress: Callable[[EvaluationProgress], None]
    kept: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    unusable: dict[str, VideoError] = field(default_factory=dict)
    num_videos: int = 0
    num_resumed: int = 0
    total_texts: int = 0
    done_texts: int = 0
    num_clips: int = 0
    num_pairs: int = 0
    encoding_seconds: float = 0.0
    scoring_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def locate(self, source: ClipSource) -> list[Moment]:
        """Find the files of all moments, and give those that are yet to be looked at."""
        pending = []
        wanted = {each.moment: each for each in self.evaluator.annotations}
        self.num_videos = len(wanted)
        self.total_texts = sum(len(self.evaluator.texts(name)) for name in wanted)
        for name, annotation in sorted(wanted.items()):
            try:
                path = source.find(annotation.video)
            except VideoError as error:
                self._leave_out(name, error)
                continue
            stored = None if self.store is None else self.store.read(name, path)
            if stored is None:
                pending.append(Moment(name, annotation.video, annotation.span, path))
            else:
                self.kept[name] = stored
                self.done_texts += len(self.evaluator.texts(name))
        self.num_resumed = len(self.kept)
        self._report()
        return pending

    def score_moment(self, moment: Moment, clips: ClipsOrError) -> None:
        """Encode a moment, score its texts, and keep what the evaluator wants of them."""
        name = moment.name
        try:
            if isinstance(clips, VideoError):
                raise clips
            begin = time.perf_counter()
            tokens = clips.encode(self.model)  # (K, h, w, D)
        except VideoError as error:
            self._leave_out(name, error)
            self._report()
            return
        self.encoding_seconds += time.perf_counter() - begin
        self.num_clips += len(tokens)
        logits = self._score(tokens, self.evaluator.texts(name), clips.places)  # (K, Q, O)
        if not logits.isfinite().all():
            raise CheckpointError(
                f"the model's {self.evaluator.head} logits for {name} are not finite numbers"
            )
        self.kept[name] = self.evaluator.keep(logits)
        if self.store is not None:
            self.store.write(name, moment.path, self.kept[name])
        self._report()

    def _score(self, tokens: Tensor, texts: Sequence[str], places: Sequence[float]) -> Tensor:
        parts = []
        step = max(1, _PAIRS_PER_CALL // len(tokens))
        for start in range(0, len(texts), step):
            some = texts[start : start + step]
            begin = time.perf_counter()
            parts.append(self.model.score_pairs(self.evaluator.head, tokens, some, places=places))
            self.scoring_seconds += time.perf_counter() - begin
            self.num_pairs += len(some) * len(tokens)
            self.done_texts += len(some)
            self._report()
        return torch.cat(parts, dim=1)

    def finish(self) -> Evaluation:
        """Measure all that was kept."""
        wanted = Counter(each.moment for each in self.evaluator.annotations)
        unusable = tuple(
            UnusableVideo(name, error.code, str(error), wanted[name])
            for name, error in sorted(self.unusable.items())
        )
        if not self.kept:
            raise NothingToEvaluate(len(unusable), unusable[0].reason)
        return Evaluation(
            metrics=self.evaluator.measure(self.kept),
            line_scores=self.evaluator.score_lines(self.kept),
            num_annotations=sum(wanted.values()),
            num_evaluated=sum(wanted[name] for name in self.kept),
            num_videos=self.num_videos,
            unusable=unusable,
            num_resumed=self.num_resumed,
            num_clips=self.num_clips,
            num_pairs=self.num_pairs,
            seconds=time.perf_counter() - self.started,
            encoding_seconds=self.encoding_seconds,
            scoring_seconds=self.scoring_seconds,
        )

    def _leave_out(self, name: str, error: VideoError) -> None:
        self.unusable[name] = error
        self.done_texts += len(self.evaluator.texts(name))

    def _report(self) -> None:
        self.progress(
            EvaluationProgress(
                done_texts=self.done_texts,
                total_texts=self.total_texts,
                done_videos=len(self.kept) + len(self.unusable),
                total_videos=self.num_videos,
                num_unusable=len(self.unusable),
                num_pairs=self.num_pairs,
            )
        )
