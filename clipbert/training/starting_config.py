"""Whether a recipe fits the model that training starts from: known before torch is loaded."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from clipbert.errors import ConfigError
from clipbert.model.config import ClipBertConfig, HeadConfig
from clipbert.training.recipe import Recipe
from clipbert.training.run_request import RunRequest


def check_request(request: RunRequest) -> None:
    """Refuse what can be refused by the recipe and the model's config.json alone, at once.

    Raises:
        CheckpointError: the model folder has no usable config.json.
        ConfigError: there is not one model to start from, or the recipe does not fit it.
    """
    if (request.model is None) == (request.preset is None):
        raise ConfigError("training starts from a model folder or from a preset: name one of them")
    if request.model is not None:
        config = ClipBertConfig.from_folder(request.model)
    else:
        config = ClipBertConfig.preset(str(request.preset))
    fields = _settings(config, request.recipe, from_tokens=request.tokens is not None)
    dataclasses.replace(config, **fields)  # checks itself


def configure(
    config: ClipBertConfig,
    recipe: Recipe,
    head: HeadConfig,
    answers: Sequence[str],
    *,
    from_tokens: bool,
) -> ClipBertConfig:
    """Return a model's configuration with the head and the settings of a recipe.

    Args:
        config: of the model that training starts from.
        recipe: what will be trained.
        head: of the recipe's task.
        answers: qa: the vocabulary.
        from_tokens: it is trained from stored tokens, and goes on looking at videos as it did.

    Raises:
        ConfigError: the recipe does not fit the model.
    """
    others = tuple(other for other in config.heads if other.name != head.name)
    return dataclasses.replace(
        config,
        heads=(*others, head),
        trained_heads=(head.name,),
        answers=tuple(answers) if head.name == "qa" else config.answers,
        **_settings(config, recipe, from_tokens=from_tokens),
    )


def _settings(config: ClipBertConfig, recipe: Recipe, *, from_tokens: bool) -> dict[str, Any]:
    if not from_tokens and 0 < config.frame_positions < recipe.frames_per_clip:
        raise ConfigError(
            f"frames_per_clip is {recipe.frames_per_clip}: the model tells "
            f"{config.frame_positions} frames apart"
        )
    max_side_px = recipe.max_side_px or config.max_side_px
    if recipe.visual == "frozen" and max_side_px != config.max_side_px:
        raise ConfigError(
            f"max_side_px is {max_side_px}: with visual 'frozen' it must be that of the model to "
            f"start from, {config.max_side_px}, or be left out"
        )
    return {
        "aggregation": recipe.aggregation,
        "dropout": config.dropout if recipe.dropout is None else recipe.dropout,
        "recall": None,
        "max_side_px": max_side_px,
        "max_text_tokens": recipe.max_text_tokens or config.max_text_tokens,
        "plan": config.plan if from_tokens else recipe.inference_plan,
    }
