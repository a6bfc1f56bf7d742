"""Losses over the clips of videos: each aggregates clip logits first, as the answer will.

    task                                    loss
    retrieval, two outputs                  clip_cross_entropy, label 1 for a match
    retrieval, one output                   clip_ranking
    question answering                      clip_cross_entropy over the answers
    question answering, several answers     clip_binary_cross_entropy, soft labels (VQA)
    multiple choice                         clip_multiple_choice
    counting                                clip_squared_error
    pretraining                             masked_words for the words, clip_cross_entropy for the
                                            match; their sum

Source: the authors' code (Lei et al., CVPR 2021, section 3.2).
"""

from torch import Tensor
from torch.nn import functional

from clipbert.model.aggregation import aggregate
from clipbert.model.config import Aggregation

# The authors' margin, in probability.
RANKING_MARGIN = 0.2
IGNORED = -100
"""The label of a token that was not masked."""


def clip_cross_entropy(logits: Tensor, labels: Tensor, *, how: Aggregation) -> Tensor:
    """Cross-entropy of the aggregated logits.

    With "lse" this is -log(sum over clips of exp s[i, y] / sum over clips and classes of
    exp s[i, c]), the paper's formula: a sum over clips and classes is a sum over classes of sums
    over clips.

    Args:
        logits: (K, N, O), of K clips for N pairs of video and text.
        labels: (N,) int64, the right class.
        how: the aggregation over clips.

    Returns:
        The mean over N, a scalar.
    """
    return functional.cross_entropy(aggregate(logits, how), labels)


def clip_ranking(
    logits: Tensor, how: Aggregation, *, num_texts: int, margin: float = RANKING_MARGIN
) -> Tensor:
    """Return the loss by which a video's right text wins over its wrong ones by a margin.

    Args:
        logits: (K, N, 1), N = videos * num_texts; of each video's texts the first is right.
        how: "mean" or "max".
        num_texts: texts a video, at least 2.
        margin: by how much P(match) of the right text should be above that of a wrong one.

    Returns:
        The mean over pairs of a right and a wrong text, a scalar.

    Raises:
        ValueError: "lse", which is defined for classes only; another shape.
    """
    _refuse_lse(how)
    _check_single_output(logits)
    if num_texts < 2 or logits.shape[1] % num_texts:  # noqa: PLR2004
        raise ValueError(f"{logits.shape[1]} rows cannot be videos of {num_texts} texts each")
    scores = aggregate(logits, how)[:, 0].sigmoid().unflatten(0, (-1, num_texts))
    shortfall: Tensor = margin + scores[:, 1:] - scores[:, :1]
    return shortfall.clamp(min=0).mean()


def clip_binary_cross_entropy(logits: Tensor, targets: Tensor, *, how: Aggregation) -> Tensor:
    """Judge each answer by itself, against soft labels.

    Args:
        logits: (K, N, A).
        targets: (N, A), how right each answer is, 0 to 1.
        how: "mean" or "max".

    Returns:
        The sum over answers, averaged over N, a scalar.

    Raises:
        ValueError: "lse", which is defined for classes that exclude each other.
    """
    _refuse_lse(how)
    video = aggregate(logits, how)  # (N, A)
    loss = functional.binary_cross_entropy_with_logits(video, targets)
    return loss * video.shape[1]


def clip_multiple_choice(
    logits: Tensor, labels: Tensor, *, how: Aggregation, num_choices: int
) -> Tensor:
    """Cross-entropy over a question's choices.

    Args:
        logits: (K, N, 1), N = questions * num_choices, the choices of a question together.
        labels: (questions,) int64, which choice is right.
        how: the aggregation over clips.
        num_choices: choices a question.

    Returns:
        The mean over questions, a scalar.

    Raises:
        ValueError: another shape.
    """
    _check_single_output(logits)
    if num_choices < 1 or logits.shape[1] % num_choices:
        raise ValueError(f"{logits.shape[1]} rows cannot be questions of {num_choices} choices")
    choices = logits[..., 0].unflatten(1, (-1, num_choices))  # (K, questions, num_choices)
    return clip_cross_entropy(choices, labels, how=how)


def clip_squared_error(logits: Tensor, counts: Tensor, *, how: Aggregation) -> Tensor:
    """Squared distance of the aggregated output from the right number.

    Args:
        logits: (K, N, 1).
        counts: (N,), the right numbers.
        how: "mean" or "max".

    Returns:
        The mean over N, a scalar.

    Raises:
        ValueError: "lse", which is defined for classes only; another shape.
    """
    _refuse_lse(how)
    _check_single_output(logits)
    return functional.mse_loss(aggregate(logits, how)[:, 0], counts.to(logits.dtype))


def masked_words(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the words that were masked.

    The authors divide by all tokens, masked or not, which makes this term smaller by the part
    that is masked; here it is the usual mean.

    Args:
        logits: (N, L, vocabulary).
        labels: (N, L) int64: the word that was there, or IGNORED.

    Returns:
        The mean over masked tokens, a scalar; 0 if none is.
    """
    per_token = word_losses(logits, labels)
    num_masked = (labels != IGNORED).sum()
    return per_token.sum() / num_masked.clamp(min=1)


def word_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each token: (N, L), 0 where the label is IGNORED. Arguments as above."""
    losses: Tensor = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.reshape(labels.shape)


def _refuse_lse(how: Aggregation) -> None:
    if how == "lse":
        raise ValueError("log-sum-exp goes with cross-entropy only: take mean or max")


def _check_single_output(logits: Tensor) -> None:
    if logits.ndim != 3 or logits.shape[2] != 1:  # noqa: PLR2004
        raise ValueError(f"need logits (K, N, 1), got {tuple(logits.shape)}")
