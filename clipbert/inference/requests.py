"""What is asked of a Predictor and what it answers: plain values, tensors on the CPU."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class EncodedClips:
    """What the CNN saw in N clips.

    Attributes:
        tokens: (N, h, w, D) float16 on the CPU: visual tokens before row, column and type
            embeddings.
        recall: (N, R) float32 on the CPU, of length 1; None if the model is no recall encoder.
    """

    tokens: Tensor
    recall: Tensor | None


@dataclass(frozen=True)
class MatchRequest:
    """Does this text describe this video?

    Attributes:
        tokens: (K, h, w, D), as encode_clips gave them.
        text: the text.
        places: where in the video each clip's middle lies, 0 to 1; None spreads them evenly. Only
            a model with clip embeddings looks at them.
    """

    tokens: Tensor
    text: str
    places: tuple[float, ...] | None = None


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
class QuestionRequest:
    """A question about one video.

    Attributes:
        tokens: (K, h, w, D), as encode_clips gave them.
        question: the text.
        choices: the answers to choose from, for choose(); answer() takes the head's own.
        recall: (K, R), as encode_clips gave them: lets choose() answer without a trained head.
        places: as in MatchRequest.
    """

    tokens: Tensor
    question: str
    choices: tuple[str, ...] = ()
    recall: Tensor | None = None
    places: tuple[float, ...] | None = None


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
