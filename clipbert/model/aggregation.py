"""Clip logits -> video logits: mean, max, log-sum-exp; and which clip an answer rests on.

Always logits, never probabilities. The log-sum-exp of K clips is log K above their mean for equal
clips, in every class alike, so that a softmax over classes does not see it.
"""

import torch
from torch import Tensor

from clipbert.model.config import Aggregation

_MATCH = 1  # of the retrieval head's two outputs


def aggregate(logits: Tensor, how: Aggregation) -> Tensor:
    """Aggregate the logits of K clips, each class for itself.

    Args:
        logits: (K, ...), K at least 1; (K, A) for one video, (K, N, A) for several with the
            same number of clips.
        how: "mean", "max" or "lse".

    Returns:
        (...), of the same dtype.

    Raises:
        ValueError: no clips, or another name.

    Source: the authors' code; section 3.2 of the paper has the log-sum-exp.
    """
    if logits.ndim == 0 or len(logits) == 0:
        raise ValueError(f"need the logits of at least one clip, got shape {tuple(logits.shape)}")
    if how == "mean":
        return logits.mean(dim=0)
    if how == "max":
        return logits.amax(dim=0)
    if how == "lse":
        return logits.logsumexp(dim=0)
    raise ValueError(f"aggregation is {how!r}: must be mean, max or lse")


def clip_shares(logits: Tensor) -> Tensor:
    """Return each clip's exact part in the log-sum-exp over clips.

    clip_shares(tensor([0.0, 0.0, 5.0]))  ->  [0.0066, 0.0066, 0.9867]

    exp(logit of the clip) / sum of exp over clips: how much of the sum would go with the clip.

    Args:
        logits: (K, ...), of one class or of each.

    Returns:
        (K, ...) float32, adding up to 1 over clips.
    """
    return logits.float().softmax(dim=0)


def match_probability(video_logits: Tensor) -> Tensor:
    """Turn aggregated retrieval logits into P(match).

    Args:
        video_logits: (..., 2) of a head with two outputs, or (..., 1) of a ranking head.

    Returns:
        (...), float32, 0 to 1.

    Raises:
        ValueError: another number of outputs.
    """
    outputs = video_logits.shape[-1]
    if outputs == 1:
        return torch.sigmoid(video_logits.float())[..., 0]
    if outputs != 2:  # noqa: PLR2004
        raise ValueError(f"a retrieval head has 1 or 2 outputs, got {outputs}")
    return video_logits.float().softmax(dim=-1)[..., _MATCH]
