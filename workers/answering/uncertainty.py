"""How unsure an answer is: what a person's label would teach the model most about.

Two doubts are told apart. The *entropy* of the video's answer says that the model does not know.
The *disagreement* of its clips says that each clip may know, but they see different things.

With the log-sum-exp over clips the two are parts of one sum, exactly. The answer's distribution is
then the mixture of the clips' own, each weighted by its part of the sum of exponentials, and

    entropy of the answer  =  mean entropy of the clips  +  their Jensen-Shannon divergence

For the other aggregations the divergence is taken of the same mixture; clips weigh the same under
"mean". Imports torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from clipbert.model.aggregation import aggregate
from clipbert.model.config import Aggregation

_HALF: Final = 0.5
_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Uncertainty:
    """How unsure one answer is; all numbers lie between 0 and 1.

    Attributes:
        entropy: of the distribution over all answers, not only the best few; 1 is all alike.
        disagreement: Jensen-Shannon divergence of the clips' distributions; 1 is as different as
            so many clips and answers allow, 0 for a single clip.
        doubts: one a clip, adding up to 1: its part of the doubt. A clip has much of it that weighs
            much and is unsure itself, or that says what the others do not.
    """

    entropy: float
    disagreement: float
    doubts: tuple[float, ...]

    @property
    def score(self) -> float:
        """How much a label is worth: 1 - (1 - entropy) * (1 - disagreement).

        Either doubt is enough. Two clips that are sure of two of a thousand answers have an
        entropy of 0.1 and a disagreement of 1: a label is worth as much as for the even thousand.
        """
        return 1 - (1 - self.entropy) * (1 - self.disagreement)

    @property
    def doubtful_clips(self) -> range:
        """The shortest run of neighbouring clips that holds half of the doubt: where to look."""
        return _shortest_run(self.doubts, _HALF)


def measure_uncertainty(clip_logits: Tensor, *, aggregation: Aggregation) -> Uncertainty:
    """Measure how unsure an answer is from what each clip says.

    Args:
        clip_logits: (K, A) of all answers; divided by the temperature if there is one.
        aggregation: how the clips' logits become the video's.

    Raises:
        ValueError: another shape, no clips or no answers.
    """
    if clip_logits.ndim != 2 or clip_logits.numel() == 0:  # noqa: PLR2004
        raise ValueError(f"need logits of shape (K, A), got {tuple(clip_logits.shape)}")
    logits = clip_logits.double()
    num_clips, num_answers = logits.shape
    video = aggregate(logits, aggregation).softmax(dim=0)  # (A,)
    clips = logits.softmax(dim=1)  # (K, A)
    weights = _weights(logits, aggregation)  # (K,)
    mixture = weights @ clips  # (A,)
    # What a clip's answer costs in bits of the mixture: its own entropy and its divergence from it.
    costs = weights * -torch.special.xlogy(clips, mixture).sum(dim=1)  # (K,)
    own = weights @ torch.special.entr(clips).sum(dim=1)
    divergence = float(costs.sum() - own)
    return Uncertainty(
        entropy=_part(float(torch.special.entr(video).sum()), num_answers),
        disagreement=_part(divergence, min(num_clips, num_answers)),
        doubts=tuple((costs / costs.sum() if costs.sum() > _ROUNDING else weights).tolist()),
    )


def _weights(logits: Tensor, aggregation: Aggregation) -> Tensor:
    if aggregation == "mean":
        return torch.full((len(logits),), 1 / len(logits), dtype=logits.dtype)
    return logits.logsumexp(dim=1).softmax(dim=0)


def _part(nats: float, num_outcomes: int) -> float:
    """Return an entropy as a part of the most that so many outcomes allow, kept between 0 and 1."""
    return min(1.0, max(0.0, nats / math.log(num_outcomes))) if num_outcomes > 1 else 0.0


def _shortest_run(parts: Sequence[float], least: float) -> range:
    best, begin, total = range(len(parts)), 0, 0.0
    for end, part in enumerate(parts, start=1):
        total += part
        while begin < end - 1 and total - parts[begin] >= least - _ROUNDING:
            total -= parts[begin]
            begin += 1
        if total >= least - _ROUNDING and end - begin < len(best):
            best = range(begin, end)
    return best
