import math

import pytest
import torch

from clipbert.model.aggregation import aggregate, clip_shares, match_probability

LOGITS = torch.tensor([[0.0, 1.0], [2.0, -1.0], [4.0, 0.0]])  # (K, A)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [2.0, 0.0]),
        ("max", [4.0, 1.0]),
        (
            "lse",
            [
                math.log(math.exp(0) + math.exp(2) + math.exp(4)),
                math.log(math.exp(1) + math.exp(-1) + math.exp(0)),
            ],
        ),
    ],
)
def test_clips_are_aggregated_class_by_class(how, expected):
    torch.testing.assert_close(aggregate(LOGITS, how), torch.tensor(expected))


@pytest.mark.parametrize("how", ["mean", "max", "lse"])
def test_many_videos_are_aggregated_as_one_by_one(how):
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))

    together = aggregate(logits, how)

    alone = torch.stack([aggregate(logits[:, video], how) for video in range(3)])
    assert torch.equal(together, alone)


def test_repeating_a_clip_leaves_lse_probabilities_as_they_were():
    once = aggregate(LOGITS, "lse").softmax(-1)

    twice = aggregate(LOGITS.repeat(2, 1), "lse").softmax(-1)

    torch.testing.assert_close(once, twice)


def test_large_logits_do_not_overflow():
    assert aggregate(torch.tensor([[1000.0], [1000.0]]), "lse").item() == pytest.approx(1000.693)


def test_a_clips_share_is_its_part_of_the_sum_of_exponentials():
    logits = LOGITS[:, 0]

    shares = clip_shares(logits)

    expected = logits.exp() / aggregate(logits, "lse").exp()
    torch.testing.assert_close(shares, expected)
    assert shares.sum().item() == pytest.approx(1.0)


def test_shares_are_given_for_each_class():
    shares = clip_shares(LOGITS.to(torch.bfloat16))

    assert shares.dtype == torch.float32
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(2))


@pytest.mark.parametrize(
    ("logits", "expected"), [([1.0, 1.0], 0.5), ([0.0, math.log(3.0)], 0.75), ([0.0], 0.5)]
)
def test_match_probability_reads_heads_of_one_and_two_outputs(logits, expected):
    assert match_probability(torch.tensor([logits])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda: aggregate(torch.zeros(0, 2), "lse"),
        lambda: aggregate(torch.tensor(1.0), "lse"),
        lambda: aggregate(LOGITS, "sum"),
        lambda: match_probability(torch.zeros(2, 3)),
    ],
)
def test_wrong_arguments_are_refused(call):
    with pytest.raises(ValueError, match=r"need|must|has"):
        call()
