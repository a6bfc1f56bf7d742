import numpy as np
import pytest

from clipbert.evaluation.bootstrap import paired_bootstrap


def test_a_clear_difference_has_an_interval_above_zero():
    interval = paired_bootstrap([1.0] * 60 + [0.0] * 40, [1.0] * 40 + [0.0] * 60)

    assert interval.difference == pytest.approx(0.2)
    assert 0.1 < interval.low < 0.2 < interval.high < 0.3


def test_a_difference_of_few_examples_may_be_chance():
    interval = paired_bootstrap([1, 1, 1, 0], [0, 1, 1, 0])

    assert interval == (0.25, 0.0, 0.75)


def test_the_interval_is_that_of_draws_of_examples():
    generator = np.random.default_rng(3)
    candidate, serving = generator.random(80), generator.random(80)

    interval = paired_bootstrap(candidate.tolist(), serving.tolist(), num_draws=20_000)

    rows = generator.integers(0, 80, size=(20_000, 80))
    drawn = (candidate - serving)[rows].mean(axis=1)
    assert interval.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.005)
    assert interval.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.005)


def test_the_same_seed_gives_the_same_interval():
    scores = ([1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 1, 1])

    assert paired_bootstrap(*scores, seed=5) == paired_bootstrap(*scores, seed=5)
    assert paired_bootstrap(*scores, confidence=0.5).low >= paired_bootstrap(*scores).low


@pytest.mark.parametrize(
    ("candidate", "serving", "settings"),
    [
        ([], [], {}),
        ([1], [1, 0], {}),
        ([float("nan")], [1], {}),
        ([1], [1], {"num_draws": 0}),
        ([1], [1], {"confidence": 1.0}),
    ],
)
def test_wrong_arguments_are_refused(candidate, serving, settings):
    with pytest.raises(ValueError, match=r"need|finite"):
        paired_bootstrap(candidate, serving, **settings)
