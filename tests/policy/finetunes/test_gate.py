import pytest

from policy.finetunes.gate import Compared, Verdict, decide
from policy.finetunes.request import FinetuneGate


def compared(candidate, reference, *, is_baseline=False):
    """Make scores of 100 examples: so many right of each, as many right together as can be."""
    return Compared(
        candidate=[1.0] * candidate + [0.0] * (100 - candidate),
        reference=[1.0] * reference + [0.0] * (100 - reference),
        reference_name="the other",
        is_baseline=is_baseline,
    )


def test_a_clearly_better_model_is_promoted_and_the_reason_has_the_figures():
    decision = decide(FinetuneGate(), compared(80, 60))

    assert decision.is_promoted
    assert decision.reason == "80.0% right of 100, the other 60.0% (+20.0%)"
    assert decision.holdout.difference == pytest.approx(0.2)
    assert 0 < decision.holdout.low < 0.2 < decision.holdout.high


@pytest.mark.parametrize(
    ("gate", "holdout", "regression", "verdict"),
    [
        (FinetuneGate(min_holdout=101), compared(80, 60), None, Verdict.TOO_FEW_EXAMPLES),
        (FinetuneGate(), compared(60, 60), None, Verdict.NO_GAIN),
        (FinetuneGate(), compared(59, 60), None, Verdict.NO_GAIN),
        (FinetuneGate(min_gain=0.25), compared(80, 60), None, Verdict.NO_GAIN),
        (FinetuneGate(), compared(61, 60), None, Verdict.NOT_SIGNIFICANT),
        (FinetuneGate(require_significance=False), compared(61, 60), None, Verdict.PROMOTED),
        (FinetuneGate(), compared(80, 60), compared(50, 53), Verdict.REGRESSION),
        (FinetuneGate(), compared(80, 60), compared(50, 52), Verdict.PROMOTED),
        (FinetuneGate(promote=False), compared(80, 60), None, Verdict.PROMOTION_OFF),
        (FinetuneGate(promote=False), compared(60, 60), None, Verdict.NO_GAIN),
        (FinetuneGate(), compared(60, 60, is_baseline=True), None, Verdict.PROMOTED),
        (FinetuneGate(), compared(59, 60, is_baseline=True), None, Verdict.BELOW_BASELINE),
        (
            FinetuneGate(promote=False),
            compared(61, 60, is_baseline=True),
            None,
            Verdict.PROMOTION_OFF,
        ),
    ],
)
def test_each_way_to_be_kept_as_a_candidate_has_its_code(gate, holdout, regression, verdict):
    decision = decide(gate, holdout, regression)

    assert decision.verdict == verdict
    assert decision.to_json()["code"] == verdict.value
    assert decision.is_promoted == (verdict == Verdict.PROMOTED)


def test_without_held_out_examples_nothing_is_promoted():
    decision = decide(FinetuneGate(min_holdout=1), Compared([], [], "the other"))

    assert (decision.verdict, decision.holdout) == (Verdict.TOO_FEW_EXAMPLES, None)


def test_a_regression_data_set_without_held_out_examples_holds_back():
    decision = decide(FinetuneGate(), compared(80, 60), Compared([], [], "the other"))

    assert decision.verdict == Verdict.REGRESSION


def test_scores_of_different_examples_are_refused():
    with pytest.raises(ValueError, match="2 and 1 scores"):
        decide(FinetuneGate(), Compared([1.0, 0.0], [1.0], "the other"))


def test_the_same_scores_give_the_same_interval():
    assert decide(FinetuneGate(), compared(70, 60)) == decide(FinetuneGate(), compared(70, 60))
