"""Whether a finetuned model takes the place of the one that serves. Pure.

Both models answer the same held-out examples, each right (1) or wrong (0); the difference of their
shares has an interval from a paired bootstrap.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from clipbert.evaluation.bootstrap import paired_bootstrap
from policy.finetunes.request import FinetuneGate


class Verdict(StrEnum):
    """Why a candidate was promoted or not."""

    PROMOTED = "promoted"
    TOO_FEW_EXAMPLES = "too_few_examples"
    NO_GAIN = "no_gain"
    NOT_SIGNIFICANT = "not_significant"
    REGRESSION = "regression"
    PROMOTION_OFF = "promotion_off"
    BELOW_BASELINE = "below_baseline"


@dataclass(frozen=True)
class Compared:
    """How two answered the same examples, in the same order.

    Attributes:
        candidate: 1 for each example that the finetuned model got right, else 0.
        reference: the same of what it is compared with.
        reference_name: what that is called.
        is_baseline: it is not a model that serves but what costs nothing.
    """

    candidate: Sequence[float]
    reference: Sequence[float]
    reference_name: str
    is_baseline: bool = False


@dataclass(frozen=True)
class Difference:
    """Candidate minus reference, each the share of examples got right.

    Attributes:
        candidate: 0 to 1.
        reference: 0 to 1.
        difference: of the two.
        low: lower end of the interval around it.
        high: upper end.
        num_examples: of each.
    """

    candidate: float
    reference: float
    difference: float
    low: float
    high: float
    num_examples: int


@dataclass(frozen=True)
class Decision:
    """What becomes of a candidate.

    Attributes:
        verdict: a code.
        reason: the same as a sentence, with the figures.
        holdout: on the held-out examples; None if there were none.
        regression: on the regression data set; None if there is none.
    """

    verdict: Verdict
    reason: str
    holdout: Difference | None
    regression: Difference | None = None

    @property
    def is_promoted(self) -> bool:
        """Whether the candidate is to serve."""
        return self.verdict == Verdict.PROMOTED

    def to_json(self) -> dict[str, Any]:
        """Return what a finetune's report says of it."""
        return {
            "promoted": self.is_promoted,
            "code": self.verdict.value,
            "reason": self.reason,
            "holdout": None if self.holdout is None else dataclasses.asdict(self.holdout),
            "regression": None if self.regression is None else dataclasses.asdict(self.regression),
        }


def decide(gate: FinetuneGate, holdout: Compared, regression: Compared | None = None) -> Decision:
    """Decide whether a candidate is promoted.

    Args:
        gate: what it has to fulfil.
        holdout: on the held-out examples of its data set.
        regression: on those of the gate's regression data set; None if it names none.

    Raises:
        ValueError: the two did not answer the same number of examples.
    """
    measured = _measure(holdout, gate)
    dropped = None if regression is None else _measure(regression, gate)
    verdict, reason = _judge(gate, holdout, measured, regression, dropped)
    return Decision(verdict, reason, measured, dropped)


def _judge(
    gate: FinetuneGate,
    holdout: Compared,
    measured: Difference | None,
    regression: Compared | None,
    dropped: Difference | None,
) -> tuple[Verdict, str]:
    if measured is None or measured.num_examples < gate.min_holdout:
        count = 0 if measured is None else measured.num_examples
        return Verdict.TOO_FEW_EXAMPLES, (
            f"the holdout has {count} examples and at least {gate.min_holdout} are needed"
        )
    refused = _find_no_gain(gate, holdout, measured)
    if refused is None and regression is not None:
        refused = _find_regression(gate, regression, dropped)
    if refused is not None:
        return refused
    figures = _figures(holdout, measured)
    if not gate.promote:
        return Verdict.PROMOTION_OFF, f"{figures}: good enough, but gate.promote is false"
    return Verdict.PROMOTED, figures


def _find_no_gain(
    gate: FinetuneGate, holdout: Compared, measured: Difference
) -> tuple[Verdict, str] | None:
    figures = _figures(holdout, measured)
    if holdout.is_baseline:
        if measured.difference < 0:
            return Verdict.BELOW_BASELINE, f"{figures}: worse than what costs nothing"
    elif measured.difference <= 0 or measured.difference < gate.min_gain:
        wanted = f"at least {gate.min_gain:.1%} more" if gate.min_gain > 0 else "more"
        return Verdict.NO_GAIN, f"{figures}: {wanted} is needed"
    elif gate.require_significance and measured.low <= 0:
        return Verdict.NOT_SIGNIFICANT, (
            f"{figures}: the difference may be chance, its {gate.confidence:.0%} interval goes "
            f"from {measured.low:+.1%} to {measured.high:+.1%}"
        )
    return None


def _find_regression(
    gate: FinetuneGate, regression: Compared, dropped: Difference | None
) -> tuple[Verdict, str] | None:
    if dropped is None:
        return Verdict.REGRESSION, "the regression data set has no held-out examples"
    if dropped.difference < -gate.max_drop:
        return Verdict.REGRESSION, (
            f"on the regression data set {_figures(regression, dropped)}: a loss of more than "
            f"{gate.max_drop:.1%}"
        )
    return None


def _measure(compared: Compared, gate: FinetuneGate) -> Difference | None:
    candidate, reference = compared.candidate, compared.reference
    if len(candidate) != len(reference):
        raise ValueError(f"{len(candidate)} and {len(reference)} scores cannot be compared")
    if not candidate:
        return None
    interval = paired_bootstrap(candidate, reference, confidence=gate.confidence)
    return Difference(
        candidate=sum(candidate) / len(candidate),
        reference=sum(reference) / len(reference),
        difference=interval.difference,
        low=interval.low,
        high=interval.high,
        num_examples=len(candidate),
    )


def _figures(compared: Compared, measured: Difference) -> str:
    return (
        f"{measured.candidate:.1%} right of {measured.num_examples}, "
        f"{compared.reference_name} {measured.reference:.1%} ({measured.difference:+.1%})"
    )
