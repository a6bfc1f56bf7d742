import math

import pytest
import torch

from workers.answering.uncertainty import Uncertainty, measure_uncertainty

SURE = 60.0  # a logit that leaves the other answers nothing


def peak(answer, *, num_answers=4, height=SURE):
    logits = torch.zeros(num_answers)
    logits[answer] = height
    return logits


@pytest.mark.parametrize("aggregation", ["lse", "mean", "max"])
def test_an_answer_that_every_clip_is_sure_of_leaves_no_doubt(aggregation):
    found = measure_uncertainty(torch.stack([peak(1)] * 3), aggregation=aggregation)

    assert found.entropy == pytest.approx(0, abs=1e-6)
    assert found.disagreement == pytest.approx(0, abs=1e-6)
    assert found.score == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("aggregation", ["lse", "mean", "max"])
def test_clips_that_know_nothing_agree_on_that(aggregation):
    found = measure_uncertainty(torch.zeros(3, 1000), aggregation=aggregation)

    assert found.entropy == pytest.approx(1)
    assert found.disagreement == pytest.approx(0, abs=1e-9)
    assert found.score == pytest.approx(1)
    assert found.doubts == pytest.approx([1 / 3] * 3)


def test_two_sure_clips_that_contradict_each_other_are_worth_a_label():
    logits = torch.stack([peak(0, num_answers=1000), peak(1, num_answers=1000)])

    found = measure_uncertainty(logits, aggregation="lse")

    assert found.entropy == pytest.approx(math.log(2) / math.log(1000), abs=1e-6)
    assert found.disagreement == pytest.approx(1)
    assert found.score == pytest.approx(1)


def test_the_whole_vocabulary_counts_not_only_the_best_few():
    few = measure_uncertainty(torch.tensor([[2.0, 1.0, -9.0, -9.0]]), aggregation="lse")
    many = measure_uncertainty(torch.tensor([[2.0, 1.0, 0.9, 0.8]]), aggregation="lse")

    assert many.entropy > few.entropy


def test_with_log_sum_exp_the_entropy_is_the_clips_own_and_their_divergence():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)) * 3
    found = measure_uncertainty(logits, aggregation="lse")

    clips = logits.double().softmax(dim=1)
    weights = logits.double().logsumexp(dim=1).softmax(dim=0)
    own = float(weights @ torch.special.entr(clips).sum(dim=1))
    total = found.entropy * math.log(7)
    assert total == pytest.approx(own + found.disagreement * math.log(5))


def test_doubts_lie_where_clips_are_unsure_or_say_something_else():
    unsure = measure_uncertainty(
        torch.stack([peak(0, height=8), peak(0, height=8), torch.full((4,), 6.5)]),
        aggregation="lse",
    )
    different = measure_uncertainty(
        torch.stack([peak(0), peak(0), peak(2), peak(0)]), aggregation="mean"
    )

    assert max(range(3), key=unsure.doubts.__getitem__) == 2
    assert different.doubtful_clips == range(2, 3)
    for found in (unsure, different):
        assert sum(found.doubts) == pytest.approx(1)


def test_a_clip_that_does_not_weigh_has_no_part_in_the_doubt():
    loud, silent = torch.tensor([9.0, 9.0, 0.0]), torch.full((3,), -9.0)

    found = measure_uncertainty(torch.stack([silent, loud]), aggregation="lse")

    assert found.doubts == pytest.approx([0, 1], abs=1e-6)
    assert found.disagreement == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("doubts", "run"),
    [
        ((1.0,), range(1)),
        ((0.25, 0.25, 0.25, 0.25), range(2)),
        ((0.1, 0.1, 0.7, 0.1), range(2, 3)),
        ((0.3, 0.1, 0.3, 0.3), range(2, 4)),
        ((0.45, 0.1, 0.45), range(2)),
    ],
)
def test_the_moment_is_the_shortest_run_with_half_of_the_doubt(doubts, run):
    assert Uncertainty(0.5, 0.5, doubts).doubtful_clips == run


def test_one_answer_or_one_clip_is_no_error():
    assert measure_uncertainty(torch.zeros(3, 1), aggregation="lse").score == 0
    assert measure_uncertainty(torch.zeros(1, 3), aggregation="lse").disagreement == 0


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (1, 2, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        measure_uncertainty(torch.zeros(shape), aggregation="lse")
