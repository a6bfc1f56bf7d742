"""What each task asks about a video, what is kept of the model's logits, and how it is measured.

An evaluator holds the annotations of one task. For each video it gives the texts that meet its
clips, turns their logits into one small array, and measures the arrays of all videos together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipbert.datasets.annotation_files import Annotation
from clipbert.evaluation.metrics import (
    CountMetrics,
    GroupedScore,
    RetrievalMetrics,
    count_metrics,
    mean_score,
    text_to_video,
    text_to_video_ranks,
    video_to_text,
)
from clipbert.model.aggregation import aggregate, match_probability
from clipbert.model.config import Aggregation
from clipbert.model.head_names import HeadName


@dataclass(frozen=True)
class RetrievalReport:
    """Both directions of retrieval."""

    text_to_video: RetrievalMetrics
    video_to_text: RetrievalMetrics


Metrics = RetrievalReport | GroupedScore | CountMetrics


class Evaluator(Protocol):
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

    def texts(self, moment: str) -> Sequence[str]:
        """List the texts that meet each clip of a moment (Annotation.moment), Q of them."""

    def keep(self, logits: Tensor) -> NDArray[np.generic]:
        """Turn a moment's logits, (K, Q, O), into what is stored: (Q,)."""

    def measure(self, kept: Mapping[str, NDArray[np.generic]]) -> Metrics:
        """Measure what was kept of all moments that could be looked at, at least one."""

    def score_lines(self, kept: Mapping[str, NDArray[np.generic]]) -> Mapping[int, float]:
        """Return how right each annotation was answered, 0 to 1, by its line."""


class RetrievalEvaluator:
    """Every caption meets every video; P(match) is kept."""

    head: HeadName = "retrieval"
    num_unknown_answers = 0

    def __init__(
        self, annotations: Sequence[Annotation], *, how: Aggregation, authors_rounding: bool
    ) -> None:
        first = {(each.moment, each.text): each for each in reversed(annotations)}
        self._lines = {each.line: (each.moment, each.text) for each in annotations}
        self.annotations = tuple(sorted(first.values(), key=lambda each: each.line))
        self.num_repeated = len(annotations) - len(self.annotations)
        self._texts = tuple(each.text for each in self.annotations)
        self._how, self._authors_rounding = how, authors_rounding

    def texts(self, moment: str) -> Sequence[str]:
        """All captions, in the order of their lines."""
        return self._texts

    def keep(self, logits: Tensor) -> NDArray[np.generic]:
        """P(match) of every caption, float32."""
        return _to_numpy(match_probability(aggregate(logits, self._how)))

    def measure(self, kept: Mapping[str, NDArray[np.generic]]) -> RetrievalReport:
        """Rank moments, whose order is that of their names, and captions, that of their lines.

        The captions of a moment that could not be looked at are left out with it.
        """
        _, scores, right = self._table(kept)
        rounding = self._authors_rounding
        return RetrievalReport(
            text_to_video=text_to_video(scores, right, authors_rounding=rounding),
            video_to_text=video_to_text(scores, right, authors_rounding=rounding),
        )

    def score_lines(self, kept: Mapping[str, NDArray[np.generic]]) -> Mapping[int, float]:
        """Return 1 where the caption's own moment comes first; a repeated line as the first one."""
        annotations, scores, right = self._table(kept)
        ranks = text_to_video_ranks(scores, right, authors_rounding=self._authors_rounding)
        of_text = {
            (each.moment, each.text): float(rank == 1)
            for each, rank in zip(annotations, ranks, strict=True)
        }
        return {line: of_text[key] for line, key in self._lines.items() if key in of_text}

    def _table(
        self, kept: Mapping[str, NDArray[np.generic]]
    ) -> tuple[list[Annotation], NDArray[np.float32], list[int]]:
        """Return the captions of moments that are there, their scores and their own columns."""
        moments = sorted(kept)
        column = {moment: index for index, moment in enumerate(moments)}
        rows = [row for row, each in enumerate(self.annotations) if each.moment in column]
        table = np.stack([kept[moment] for moment in moments], axis=1)  # (texts, moments)
        scores = table[rows].astype(np.float32)  # as it is already
        annotations = [self.annotations[row] for row in rows]
        return annotations, scores, [column[each.moment] for each in annotations]


class ChoiceEvaluator:
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
        self._of_moment = _group(annotations)

    def texts(self, moment: str) -> Sequence[str]:
        """Question and choice, joined; the choice alone where nothing is asked."""
        return [
            f"{each.text} {choice}".strip()
            for each in self._of_moment[moment]
            for choice in each.choices
        ]

    def keep(self, logits: Tensor) -> NDArray[np.generic]:
        """P(match) of every choice from a retrieval head, else its logit; float32."""
        video = aggregate(logits, self._how)  # (Q, O)
        return _to_numpy(match_probability(video) if self.head == "retrieval" else video[:, 0])

    def measure(self, kept: Mapping[str, NDArray[np.generic]]) -> GroupedScore:
        """Measure the accuracy of the choice with the highest score."""
        return _mean_score(self._of_moment, self.score_lines(kept), kept)

    def score_lines(self, kept: Mapping[str, NDArray[np.generic]]) -> Mapping[int, float]:
        """Return 1 where the right choice has the highest score."""
        scores = {}
        for moment in sorted(kept):
            start = 0
            for each in self._of_moment[moment]:
                choices = kept[moment][start : start + len(each.choices)]
                start += len(each.choices)
                scores[each.line] = float(np.argmax(choices) == each.right_choice)
        return scores


class AnswerEvaluator:
    """Open-ended questions; the most likely answer of each is kept, as its index in the model.

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
        self._of_moment = _group(annotations)

    @cached_property
    def num_unknown_answers(self) -> int:
        """Questions of which no answer with a score is among the model's."""
        known = set(self._answers)
        return sum(known.isdisjoint(right_answers(each)) for each in self.annotations)

    def texts(self, moment: str) -> Sequence[str]:
        """The questions about a video."""
        return [each.text for each in self._of_moment[moment]]

    def keep(self, logits: Tensor) -> NDArray[np.generic]:
        """The index of the most likely answer, int64."""
        indices: NDArray[np.generic] = _to_numpy(aggregate(logits, self._how)).argmax(axis=1)
        return indices

    def measure(self, kept: Mapping[str, NDArray[np.generic]]) -> GroupedScore:
        """Measure the mean score of the answers."""
        return _mean_score(self._of_moment, self.score_lines(kept), kept)

    def score_lines(self, kept: Mapping[str, NDArray[np.generic]]) -> Mapping[int, float]:
        """Return the score that the label has for the answer."""
        return {
            each.line: right_answers(each).get(self._answers[index], 0.0)
            for moment in sorted(kept)
            for each, index in zip(self._of_moment[moment], kept[moment].tolist(), strict=True)
        }


class CountEvaluator:
    """Questions for a number; the model's number is kept."""

    head: HeadName = "count"
    num_repeated = 0
    num_unknown_answers = 0

    def __init__(self, annotations: Sequence[Annotation], *, how: Aggregation) -> None:
        self.annotations = annotations
        # A sum of exponentials of numbers is not a number.
        self._how: Aggregation = "mean" if how == "lse" else how
        self._of_moment = _group(annotations)

    def texts(self, moment: str) -> Sequence[str]:
        """The questions about a video."""
        return [each.text for each in self._of_moment[moment]]

    def keep(self, logits: Tensor) -> NDArray[np.generic]:
        """The number, float32, not rounded."""
        return _to_numpy(aggregate(logits, self._how)[:, 0])

    def measure(self, kept: Mapping[str, NDArray[np.generic]]) -> CountMetrics:
        """Compare the numbers."""
        predicted, right = [], []
        for moment in sorted(kept):
            predicted += kept[moment].tolist()
            right += [each.count for each in self._of_moment[moment] if each.count is not None]
        return count_metrics(predicted, right)

    def score_lines(self, kept: Mapping[str, NDArray[np.generic]]) -> Mapping[int, float]:
        """Return 1 where the number, once rounded, is right."""
        return {
            each.line: count_metrics([predicted], [each.count]).accuracy / 100
            for moment in sorted(kept)
            for each, predicted in zip(self._of_moment[moment], kept[moment].tolist(), strict=True)
            if each.count is not None
        }


def right_answers(annotation: Annotation) -> Mapping[str, float]:
    """Return the score of each answer that has one."""
    if annotation.answer_scores:
        return annotation.answer_scores
    return {} if annotation.answer is None else {annotation.answer: 1.0}


def _group(annotations: Iterable[Annotation]) -> dict[str, list[Annotation]]:
    of_moment: dict[str, list[Annotation]] = {}
    for each in annotations:
        of_moment.setdefault(each.moment, []).append(each)
    return of_moment


def _mean_score(
    of_moment: Mapping[str, Sequence[Annotation]],
    scores: Mapping[int, float],
    moments: Iterable[str],
) -> GroupedScore:
    asked = [each for moment in sorted(moments) for each in of_moment[moment]]
    return mean_score([scores[each.line] for each in asked], [each.answer_type for each in asked])


def _to_numpy(values: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = values.numpy()
    return array
