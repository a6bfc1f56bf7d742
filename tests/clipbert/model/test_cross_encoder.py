import dataclasses

import pytest
import torch
from transformers import BertConfig, BertModel

from clipbert.model.bert import attend, attend_fused, attend_plainly
from clipbert.model.config import ClipBertConfig
from clipbert.model.cross_encoder import CrossEncoder, join_masks
from clipbert.model.embeddings import TextEmbeddings

TINY = ClipBertConfig.preset("clipbert-tiny")


@pytest.fixture
def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=TINY.vocab_size,
        hidden_size=TINY.hidden_size,
        num_hidden_layers=TINY.num_layers,
        num_attention_heads=TINY.num_attention_heads,
        intermediate_size=TINY.intermediate_size,
        max_position_embeddings=TINY.num_positions,
        attn_implementation="eager",
    )
    model = BertModel(config).eval()
    for parameter in model.parameters():  # biases and norms too, so that a forgotten one shows
        parameter.data.normal_(0.0, 0.2)
    return model


@torch.inference_mode()
def test_the_encoder_is_berts(bert):
    embeddings, encoder = TextEmbeddings(TINY).eval(), CrossEncoder(TINY).eval()
    embeddings.load_state_dict(bert.embeddings.state_dict())
    encoder.encoder.load_state_dict(bert.encoder.state_dict())
    encoder.pooler.load_state_dict(bert.pooler.state_dict())
    ids = torch.randint(0, TINY.vocab_size, (3, 9))
    mask = torch.ones(3, 9, dtype=torch.int64)
    mask[1, 5:] = 0

    hidden = encoder(embeddings(ids), mask)

    expected = bert(input_ids=ids, attention_mask=mask)
    seen = mask.bool()
    torch.testing.assert_close(hidden[seen], expected.last_hidden_state[seen], atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.pool(hidden), expected.pooler_output, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_padding_changes_nothing(dtype):
    torch.manual_seed(0)
    encoder = CrossEncoder(TINY).eval().to(dtype)
    tokens = torch.randn(2, 6, 48, dtype=dtype)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])

    hidden = encoder(tokens, mask)
    other = tokens.clone()
    other[0, 4:] = 100.0

    assert torch.equal(encoder(other, mask)[0, :4], hidden[0, :4])
    assert not torch.equal(encoder(other, torch.ones_like(mask))[0, :4], hidden[0, :4])


def test_with_gradients_it_computes_the_same_by_plain_products(monkeypatch):
    torch.manual_seed(0)
    encoder = CrossEncoder(TINY).eval()
    tokens, mask = torch.randn(2, 6, 48), torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    plain_calls = []

    def plain(*arguments):
        plain_calls.append(arguments)
        return attend_plainly(*arguments)

    monkeypatch.setattr("clipbert.model.bert.attend_plainly", plain)
    hidden, gradients = {}, {}
    for way in (attend, attend_fused):
        encoder.encoder.attend_by(way)
        given = tokens.clone().requires_grad_()
        hidden[way] = encoder(given, mask)
        hidden[way].square().sum().backward()
        gradients[way] = given.grad
    assert len(plain_calls) == TINY.num_layers
    torch.testing.assert_close(hidden[attend], hidden[attend_fused], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradients[attend], gradients[attend_fused], atol=1e-5, rtol=1e-4)

    encoder.encoder.attend_by(attend)
    with torch.inference_mode():
        assert torch.equal(encoder(tokens, mask), hidden[attend_fused])
    assert len(plain_calls) == TINY.num_layers


def test_its_layers_are_berts_bit_for_bit_with_gradients_and_dropout(bert):
    encoder = CrossEncoder(dataclasses.replace(TINY, dropout=0.1)).train()
    encoder.encoder.load_state_dict(bert.encoder.state_dict())
    embeddings, mask = torch.randn(3, 9, 48), torch.ones(3, 9)
    mask[1, 5:] = 0
    outcomes = []

    for layers in (encoder.encoder, bert.encoder.train()):  # with a dropout of 0.1 by default
        torch.manual_seed(1)
        given = embeddings.clone().requires_grad_()
        hidden = layers(given, (-10000.0 * (1 - mask))[:, None, None])
        hidden = hidden if isinstance(hidden, torch.Tensor) else hidden.last_hidden_state
        hidden.square().sum().backward()
        outcomes.append((hidden, given.grad))

    (ours, our_gradient), (theirs, their_gradient) = outcomes
    assert torch.equal(ours, theirs)
    assert torch.equal(our_gradient, their_gradient)


def test_visual_tokens_are_never_masked():
    mask = join_masks(torch.tensor([[1, 1, 0]]), 2)

    assert mask.tolist() == [[1, 1, 0, 1, 1]]


def test_dropout_is_the_configurations():
    encoder = CrossEncoder(dataclasses.replace(TINY, dropout=0.25))

    rates = {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)}

    assert rates == {0.25}
