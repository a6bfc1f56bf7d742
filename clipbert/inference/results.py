"""What a model answers, and how it is summed up from the logits of a video's clips."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from clipbert.model.aggregation import aggregate, clip_shares, match_probability
from clipbert.model.config import Aggregation

# Cosines of sentence vectors differ by a few hundredths between a good choice and a bad one. This
# spreads them over the probabilities; it is not calibrated, and zero_shot says so.
ZERO_SHOT_TEMPERATURE = 0.05


@dataclass(frozen=True)
class MatchResult:
    """How well a text describes a video.

    Attributes:
        score: P(match) after aggregation over clips, 0 to 1.
        clip_logits: (K, 2) float32, or (K, 1) for a head with one output.
        clip_shares: (K,) float32, adding up to 1: each clip's part in the log-sum-exp of "match".
    """

    score: float
    clip_logits: Tensor
    clip_shares: Tensor


@dataclass(frozen=True)
class ScoredAnswer:
    """One answer; logit is the aggregated one (zero-shot: the cosine of the best clip)."""

    answer: str
    probability: float
    logit: float


@dataclass(frozen=True)
class AnswerResult:
    """The answers to one question.

    Attributes:
        answers: best first; equal ones in the head's order.
        clip_logits: (K, A) float32, columns in the head's order or that of the choices.
        clip_shares: (K,) float32, adding up to 1: each clip's part in the best answer.
        zero_shot: the answers were ranked by recall vectors, not by a trained head.
    """

    answers: tuple[ScoredAnswer, ...]
    clip_logits: Tensor
    clip_shares: Tensor
    zero_shot: bool = False


@dataclass(frozen=True)
class CountResult:
    """The answer to a question for a number.

    Attributes:
        count: the aggregated output; not rounded.
        clip_logits: (K, 1) float32, each clip's own number.
    """

    count: float
    clip_logits: Tensor


def sum_up_match(logits: Tensor, *, aggregation: Aggregation) -> MatchResult:
    """Return how well a text describes a video.

    Args:
        logits: (K, 2) or (K, 1) of the retrieval head, of all clips that count.
        aggregation: of the model.
    """
    score = match_probability(aggregate(logits, aggregation))
    return MatchResult(float(score), logits, clip_shares(logits[:, -1]))


def sum_up_answers(
    logits: Tensor, answers: Sequence[str], *, aggregation: Aggregation, top_k: int
) -> AnswerResult:
    """Return the best answers to a question.

    Args:
        logits: (K, A), of all clips that count; of the qa head, or of the multiple-choice head
            with a column for each choice.
        answers: A of them.
        aggregation: of the model.
        top_k: answers to return, at least 1.
    """
    video = aggregate(logits, aggregation)  # (A,)
    order = video.argsort(descending=True, stable=True)
    return AnswerResult(
        answers=_scored(answers, video.softmax(0), video, order[:top_k]),
        clip_logits=logits,
        clip_shares=clip_shares(logits[:, order[0]]),
    )


def sum_up_count(logits: Tensor, *, aggregation: Aggregation) -> CountResult:
    """Return the number that a video's clips say: logits (K, 1) of the count head."""
    # A sum of exponentials of numbers is not a number: such a model counts by the mean.
    how = "mean" if aggregation == "lse" else aggregation
    return CountResult(float(aggregate(logits[:, 0], how)), logits)


def rank_by_similarity(recall: Tensor, choices: Sequence[str], *, vectors: Tensor) -> AnswerResult:
    """Rank choices by their similarity to the best clip, which needs no trained head.

    Args:
        recall: (K, R), the recall vectors of a video's clips.
        choices: A texts.
        vectors: (A, R), their recall vectors.
    """
    cosines = recall.float() @ vectors.T  # (K, A)
    best = cosines.max(dim=0).values  # (A,)
    order = best.argsort(descending=True, stable=True)
    return AnswerResult(
        answers=_scored(choices, (best / ZERO_SHOT_TEMPERATURE).softmax(0), best, order),
        clip_logits=cosines,
        clip_shares=clip_shares(cosines[:, order[0]] / ZERO_SHOT_TEMPERATURE),
        zero_shot=True,
    )


def _scored(
    answers: Sequence[str], probabilities: Tensor, logits: Tensor, order: Tensor
) -> tuple[ScoredAnswer, ...]:
    return tuple(
        ScoredAnswer(answers[index], float(probabilities[index]), float(logits[index]))
        for index in order.tolist()
    )
