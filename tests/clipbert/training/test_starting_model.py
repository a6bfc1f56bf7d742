"""How new heads, and models whose visual tokens mix words, begin."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from token_corpus import write_tokens

from clipbert.checkpoints.folder import Checkpoint, load_folder, save_folder
from clipbert.errors import ConfigError
from clipbert.model.config import ClipBertConfig, GridEncoderConfig
from clipbert.model.network import Network
from clipbert.training.finetune_recipes import default_recipe
from clipbert.training.recipe import Recipe
from clipbert.training.run import train
from clipbert.training.run_request import RunRequest
from clipbert.training.starting_model import prepare_model
from clipbert.training.visual_start import fit_visual_embeddings

ANSWERS = ("near", "far")  # which clipbert-tiny does not have
NUM_CLASSES = 12


def make_mixing(**changes) -> Checkpoint:
    """clipbert-tiny whose visual tokens are mixtures of twelve classes."""
    config = dataclasses.replace(
        ClipBertConfig.preset("clipbert-tiny"),
        grid_encoder=GridEncoderConfig("class_mixture", num_classes=NUM_CLASSES),
        **changes,
    )
    made = Checkpoint.create(config, seed=3)
    model = made.network
    with torch.no_grad():
        # Words of a trained text model are not all alike, as random ones are.
        generator = torch.Generator().manual_seed(1)
        for weight in (
            model.text_embeddings.LayerNorm.weight,
            model.text_embeddings.LayerNorm.bias,
        ):
            weight.copy_(torch.rand(len(weight), generator=generator) + 0.5)
    return made


def mixtures(model: Network) -> torch.Tensor:
    """Tokens (N, h, w, D) that are almost the same everywhere, as those of a real classifier."""
    generator = torch.Generator().manual_seed(2)
    side, size = model.config.grid_side, model.config.hidden_size
    common = torch.randn(size, generator=generator)
    return common + 0.01 * torch.randn(40, side, side, size, generator=generator)


def text_words(model: Network) -> torch.Tensor:
    """What the text embeddings of all words are, but for their places: (W, D)."""
    text = model.text_embeddings
    return text.LayerNorm(text.word_embeddings.weight + text.token_type_embeddings.weight[0])


def test_random_weights_of_a_new_head_have_the_recipes_deviation():
    start = Checkpoint.create(ClipBertConfig.preset("clipbert-tiny"), seed=1)
    recipe = Recipe("qa", max_text_tokens=32)

    papers, wide = (
        prepare_model(start, dataclasses.replace(recipe, head_std=std), answers=ANSWERS).model
        for std in (0.02, 0.12)
    )

    assert papers.heads["qa"].hidden.weight.detach().std().item() == pytest.approx(0.02, rel=0.05)
    for name, weight in wide.heads["qa"].named_parameters():
        expected = papers.heads["qa"].get_parameter(name)
        assert torch.allclose(weight, expected * (6 if name.endswith("weight") else 1)), name


def test_the_weights_of_a_head_that_was_trained_keep_their_deviation():
    fresh = Checkpoint.create(ClipBertConfig.preset("clipbert-tiny"), seed=1)
    start = prepare_model(fresh, Recipe("qa", max_text_tokens=32), answers=ANSWERS).model
    trained = Checkpoint(start, fresh.tokenizer)

    again = prepare_model(
        trained, Recipe("qa", max_text_tokens=32, head_std=0.5), answers=ANSWERS
    ).model

    assert torch.equal(again.heads["qa"].hidden.weight, start.heads["qa"].hidden.weight)
    assert torch.equal(again.heads["qa"].output.weight, start.heads["qa"].output.weight)


@pytest.mark.parametrize(("dropout", "kept"), [(None, 0.1), (0.0, 0.0), (0.3, 0.3)])
def test_dropout_is_the_recipes_or_else_the_models(dropout, kept):
    start = make_mixing(dropout=0.1)

    prepared = prepare_model(start, Recipe("retrieval", max_text_tokens=32, dropout=dropout)).model

    assert prepared.config.dropout == kept
    assert {module.p for module in prepared.modules() if isinstance(module, torch.nn.Dropout)} == {
        kept
    }


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_a_dropout_that_is_no_part_is_refused(dropout):
    with pytest.raises(ConfigError, match=r"dropout is .*: must be at least 0 and below 1"):
        Recipe("qa", dropout=dropout)


def test_fitted_visual_tokens_vary_as_words_do():
    model = make_mixing().network.eval()
    tokens, words = mixtures(model), text_words(model)

    before = model.visual_embeddings(tokens).flatten(0, 1)
    fit_visual_embeddings(model, tokens.half())
    after = model.visual_embeddings(tokens).flatten(0, 1)  # (N * h * w, D)

    assert torch.allclose(after.mean(dim=0), words.mean(dim=0), atol=0.02)
    assert torch.allclose(after.std(dim=0), words.std(dim=0), rtol=0.05)
    # What was one hundredth of a token is now all of it.
    assert before.std(dim=0).mean() < 0.05 * after.std(dim=0).mean()


def test_a_dimension_that_never_varies_is_not_blown_up():
    model = make_mixing().network
    tokens = mixtures(model)
    tokens[..., 0] = 0.5

    fit_visual_embeddings(model, tokens)

    weight = model.visual_embeddings.LayerNorm.weight
    assert weight.isfinite().all()
    assert weight[0] <= 10 * text_words(model)[:, 0].std() * 1.01


def test_only_mixtures_that_were_never_trained_need_statistics():
    recipe = Recipe("qa", max_text_tokens=32)
    convolving = Checkpoint.create(ClipBertConfig.preset("clipbert-tiny"), seed=1)

    fresh = prepare_model(make_mixing(), recipe, answers=ANSWERS)
    trained = prepare_model(Checkpoint(fresh.model, fresh.tokenizer), recipe, answers=ANSWERS)

    assert fresh.needs_statistics
    assert not trained.needs_statistics
    assert not prepare_model(convolving, recipe, answers=ANSWERS).needs_statistics


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_begins_with_fitted_tokens(tmp_path, interrupted):
    base = tmp_path / "base"
    made = make_mixing()
    save_folder(made.network, base, tokenizer=made.tokenizer)
    given = write_tokens(tmp_path, ClipBertConfig.from_folder(base))
    recipe = default_recipe("qa", 18).replace(
        [
            "clips=2",
            "max_text_tokens=32",
            "precision=fp32",
            "videos_per_step=4",
            "videos_per_forward=4",
            "steps=2",
            "checkpoint_steps=1",
            "learning_rate=1e-9",
        ]
    )
    request = RunRequest(
        recipe=recipe,
        data=given.labels["qa"],
        videos=None,
        tokens=given.folder,
        out=tmp_path / "out",
        model=base,
        split="train",
    )

    if interrupted:
        train(dataclasses.replace(request, max_steps=1))
        request = dataclasses.replace(request, resume=True)
    train(request)

    start, model = load_folder(base).network, load_folder(request.out).network
    ours, theirs = model.visual_embeddings, start.visual_embeddings
    assert not torch.allclose(ours.LayerNorm.weight, theirs.LayerNorm.weight, atol=0.01)
    # The corpus's three colours, apart by 1 and with noise of 0.2, have about this mean.
    seen = torch.cat([_tokens_of(given, number) for number in range(24) if number % 4])
    type_row = ours.token_type_embeddings.weight[0]
    assert torch.corrcoef(torch.stack([type_row, -seen.flatten(0, 2).mean(dim=0)]))[0, 1] > 0.95


def _tokens_of(given, number):
    return load_file(given.folder / f"v{number:02d}.safetensors")["tokens"].float()
