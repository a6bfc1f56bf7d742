"""Scores and answers against what is right: retrieval ranks, accuracies, soft scores, counts.

Pure NumPy; percentages are 0 to 100. Nothing is rounded and ties are broken by position, unless
`authors_rounding` asks for the paper code's way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_AUTHORS_DECIMALS = 4
_SMALLEST_COUNT, _LARGEST_COUNT = 1, 10


@dataclass(frozen=True)
class RetrievalMetrics:
    """How far up the right item comes in a ranking, over all queries.

    Attributes:
        recall_at_1: percentage of queries whose right item is first.
        recall_at_5: percentage of queries whose right item is among the first 5.
        recall_at_10: percentage of queries whose right item is among the first 10.
        median_rank: of the right item, from 1; between two ranks for an even number of queries.
        mean_rank: of the right item, from 1.
        num_queries: how many were ranked.
    """

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    median_rank: float
    mean_rank: float
    num_queries: int


@dataclass(frozen=True)
class GroupedScore:
    """A mean score over questions, also by their type.

    Attributes:
        overall: percentage over all questions.
        by_type: percentage by answer type; empty if no question has a type.
        num_questions: how many there are.
        num_by_type: how many there are of each type.
    """

    overall: float
    by_type: Mapping[str, float]
    num_questions: int
    num_by_type: Mapping[str, int]


@dataclass(frozen=True)
class CountMetrics:
    """How well numbers were told.

    Attributes:
        accuracy: percentage of predictions that are right once rounded and held to 1-10.
        mean_squared_error: of the predictions, once rounded and held to 1-10.
        raw_mean_squared_error: of the predictions as they are.
        num_questions: how many there are.
    """

    accuracy: float
    mean_squared_error: float
    raw_mean_squared_error: float
    num_questions: int


def text_to_video(
    scores: NDArray[np.floating],
    video_of_text: Sequence[int] | NDArray[np.integer],
    *,
    authors_rounding: bool = False,
) -> RetrievalMetrics:
    """Rank all videos for each text.

        text_to_video(np.array([[0.9, 0.1], [0.8, 0.2]]), [0, 1])  ->  ranks 1 and 2

    Args:
        scores: (texts, videos), higher is better, finite.
        video_of_text: (texts,), the column of each text's own video.
        authors_rounding: round scores to 4 decimals first, as the paper's code does.

    Returns:
        Metrics over texts. Of equal scores the earlier column comes first.

    Raises:
        ValueError: shapes that do not go together, no texts, or a score that is not finite.
    """
    return _from_ranks(
        text_to_video_ranks(scores, video_of_text, authors_rounding=authors_rounding)
    )


def text_to_video_ranks(
    scores: NDArray[np.floating],
    video_of_text: Sequence[int] | NDArray[np.integer],
    *,
    authors_rounding: bool = False,
) -> list[int]:
    """Return each text's rank of its own video, from 1; arguments and errors as text_to_video."""
    scores, right = _checked(scores, video_of_text, authors_rounding=authors_rounding)
    return [_rank(row, [own]) for row, own in zip(scores, right, strict=True)]


def video_to_text(
    scores: NDArray[np.floating],
    video_of_text: Sequence[int] | NDArray[np.integer],
    *,
    authors_rounding: bool = False,
) -> RetrievalMetrics:
    """Rank all texts for each video; the best placed of its own texts counts.

    The paper's code takes the last of a video's texts only, which makes a video with many texts
    look worse than it is; authors_rounding asks for that too.

    Args:
        scores: (texts, videos), higher is better, finite.
        video_of_text: (texts,), the column of each text's own video.
        authors_rounding: round scores to 4 decimals first, and count only the last text of a
            video as right.

    Returns:
        Metrics over those videos that have a text. Of equal scores the earlier row comes first.

    Raises:
        ValueError: as text_to_video.
    """
    scores, right = _checked(scores, video_of_text, authors_rounding=authors_rounding)
    texts_of: dict[int, list[int]] = {}
    for text, video in enumerate(right.tolist()):
        texts_of.setdefault(video, []).append(text)
    return _from_ranks(
        [
            _rank(scores[:, video], texts[-1:] if authors_rounding else texts)
            for video, texts in sorted(texts_of.items())
        ]
    )


def mean_score(scores: Sequence[float], types: Sequence[str | None]) -> GroupedScore:
    """Return the mean score of questions as a percentage, overall and by type.

    mean_score([1, 0, 0.3], ["color", "color", None])  ->  43.3 overall, color 50

    With 1 for a right answer and 0 for a wrong one it is an accuracy (open-ended questions,
    multiple choice); with the label's score of the given answer it is VQA's soft score.

    Args:
        scores: one a question, 0 to 1.
        types: answer type of each question; None for a question without one.

    Raises:
        ValueError: no questions, or lists of two lengths.
    """
    if not scores:
        raise ValueError("need the score of at least one question")
    of_type: dict[str, list[float]] = {}
    for score, answer_type in zip(scores, types, strict=True):
        if answer_type is not None:
            of_type.setdefault(answer_type, []).append(score)
    return GroupedScore(
        overall=_percentage(scores),
        by_type={name: _percentage(part) for name, part in sorted(of_type.items())},
        num_questions=len(scores),
        num_by_type={name: len(part) for name, part in sorted(of_type.items())},
    )


def count_metrics(predicted: Sequence[float], right: Sequence[int]) -> CountMetrics:
    """Compare predicted numbers with the right ones (TGIF-QA's counting questions).

    Args:
        predicted: outputs of the count head; a half is rounded up.
        right: as many numbers.

    Raises:
        ValueError: no numbers, or two lengths.

    Source: the authors' code rounds as int(x + 0.5) and holds the number to 1-10. Published
    errors of other models are of rounded numbers too.
    """
    if not predicted or len(predicted) != len(right):
        raise ValueError(f"got {len(predicted)} predictions for {len(right)} numbers")
    raw, wanted = np.asarray(predicted, dtype=np.float64), np.asarray(right, dtype=np.int64)
    rounded = np.clip(np.floor(raw + 0.5), _SMALLEST_COUNT, _LARGEST_COUNT)
    return CountMetrics(
        accuracy=100 * float(np.mean(rounded == wanted)),
        mean_squared_error=float(np.mean((rounded - wanted) ** 2)),
        raw_mean_squared_error=float(np.mean((raw - wanted) ** 2)),
        num_questions=len(right),
    )


def _checked(
    scores: NDArray[np.floating],
    video_of_text: Sequence[int] | NDArray[np.integer],
    *,
    authors_rounding: bool,
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    right = np.asarray(video_of_text, dtype=np.int64)
    if scores.ndim != 2 or right.shape != scores.shape[:1] or len(right) == 0:  # noqa: PLR2004
        raise ValueError(f"got scores {scores.shape} for the videos of {right.shape} texts")
    if right.min() < 0 or right.max() >= scores.shape[1]:
        raise ValueError(f"a text's video is not among the {scores.shape[1]} columns")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    if authors_rounding:
        scores = scores.astype(np.float64).round(_AUTHORS_DECIMALS)
    return scores, right


def _rank(scores: NDArray[np.floating], right: Sequence[int]) -> int:
    """Return the rank, from 1, of the best placed right item. Of equals the earlier comes first."""
    best = min(right, key=lambda item: (-scores[item], item))
    above = np.count_nonzero(scores > scores[best])
    equal_before = np.count_nonzero(scores[:best] == scores[best])
    return int(above + equal_before) + 1


def _from_ranks(ranks: Sequence[int]) -> RetrievalMetrics:
    array = np.asarray(ranks)
    at_1, at_5, at_10 = (100 * float(np.mean(array <= k)) for k in (1, 5, 10))
    return RetrievalMetrics(
        recall_at_1=at_1,
        recall_at_5=at_5,
        recall_at_10=at_10,
        median_rank=float(np.median(array)),
        mean_rank=float(np.mean(array)),
        num_queries=len(ranks),
    )


def _percentage(scores: Sequence[float]) -> float:
    return 100 * math.fsum(scores) / len(scores)
