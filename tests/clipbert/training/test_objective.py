"""The loss of a batch, against the same computed clip by clip."""

import dataclasses

import pytest
import torch

from clipbert.checkpoints.folder import Checkpoint
from clipbert.model.config import ClipBertConfig
from clipbert.model.pixels import clips_to_pixels
from clipbert.training.batch import Batch, collate
from clipbert.training.dataset import Draw, DroppedExample, LoadedExample
from clipbert.training.example_clips import ClipTensors
from clipbert.training.losses import (
    IGNORED,
    clip_binary_cross_entropy,
    clip_cross_entropy,
    clip_multiple_choice,
    clip_ranking,
    clip_squared_error,
    masked_words,
)
from clipbert.training.objective import Objective
from clipbert.training.recipe import Recipe
from clipbert.training.starting_model import prepare_model
from clipbert.training.task_texts import VideoTexts
from clipbert.training.usable_videos import UnusableVideo

K, T, SIDE = 3, 2, 128  # a grid of 2 x 2
SIZES = ((40, 60), (60, 40))
LABELS = torch.tensor([1, 0, 0, 1])
SOFT = torch.rand(4, 5, generator=torch.Generator().manual_seed(3))
ANSWERS = ("a", "b", "c", "d", "e")


def make_objective(recipe: Recipe, **changes) -> Objective:
    config = dataclasses.replace(ClipBertConfig.preset("clipbert-tiny"), dropout=0.0, **changes)
    answers = ANSWERS if recipe.task == "qa" else ()
    model = prepare_model(Checkpoint.create(config, seed=2), recipe, answers=answers).model
    with torch.no_grad():  # so that the logits of different clips are far from each other
        for part in (model.cross_encoder, model.heads[recipe.task]):
            for weight in part.parameters():
                weight.mul_(8 if weight.ndim > 1 else 1)
    return Objective(model, recipe)


def recipe_of(task: str, **changes) -> Recipe:
    settings = {"max_side_px": SIDE, "max_text_tokens": 32, "precision": "fp32"}
    return Recipe(task, **settings | changes)


def make_batch(targets: torch.Tensor, *, number: int = 0, words: bool = False) -> Batch:
    """Two videos with two texts each."""
    generator = torch.Generator().manual_seed(1)
    items = []
    for video, (height, width) in enumerate(SIZES):
        colours = torch.randint(0, 256, (K, T, 1, 1, 3), generator=generator)
        frames = colours.expand(K, T, height, width, 3)
        ids = [[2, 9 + video, 30, 3], [2, 50, 60 + video, 70, 3]]
        labels = [[IGNORED, 9, IGNORED, IGNORED], [IGNORED, IGNORED, 61, IGNORED, IGNORED]]
        half = len(targets) // 2
        texts = VideoTexts(ids, targets.split(half)[video], labels if words else ())
        places = torch.tensor([0.1, 0.5, 0.9])
        clips = ClipTensors(places, frames=frames.byte())
        items.append(LoadedExample(Draw(number, 0, video), clips, texts))
    return collate(items, pad_id=0)


def clip_by_clip(objective: Objective, batch: Batch) -> torch.Tensor:
    """Logits (K, N, O), as the authors compute them."""
    model, config = objective.model, objective.model.config
    pixels = clips_to_pixels(
        batch.clips(),
        max_side_px=config.max_side_px,
        mean=config.mean,
        std=config.std,
        channel_order=config.channel_order,
    ).unflatten(0, (2, K))  # (B, K, T, 3, S, S)
    logits = []
    for clip in range(K):
        visual = model.encode_pixels(pixels[:, clip]).repeat_interleave(2, dim=0)
        head = next(name for name in config.trained_heads)
        logits.append(model(batch.token_ids, batch.mask, visual, head=head))
    return torch.stack(logits)


@pytest.mark.parametrize(
    ("recipe", "targets", "loss"),
    [
        (recipe_of("retrieval"), LABELS, lambda x: clip_cross_entropy(x, LABELS, how="lse")),
        (
            recipe_of("retrieval", loss="rank", aggregation="max"),
            LABELS,
            lambda x: clip_ranking(x, "max", num_texts=2),
        ),
        (
            recipe_of("qa", aggregation="mean"),
            LABELS,
            lambda x: clip_cross_entropy(x, LABELS, how="mean"),
        ),
        (
            recipe_of("qa", loss="bce", aggregation="max"),
            SOFT,
            lambda x: clip_binary_cross_entropy(x, SOFT, how="max"),
        ),
        (
            recipe_of("multiple_choice"),
            LABELS[:2],
            lambda x: clip_multiple_choice(x, LABELS[:2], how="lse", num_choices=2),
        ),
        (
            recipe_of("count", loss="mse", aggregation="mean"),
            LABELS.float(),
            lambda x: clip_squared_error(x, LABELS.float(), how="mean"),
        ),
    ],
    ids=["retrieval", "ranking", "qa", "soft answers", "multiple choice", "count"],
)
def test_clips_in_one_batch_have_the_loss_of_clips_one_by_one(recipe, targets, loss):
    objective = make_objective(recipe).eval()
    batch = make_batch(targets)

    logits = clip_by_clip(objective, batch)

    assert logits.std(dim=0).max() > 1e-3  # clips differ
    torch.testing.assert_close(objective(batch)["loss"], loss(logits), atol=1e-5, rtol=1e-5)


def test_pretraining_adds_words_and_match():
    recipe = recipe_of("pretraining", aggregation="mean")
    objective = make_objective(recipe).eval()
    batch = make_batch(LABELS, words=True)

    outputs = objective(batch)

    pairs = objective._pairs(batch, torch.device("cpu"))
    words, match = objective.model.pretrain(**pairs)
    labels = batch.word_labels.repeat(K, 1)
    expected = masked_words(words, labels) + clip_cross_entropy(
        match.unflatten(0, (K, -1)), LABELS, how="mean"
    )
    torch.testing.assert_close(outputs["loss"], expected)
    assert (outputs["words"].item(), outputs["matches"].item()) == (4 * K, 4)
    assert 0 <= outputs["right_words"] <= 4 * K


def test_pretraining_keeps_some_cells_by_the_number_of_the_pass():
    objective = make_objective(recipe_of("pretraining", aggregation="mean", kept_cells=2))
    batches = [make_batch(LABELS, number=number, words=True) for number in (0, 0, 1, 2, 3)]

    objective.train()
    first, again, *others = [objective(batch)["loss"].item() for batch in batches]
    objective.eval()
    whole = objective(batches[0])["loss"].item()

    assert first == again
    assert len({first, *others}) > 1
    assert whole not in {first, *others}


def test_a_model_that_knows_places_learns_them():
    recipe = recipe_of("retrieval")
    objective = make_objective(recipe, frame_positions=T, clip_positions=2).train()

    objective(make_batch(LABELS))["loss"].backward()

    embeddings = objective.model.visual_embeddings
    assert embeddings.frame_embeddings.weight.grad.any(dim=1).all()
    assert embeddings.clip_embeddings.weight.grad.any(dim=1).all()


def test_every_trained_weight_gets_a_gradient():
    for recipe, targets in (
        (recipe_of("retrieval"), LABELS),
        (recipe_of("pretraining", aggregation="mean"), LABELS),
        (recipe_of("count", loss="mse", aggregation="mean"), LABELS.float()),
    ):
        objective = make_objective(recipe).train()

        objective(make_batch(targets, words=recipe.task == "pretraining"))["loss"].backward()

        without = {
            name
            for name, weight in objective.named_parameters()
            if weight.requires_grad and weight.grad is None
        }
        assert without == set()


def test_counting_with_several_clips_has_the_gradients_of_clips_one_by_one_in_training():
    recipe = recipe_of("count", loss="mse", aggregation="mean")
    together, one_by_one = make_objective(recipe).train(), make_objective(recipe).train()
    batch = make_batch(LABELS.float())

    loss = together(batch)["loss"]
    loss.backward()
    expected = clip_squared_error(clip_by_clip(one_by_one, batch), LABELS.float(), how="mean")
    expected.backward()

    torch.testing.assert_close(loss, expected)
    for (name, mine), theirs in zip(
        together.model.heads.named_parameters(), one_by_one.model.heads.parameters(), strict=True
    ):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name, atol=1e-5, rtol=1e-4)
    for mine, theirs in zip(
        together.model.heads.buffers(), one_by_one.model.heads.buffers(), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("task", ["retrieval", "count"])
def test_a_pass_without_examples_has_no_loss_and_no_gradient(task):
    settings = {"loss": "mse", "aggregation": "mean"} if task == "count" else {}
    objective = make_objective(recipe_of(task, **settings)).train()
    dropped = DroppedExample(Draw(0, 0, 0), UnusableVideo("a", "decode_failed", "broken"))

    loss = objective(collate([dropped], pad_id=0))["loss"]
    loss.backward()

    assert loss.item() == 0.0
    for name, weight in objective.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert not weight.grad.any(), name


def test_bfloat16_comes_near_to_float32():
    batch = make_batch(LABELS)

    exact = make_objective(recipe_of("retrieval"))(batch)["loss"]
    near = make_objective(recipe_of("retrieval", precision="bf16"))(batch)["loss"]

    assert near.dtype == torch.float32
    assert near != exact
    torch.testing.assert_close(near, exact, atol=0.05, rtol=0.05)
