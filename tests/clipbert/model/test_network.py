import copy
import dataclasses
import time

import pytest
import torch

from clipbert.errors import MissingHead
from clipbert.model.config import BackboneConfig, ClipBertConfig, GridEncoderConfig
from clipbert.model.grid import ClassMixtureGridEncoder
from clipbert.model.network import Network
from clipbert.model.text import TextTokenizer
from clipbert.training.losses import clip_cross_entropy

TINY = ClipBertConfig.preset("clipbert-tiny")
TOKENIZER = TextTokenizer.from_characters()
RECALLING = dataclasses.replace(
    TINY,
    grid_encoder=GridEncoderConfig("class_mixture", num_classes=6),
    recall="zero_shot",
    recall_likeliest=3,
)


@pytest.fixture(scope="module")
def model():
    return Network.create(TINY, seed=0).eval()


@pytest.fixture(scope="module")
def recalling():
    model = Network.create(RECALLING, seed=0).eval()
    model.grid_encoder.class_embeddings.normal_(generator=torch.Generator().manual_seed(2))
    model.recall.class_vectors.normal_(generator=torch.Generator().manual_seed(3))
    return model


def draw_pixels(clips=2, frames=2):
    shape = (clips, frames, 3, 128, 128)
    return 50 * torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_pixels_become_a_grid_of_tokens(model):
    tokens = model.encode_pixels(draw_pixels(clips=3, frames=2))

    assert tokens.shape == (3, 2, 2, 48)


@torch.inference_mode()
def test_a_clip_is_the_mean_of_its_frames(model):
    pixels = draw_pixels(clips=1, frames=2)

    tokens = model.encode_pixels(pixels)

    frames = model.encode_pixels(pixels.transpose(0, 1))  # each frame as a clip
    torch.testing.assert_close(tokens[0], frames.mean(dim=0))


@pytest.mark.parametrize("head", ["retrieval", "qa", "multiple_choice"])
@torch.inference_mode()
def test_a_text_and_a_clip_become_logits(model, head):
    ids, mask = TOKENIZER.encode(["a dog", "two cats run"], max_length=20)

    logits = model(ids, mask, model.encode_pixels(draw_pixels()), head=head)

    assert logits.shape == (2, TINY.head(head).num_outputs)


@torch.inference_mode()
def test_a_pair_is_scored_alike_alone_and_in_a_batch(model):
    ids, mask = TOKENIZER.encode(["a dog", "two cats run"], max_length=20)
    visual = model.encode_pixels(draw_pixels())

    together = model(ids, mask, visual, head="qa")

    alone = model(*TOKENIZER.encode(["a dog"], max_length=20), visual[:1], head="qa")
    torch.testing.assert_close(together[:1], alone, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_cached_tokens_may_come_in_half_precision(model):
    ids, mask = TOKENIZER.encode(["a dog", "two cats run"], max_length=20)
    visual = model.encode_pixels(draw_pixels())

    half = model(ids, mask, visual.half(), head="qa")

    torch.testing.assert_close(half, model(ids, mask, visual, head="qa"), atol=1e-3, rtol=0)


def test_the_same_seed_makes_the_same_model():
    state = torch.get_rng_state()

    first, second = (Network.create(TINY, seed=7).state_dict() for _ in range(2))
    other = Network.create(TINY, seed=8).state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)
    name = "cross_encoder.pooler.dense.weight"
    assert not torch.equal(first[name], other[name])
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_are_drawn_as_berts_are():
    model = Network.create(dataclasses.replace(TINY, hidden_size=96, intermediate_size=384), seed=0)

    words = model.text_embeddings.word_embeddings.weight
    inner = model.cross_encoder.encoder.layer[0].intermediate.dense
    norm = model.cross_encoder.encoder.layer[0].output.LayerNorm

    assert words.std().item() == pytest.approx(0.02, rel=0.05)
    assert words[0].abs().max() > 0  # the padding row too
    assert inner.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not inner.bias.any()
    assert (norm.weight == 1).all()
    assert not norm.bias.any()


def test_positions_of_a_class_mixture_start_at_zero(recalling):
    assert not recalling.visual_embeddings.row_embeddings.weight.any()
    assert not recalling.visual_embeddings.col_embeddings.weight.any()


def test_tiny_is_made_in_less_than_a_second():
    begun = time.thread_time()  # not the time of others on this machine

    Network.create(TINY, seed=0)

    assert time.thread_time() - begun < 1.0


def test_base_has_the_papers_sizes():
    with torch.device("meta"):
        model = Network(ClipBertConfig.preset("clipbert-base"))

    sizes = {
        name: sum(tensor.numel() for tensor in part.state_dict().values())
        for name, part in model.named_children()
    }

    assert sizes == {
        "backbone": 23_561_152,
        "grid_encoder": 14_155_776,
        "text_embeddings": 23_837_184,
        "visual_embeddings": 549_120 - 512 * 768,  # less the authors' unused positions
        "cross_encoder": 85_054_464 + 590_592,
        "heads": 1_184_258,
    }


@torch.inference_mode()
def test_a_class_mixture_token_is_the_mean_embedding_of_its_cells_classes():
    torch.manual_seed(0)
    grid = ClassMixtureGridEncoder(channels=4, num_classes=6, hidden_size=5)
    grid.class_embeddings.normal_()
    features = torch.randn(1, 4, 2, 2)

    tokens = grid(features)

    cells = features[0].flatten(1).T  # (4 cells, 4 channels)
    expected = (grid.classifier(cells).softmax(-1) @ grid.class_embeddings).mean(dim=0)
    assert tokens.shape == (1, 1, 1, 5)
    torch.testing.assert_close(tokens[0, 0, 0], expected)


@torch.inference_mode()
def test_one_pass_gives_tokens_and_recall_vectors(recalling):
    pixels = draw_pixels()

    tokens, vectors = recalling.encode_clips(pixels, [(90, 160), (160, 90)])

    assert torch.equal(tokens, recalling.encode_pixels(pixels))
    assert vectors.shape == (2, recalling.recall_dim)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))


@torch.inference_mode()
def test_texts_have_recall_vectors_whatever_their_padding(recalling):
    ids, mask = TOKENIZER.encode(["a dog", "two cats run"], max_length=20)

    vectors = recalling.encode_texts(ids, mask)

    alone = recalling.encode_texts(*TOKENIZER.encode(["a dog"], max_length=20))
    torch.testing.assert_close(vectors[:1], alone)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))


def test_a_model_without_recall_says_so(model):
    ids, mask = TOKENIZER.encode(["a dog"], max_length=20)

    assert model.recall_dim is None
    assert model.encode_clips(draw_pixels(), [(90, 160)] * 2)[1] is None
    with pytest.raises(MissingHead, match="no recall head"):
        model.encode_texts(ids, mask)


def test_a_missing_head_is_named():
    model = Network.create(dataclasses.replace(TINY, heads=(), answers=()), seed=0)
    ids, mask = TOKENIZER.encode(["a dog"], max_length=20)

    with pytest.raises(MissingHead, match="no qa head"):
        model(ids, mask, torch.zeros(1, 2, 2, 48), head="qa")


@pytest.mark.parametrize(
    "shape", [(2, 3, 128, 128), (2, 1, 3, 64, 64), (2, 1, 1, 128, 128), (0, 1, 3, 128, 128)]
)
def test_pixels_of_another_shape_are_refused(model, shape):
    with pytest.raises(ValueError, match=r"need pixels \(N, T, 3, 128, 128\), got"):
        model.encode_pixels(torch.zeros(shape))


@pytest.mark.parametrize(
    ("ids", "mask", "visual"),
    [
        (torch.zeros(1, 4), torch.ones(1, 4), torch.zeros(1, 2, 2, 48)),
        (torch.zeros(1, 4).long(), torch.ones(1, 3), torch.zeros(1, 2, 2, 48)),
        (torch.zeros(1, 65).long(), torch.ones(1, 65), torch.zeros(1, 2, 2, 48)),
        (torch.zeros(1, 4).long(), torch.ones(1, 4), torch.zeros(2, 2, 2, 48)),
        (torch.zeros(1, 4).long(), torch.ones(1, 4), torch.zeros(1, 4, 48)),
        (torch.zeros(1, 4).long(), torch.ones(1, 4), torch.zeros(1, 2, 2, 40)),
        (torch.zeros(1, 4).long(), torch.ones(1, 4), torch.zeros(1, 13, 2, 48)),
    ],
)
def test_texts_and_tokens_that_do_not_go_together_are_refused(model, ids, mask, visual):
    with pytest.raises(ValueError, match=r"need|mask is|positions"):
        model(ids, mask, visual, head="qa")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_the_model_runs_in_low_precision(model, dtype):
    low = copy.deepcopy(model).to(dtype)
    ids, mask = TOKENIZER.encode(["a dog", "two cats run"], max_length=20)
    visual = model.encode_pixels(draw_pixels())

    logits = low(ids, mask, visual, head="qa")
    tokens = low.encode_pixels(draw_pixels().to(dtype))

    assert logits.dtype == tokens.dtype == dtype
    torch.testing.assert_close(
        logits.float(), model(ids, mask, visual, head="qa"), atol=0.02, rtol=0
    )


def test_a_few_steps_of_training_fit_two_pairs():
    model = Network.create(dataclasses.replace(TINY, dropout=0.0), seed=0).train()
    ids, mask = TOKENIZER.encode(["a dog", "two cats run"], max_length=20)
    pixels, labels = draw_pixels(clips=2), torch.tensor([0, 1])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []

    for _ in range(25):
        logits = model(ids, mask, model.encode_pixels(pixels), head="retrieval")
        loss = clip_cross_entropy(logits.unsqueeze(0), labels, how="lse")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.1 < losses[0]


@torch.inference_mode()
def test_a_timm_backbone_takes_the_place_of_the_resnet():
    config = dataclasses.replace(
        TINY, backbone=BackboneConfig(kind="timm", timm_model="test_resnet")
    )
    model = Network.create(config, seed=0).eval()

    before = model.encode_pixels(draw_pixels() / 50)
    model.fold_batch_norm()

    torch.testing.assert_close(model.encode_pixels(draw_pixels() / 50), before, atol=1e-4, rtol=0)
    assert before.shape == (2, 2, 2, 48)
