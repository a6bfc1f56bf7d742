import dataclasses

import torch

from clipbert.config import ClipBertConfig
from clipbert.heads import build_heads

TINY = ClipBertConfig.preset("clipbert-tiny")


def test_each_head_puts_out_what_its_task_needs():
    heads = build_heads(TINY).eval()
    pooled = torch.randn(5, 48)

    shapes = {name: tuple(head(pooled).shape) for name, head in heads.items()}

    assert shapes == {"retrieval": (5, 2), "qa": (5, 8), "multiple_choice": (5, 1)}


def test_a_head_has_one_hidden_layer_of_twice_the_size():
    head = build_heads(TINY)["retrieval"].eval()
    pooled = torch.randn(3, 48)

    expected = head.hidden(pooled).clamp(min=0) @ head.output.weight.T + head.output.bias

    assert head.hidden.weight.shape == (96, 48)
    torch.testing.assert_close(head(pooled), expected)


def test_a_configuration_without_heads_makes_none():
    assert len(build_heads(dataclasses.replace(TINY, heads=(), answers=()))) == 0
