"""What each task asks about a video, what is kept of the model's logits, and how it is measured.

An assessment holds the annotations of one task. For each video it gives the texts that meet its
clips, turns their logits into one small array, and measures the arrays of all videos together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipbert.aggregation import aggregate, match_probability
from clipbert.config import Aggregation, HeadName
from clipbert.metrics import (
    CountMetrics,
    GroupedScore,
    RetrievalMetrics,
    count_metrics,
    mean_score,
    text_to_video,
    video_to_text,
)
from clipbert.training.annotations import Annotation


@dataclass(frozen=True)
class RetrievalReport:
    """Both directions of retrieval."""

    text_to_video: RetrievalMetrics
    video_to_text: RetrievalMetrics


Metrics = RetrievalReport | GroupedScore | CountMetrics


class Assessment(Protocol):
    """One task's annotations, ready to be put to a model."""

    @property
    def head(self) -> HeadName:
        """The head that scores the texts."""

    @property
    def annotations(self) -> Sequence[Annotation]:
        """What is measured, without repeated lines."""

    @property
    def num_repeated(self) -> int:
        """Lines that were left out because the same stands before them."""

    @property
    def num_unknown_answers(self) -> int:
        """Questions that cannot be answered rightly: their answers are not among the model's."""

    def texts(self, video: str) -> Sequence[str]:
        """List the texts that meet each clip of a video, Q of them."""

    def keep(self, logits: Tensor) -> NDArray[np.generic]:
        """Turn a video's logits, (K, Q, C), into what is stored: (Q,)."""

    def measure(self, kept: Mapping[str, NDArray[np.generic]]) -> Metrics:
        """Measure what was kept of all videos that could be looked at, at least one."""


class RetrievalAssessment:
    """Every caption meets every video; P(match) is kept."""

    head: HeadName = "retrieval"
    num_unknown_answers = 0

    def __init__(
        self, annotations: Sequence[Annotation], *, how: Aggregation, authors_rounding: bool
    ) -> None:
        first = {(each.video, each.text): each for each in reversed(annotations)}
        self.annotations = tuple(sorted(first.values(), key=lambda each: each.line))
        self.num_repeated = len(annotations) - len(self.annotations)
        self._texts = tuple(each.text for each in self.annotations)
        self._how, self._authors_rounding = how, authors_rounding

    def texts(self, video: str) -> Sequence[str]:
        """All captions, in the order of their lines."""
        return self._texts

    def keep(self, logits: Tensor) -> NDArray[np.generic]:
        """P(match) of every caption, float32."""
        return _to_numpy(match_probability(aggregate(logits, self._how)))

    def measure(self, kept: Mapping[str, NDArray[np.generic]]) -> RetrievalReport:
        """Rank videos, whose order is that of their names, and captions, that of their lines.

        The captions of a video that could not be looked at are left out with it.
        """
        videos = sorted(kept)
        column = {video: index for index, video in enumerate(videos)}
        rows = [row for row, each in enumerate(self.annotations) if each.video in column]
        scores = np.stack([kept[video] for video in videos], axis=1)[rows]  # (texts, videos)
        right = [column[self.annotations[row].video] for row in rows]
        rounding = self._authors_rounding
        return RetrievalReport(
            text_to_video=text_to_video(scores, right, authors_rounding=rounding),
            video_to_text=video_to_text(scores, right, authors_rounding=rounding),
        )


class ChoiceAssessment:
    """Each question with each of its choices; the score of every choice is kept.

    Of equal choices the first is taken.
    """

    num_repeated = 0
    num_unknown_answers = 0

    def __init__(
        self, annotations: Sequence[Annotation], *, how: Aggregation, head: HeadName
    ) -> None:
        self.annotations, self.head = annotations, head
        self._how = how
        self._of_video = _group(annotations)

    def texts(self, video: str) -> Sequence[str]:
        """Question and choice, joined; the choice alone where nothing is asked."""
        return [
            f"{each.text} {choice}".strip()
            for each in self._of_video[video]
            for choice in each.choices
        ]

    def keep(self, logits: Tensor) -> NDArray[np.generic]:
        """P(match) of every choice from a retrieval head, else its logit; float32."""
        video = aggregate(logits, self._how)  # (Q, C)
        return _to_numpy(match_probability(video) if self.head == "retrieval" else video[:, 0])

    def measure(self, kept: Mapping[str, NDArray[np.generic]]) -> GroupedScore:
        """Measure the accuracy of the choice with the highest score."""
        scores, types = [], []
        for video in sorted(kept):
            start = 0
            for each in self._of_video[video]:
                choices = kept[video][start : start + len(each.choices)]
                start += len(each.choices)
                scores.append(float(np.argmax(choices) == each.right_choice))
                types.append(each.answer_type)
        return mean_score(scores, types)


class AnswerAssessment:
    """Open-ended questions; the most likely answer of each is kept, as its place in the model.

    Of equally likely answers the first is taken. With soft labels (VQA) an answer has the score
    that the label gives it, otherwise 1 if it is the right text to the letter.
    """

    head: HeadName = "qa"
    num_repeated = 0

    def __init__(
        self, annotations: Sequence[Annotation], *, how: Aggregation, answers: Sequence[str]
    ) -> None:
        self.annotations = annotations
        self._how, self._answers = how, answers
        self._of_video = _group(annotations)

    @cached_property
    def num_unknown_answers(self) -> int:
        """Questions of which no answer with a score is among the model's."""
        known = set(self._answers)
        return sum(known.isdisjoint(right_answers(each)) for each in self.annotations)

    def texts(self, video: str) -> Sequence[str]:
        """The questions about a video."""
        return [each.text for each in self._of_video[video]]

    def keep(self, logits: Tensor) -> NDArray[np.generic]:
        """The place of the most likely answer, int64."""
        places: NDArray[np.generic] = _to_numpy(aggregate(logits, self._how)).argmax(axis=1)
        return places

    def measure(self, kept: Mapping[str, NDArray[np.generic]]) -> GroupedScore:
        """Measure the mean score of the answers."""
        scores, types = [], []
        for video in sorted(kept):
            for each, place in zip(self._of_video[video], kept[video].tolist(), strict=True):
                scores.append(right_answers(each).get(self._answers[place], 0.0))
                types.append(each.answer_type)
        return mean_score(scores, types)


class CountAssessment:
    """Questions for a number; the model's number is kept."""

    head: HeadName = "count"
    num_repeated = 0
    num_unknown_answers = 0

    def __init__(self, annotations: Sequence[Annotation], *, how: Aggregation) -> None:
        self.annotations = annotations
        # A sum of exponentials of numbers is no number.
        self._how: Aggregation = "mean" if how == "lse" else how
        self._of_video = _group(annotations)

    def texts(self, video: str) -> Sequence[str]:
        """The questions about a video."""
        return [each.text for each in self._of_video[video]]

    def keep(self, logits: Tensor) -> NDArray[np.generic]:
        """The number, float32, not rounded."""
        return _to_numpy(aggregate(logits, self._how)[:, 0])

    def measure(self, kept: Mapping[str, NDArray[np.generic]]) -> CountMetrics:
        """Compare the numbers."""
        told, right = [], []
        for video in sorted(kept):
            told += kept[video].tolist()
            right += [each.count for each in self._of_video[video] if each.count is not None]
        return count_metrics(told, right)


def right_answers(annotation: Annotation) -> Mapping[str, float]:
    """Give the score of each answer that has one."""
    if annotation.answer_scores:
        return annotation.answer_scores
    return {} if annotation.answer is None else {annotation.answer: 1.0}


def _group(annotations: Iterable[Annotation]) -> dict[str, list[Annotation]]:
    of_video: dict[str, list[Annotation]] = {}
    for each in annotations:
        of_video.setdefault(each.video, []).append(each)
    return of_video


def _to_numpy(values: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = values.numpy()
    return array
