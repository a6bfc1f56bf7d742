import pytest
import torch
from torch.nn import functional

from clipbert.training.losses import (
    IGNORED,
    clip_binary_cross_entropy,
    clip_cross_entropy,
    clip_multiple_choice,
    clip_ranking,
    clip_squared_error,
    masked_words,
    word_losses,
)


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_lse_cross_entropy_is_the_papers_formula():
    logits, labels = draw(3, 4, 5), torch.tensor([0, 2, 4, 1])  # (K, N, C)

    loss = clip_cross_entropy(logits, labels, how="lse")

    right = logits[:, torch.arange(4), labels].exp().sum(dim=0)  # over clips
    every = logits.exp().sum(dim=(0, 2))  # over clips and classes
    torch.testing.assert_close(loss, -(right / every).log().mean())


def test_with_one_clip_all_aggregations_are_plain_cross_entropy():
    logits, labels = draw(1, 4, 5), torch.tensor([0, 2, 4, 1])

    losses = [clip_cross_entropy(logits, labels, how=how) for how in ("mean", "max", "lse")]

    expected = functional.cross_entropy(logits[0], labels)
    torch.testing.assert_close(torch.stack(losses), expected.expand(3))


def test_ranking_compares_the_first_text_of_a_video_with_its_others():
    probabilities = torch.tensor([0.9, 0.2, 0.3, 0.4])  # two videos, right text first
    logits = probabilities.logit().reshape(1, 4, 1)

    loss = clip_ranking(logits, "mean", num_texts=2, margin=0.2)

    assert loss.item() == pytest.approx((0.0 + (0.2 + 0.4 - 0.3)) / 2)


def test_binary_cross_entropy_is_summed_over_answers():
    logits, targets = draw(2, 3, 7), torch.rand(3, 7)

    loss = clip_binary_cross_entropy(logits, targets, how="mean")

    each = functional.binary_cross_entropy_with_logits(
        logits.mean(dim=0), targets, reduction="none"
    )
    torch.testing.assert_close(loss, each.sum(dim=1).mean())


def test_multiple_choice_is_cross_entropy_over_the_choices():
    logits, labels = draw(2, 6, 1), torch.tensor([2, 0])  # 2 questions of 3 choices

    loss = clip_multiple_choice(logits, labels, how="max", num_choices=3)

    choices = logits.amax(dim=0).reshape(2, 3)
    torch.testing.assert_close(loss, functional.cross_entropy(choices, labels))


@pytest.mark.parametrize(
    "call",
    [
        lambda: clip_ranking(draw(2, 4, 1), "lse", num_texts=2),
        lambda: clip_ranking(draw(2, 4, 2), "mean", num_texts=2),
        lambda: clip_ranking(draw(2, 5, 1), "mean", num_texts=2),
        lambda: clip_binary_cross_entropy(draw(2, 3, 7), torch.rand(3, 7), how="lse"),
        lambda: clip_multiple_choice(draw(2, 5, 1), torch.tensor([0]), how="lse", num_choices=2),
    ],
)
def test_losses_refuse_what_they_are_not_defined_for(call):
    with pytest.raises(ValueError, match=r"log-sum-exp|need logits|cannot be"):
        call()


def test_squared_error_is_between_the_aggregated_output_and_the_count():
    logits = torch.tensor([[[1.0], [4.0]], [[3.0], [8.0]]])  # (K, N, 1): means 2 and 6

    loss = clip_squared_error(logits, torch.tensor([2, 9]), how="mean")

    assert float(loss) == pytest.approx((0 + 9) / 2)
    with pytest.raises(ValueError, match="log-sum-exp"):
        clip_squared_error(logits, torch.tensor([2, 9]), how="lse")


def test_masked_words_is_the_mean_over_masked_tokens_alone():
    logits = torch.randn(2, 3, 7)
    labels = torch.full((2, 3), IGNORED)
    labels[0, 1], labels[1, 2] = 4, 0

    loss = masked_words(logits, labels)

    log_probabilities = logits.log_softmax(-1)
    expected = -(log_probabilities[0, 1, 4] + log_probabilities[1, 2, 0]) / 2
    torch.testing.assert_close(loss, expected)
    assert word_losses(logits, labels).count_nonzero() == 2
    assert masked_words(logits, torch.full((2, 3), IGNORED)) == 0
