"""The model that a run starts from: another one's weights, with the recipe's head and settings."""

import dataclasses
from collections.abc import Sequence

import torch

from clipbert.config import ClipBertConfig, HeadConfig
from clipbert.errors import CheckpointError, ConfigError
from clipbert.model import ClipBert
from clipbert.text import TOKENIZER_FILE, TextTokenizer
from clipbert.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class StartingModel:
    """A model that is ready to be trained.

    Attributes:
        model: with the head of the task; only what is trained requires gradients.
        tokenizer: of the model.
        head_is_new: the head's weights are random; otherwise the given model had it.
    """

    model: ClipBert
    tokenizer: TextTokenizer
    head_is_new: bool


def prepare_model(model: ClipBert, recipe: Recipe, *, answers: Sequence[str] = ()) -> StartingModel:
    """Give a model the head and the settings of a recipe.

    The head keeps its weights if the given model has one of the same outputs (qa: the same answers
    in the same order); otherwise they are drawn by the recipe's seed. All other weights stay.
    Other heads stay as they are too, but no longer count as trained: what they read will change.

    Args:
        model: where to start from; it is not changed.
        recipe: what will be trained.
        answers: qa: the vocabulary.

    Raises:
        CheckpointError: the model has no tokenizer.
        ConfigError: the recipe does not fit the model: too many text tokens, too large frames.
    """
    if model.tokenizer is None:
        raise CheckpointError(f"the model has no {TOKENIZER_FILE}: training needs one")
    head = HeadConfig(recipe.task, _num_outputs(recipe, answers))
    config = _configure(model.config, recipe, head, answers)
    is_new = model.config.head(head.name) != head or (
        head.name == "qa" and model.config.answers != config.answers
    )
    prepared = ClipBert.create(config, seed=recipe.seed)
    own = f"heads.{head.name}."
    kept = {
        name: weight
        for name, weight in model.state_dict().items()
        if not (is_new and name.startswith(own))
    }
    with torch.no_grad():
        missing, unexpected = prepared.load_state_dict(kept, strict=False)
    strangers = [*unexpected, *(name for name in missing if not name.startswith(own))]
    if strangers:  # the configurations differ by the head alone
        raise RuntimeError(f"weights were left behind: {strangers}")
    prepared.tokenizer = model.tokenizer
    for name, module in prepared.heads.items():
        module.requires_grad_(requires_grad=name == head.name)
    return StartingModel(prepared, model.tokenizer, is_new)


def _num_outputs(recipe: Recipe, answers: Sequence[str]) -> int:
    if recipe.task == "qa":
        return len(answers)
    if recipe.task == "pretraining" or (recipe.task == "retrieval" and recipe.loss == "ce"):
        return 2
    return 1


def _configure(
    config: ClipBertConfig, recipe: Recipe, head: HeadConfig, answers: Sequence[str]
) -> ClipBertConfig:
    if 0 < config.frame_positions < recipe.frames_per_clip:
        raise ConfigError(
            f"frames_per_clip is {recipe.frames_per_clip}: the model tells "
            f"{config.frame_positions} frames apart"
        )
    others = tuple(other for other in config.heads if other.name != head.name)
    return dataclasses.replace(
        config,
        heads=(*others, head),
        trained_heads=(head.name,),
        answers=tuple(answers) if head.name == "qa" else config.answers,
        aggregation=recipe.aggregation,
        max_side_px=recipe.max_side_px,
        max_text_tokens=recipe.max_text_tokens,
        plan=recipe.inference_plan,
    )
