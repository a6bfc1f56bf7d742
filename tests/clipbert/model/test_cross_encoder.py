import dataclasses

import pytest
import torch
from transformers import BertConfig, BertModel
from transformers.models.bert.modeling_bert import eager_attention_forward

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

    def plain(*arguments, **settings):
        plain_calls.append(arguments)
        return eager_attention_forward(*arguments, **settings)

    monkeypatch.setattr("clipbert.model.cross_encoder.eager_attention_forward", plain)
    hidden, gradients = {}, {}
    for attention in ("clipbert", "sdpa"):
        encoder.encoder.config._attn_implementation = attention
        given = tokens.clone().requires_grad_()
        hidden[attention] = encoder(given, mask)
        hidden[attention].square().sum().backward()
        gradients[attention] = given.grad
    assert len(plain_calls) == TINY.num_layers
    torch.testing.assert_close(hidden["clipbert"], hidden["sdpa"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradients["clipbert"], gradients["sdpa"], atol=1e-5, rtol=1e-4)

    encoder.encoder.config._attn_implementation = "clipbert"
    with torch.inference_mode():
        assert torch.equal(encoder(tokens, mask), hidden["sdpa"])
    assert len(plain_calls) == TINY.num_layers


def test_visual_tokens_are_never_masked():
    mask = join_masks(torch.tensor([[1, 1, 0]]), 2)

    assert mask.tolist() == [[1, 1, 0, 1, 1]]


def test_dropout_is_the_configurations():
    encoder = CrossEncoder(dataclasses.replace(TINY, dropout=0.25))

    rates = {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)}

    assert rates == {0.25}
