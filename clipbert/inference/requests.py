"""What is asked of a ClipBert: plain values, tensors on the CPU."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class EncodedClips:
    """What the CNN saw in N clips.

    Attributes:
        tokens: (N, h, w, D) float16 on the CPU: visual tokens before row, column and type
            embeddings.
        recall: (N, R) float32 on the CPU, of length 1; None if the model is not a recall encoder.
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
class QuestionRequest:
    """A question about one video.

    Attributes:
        tokens: (K, h, w, D), as encode_clips gave them.
        question: the text.
        choices: the answers to choose from, for choose_all(); answer_all() takes the head's own.
        recall: (K, R), as encode_clips gave them: lets choose_all() answer without a trained head.
        places: as in MatchRequest.
    """

    tokens: Tensor
    question: str
    choices: tuple[str, ...] = ()
    recall: Tensor | None = None
    places: tuple[float, ...] | None = None
