import dataclasses

import torch
from torch import nn
from torch.nn import functional

from clipbert.model.config import ClipBertConfig, HeadConfig
from clipbert.model.heads import build_heads

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


def head_of(name, num_outputs):
    torch.manual_seed(0)
    return build_heads(
        dataclasses.replace(TINY, heads=(HeadConfig(name, num_outputs),), answers=())
    )[name]


def test_the_count_head_is_elu_then_batch_norm_and_one_number():
    head = head_of("count", 1)
    nn.init.normal_(head.norm.running_mean)
    nn.init.uniform_(head.norm.running_var, 0.5, 2.0)
    pooled = torch.randn(4, 48)

    hidden = functional.elu(pooled @ head.hidden.weight.T + head.hidden.bias)
    normed = (hidden - head.norm.running_mean) / (head.norm.running_var + 1e-5).sqrt()
    expected = normed @ head.output.weight.T + head.output.bias

    torch.testing.assert_close(head.eval()(pooled), expected)


def test_the_count_head_normalises_one_clip_at_a_time_while_it_is_trained():
    # As the authors' loop over clips does: K passes of their layers, in this order.
    head = dataclasses.replace(TINY, dropout=0.0, heads=(HeadConfig("count", 1),), answers=())
    torch.manual_seed(0)
    ours = build_heads(head)["count"].train()
    hidden, norm = nn.Linear(48, 48), nn.BatchNorm1d(48)
    theirs = nn.Sequential(hidden, nn.ELU(), norm, nn.Identity(), nn.Linear(48, 1)).train()
    for mine, own in ((ours.hidden, hidden), (ours.norm, norm), (ours.output, theirs[4])):
        own.load_state_dict(mine.state_dict())
    # Clips that differ, or one batch norm over all would come to the same.
    pooled = torch.randn(3, 4, 48) + torch.tensor([-3.0, 0.0, 5.0]).view(3, 1, 1)  # (K, N, D)

    expected = torch.cat([theirs(of_clip) for of_clip in pooled])
    found = ours(pooled.flatten(0, 1), num_clips=3)

    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.norm.running_mean, norm.running_mean)
    torch.testing.assert_close(ours.norm.running_var, norm.running_var)
    assert ours.norm.num_batches_tracked == 3


def test_the_pretraining_head_reads_words_with_the_table_of_word_embeddings():
    head = head_of("pretraining", 2).eval()
    text, table = torch.randn(2, 5, 48), torch.randn(141, 48)
    nn.init.normal_(head.bias)

    words = head.words(text, table)

    hidden = head.LayerNorm(functional.gelu(head.dense(text)))
    torch.testing.assert_close(words, hidden @ table.T + head.bias)
    assert head(torch.randn(3, 48)).shape == (3, 2)
    assert "decoder.weight" not in dict(head.named_parameters())
