"""The model that a run starts from: another one's weights, with the recipe's head and settings."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clipbert.checkpoints.folder import Checkpoint
from clipbert.errors import CheckpointError
from clipbert.model.config import ClipBertConfig, HeadConfig
from clipbert.model.grid import ClassMixtureGridEncoder
from clipbert.model.network import INIT_STD, Network
from clipbert.model.text import TOKENIZER_FILE, TextTokenizer
from clipbert.training.recipe import Recipe
from clipbert.training.starting_config import configure


@dataclasses.dataclass(frozen=True)
class StartingModel:
    """A model that is ready to be trained.

    Attributes:
        model: with the head of the task; only what is trained requires gradients.
        tokenizer: of the model.
        head_is_new: the head's weights are random; otherwise the given model had it, or knew some
            of its answers.
        needs_statistics: fit_visual_embeddings has to be called before it is trained.
    """

    model: Network
    tokenizer: TextTokenizer
    head_is_new: bool
    needs_statistics: bool


def prepare_model(
    start: Checkpoint, recipe: Recipe, *, answers: Sequence[str] = (), from_tokens: bool = False
) -> StartingModel:
    """Equip a model with the head and the settings of a recipe.

    The head keeps its weights if the given model has one of the same outputs, and a qa head those
    of every answer that both know; the rest is drawn by the recipe's seed. All other weights stay.
    Other heads stay as they are too, but no longer count as trained: what they read will change.
    So will the text vectors that recall compares with, and the prepared model makes none.

    Args:
        start: the model to start from; it is not changed.
        recipe: what will be trained.
        answers: qa: the vocabulary.
        from_tokens: it is trained from stored tokens, and goes on looking at videos as it did.

    Raises:
        CheckpointError: the model has no tokenizer.
        ConfigError: the recipe does not fit the model: too many text tokens, too large frames;
            or a frozen visual side would see frames of another size.
    """
    model, tokenizer = start.network, start.tokenizer
    if tokenizer is None:
        raise CheckpointError(f"the model has no {TOKENIZER_FILE}: training needs one")
    head = HeadConfig(recipe.task, _num_outputs(recipe, answers))
    config = configure(model.config, recipe, head, answers, from_tokens=from_tokens)
    prepared = Network.create(config, seed=recipe.seed)
    _spread(prepared.heads[head.name], recipe.head_std)
    own, weights = f"heads.{head.name}.", prepared.state_dict()
    head_is_new = not _has_head(model.config, config, head)
    kept = {
        name: weight
        for name, weight in model.state_dict().items()
        if name in weights and not (head_is_new and name.startswith(own))
    }
    if head.name == "qa" and not head_is_new:
        kept |= _answer_rows(model, prepared)
    with torch.no_grad():
        missing, _ = prepared.load_state_dict(kept, strict=False)
    strangers = [name for name in missing if not name.startswith(own)]
    if strangers:  # the configurations differ by the head, and by what recall has, alone
        raise RuntimeError(f"weights were left behind: {strangers}")
    for name, module in prepared.heads.items():
        module.requires_grad_(requires_grad=name == head.name)
    if recipe.visual == "frozen":
        prepared.backbone.requires_grad_(requires_grad=False)
        prepared.grid_encoder.requires_grad_(requires_grad=False)
    # Once a model was trained it knows its tokens as they are.
    mixes = isinstance(prepared.grid_encoder, ClassMixtureGridEncoder)
    return StartingModel(
        prepared,
        tokenizer,
        head_is_new,
        needs_statistics=mixes and not model.config.trained_heads,
    )


def _spread(head: nn.Module, std: float) -> None:
    """Set the standard deviation of a head's random weights."""
    if std != INIT_STD:  # which they have
        with torch.no_grad():
            for module in head.modules():
                if isinstance(module, nn.Linear):
                    module.weight.mul_(std / INIT_STD)


def _has_head(given: ClipBertConfig, wanted: ClipBertConfig, head: HeadConfig) -> bool:
    """Whether the given model has a head that says what the wanted one says."""
    if head.name == "qa":
        return not set(given.answers).isdisjoint(wanted.answers)
    return given.head(head.name) == head


def _answer_rows(given: Network, prepared: Network) -> dict[str, Tensor]:
    """Return the qa head's output layer, with the rows of answers that both models know."""
    row_of = {answer: row for row, answer in enumerate(given.config.answers)}
    answers = prepared.config.answers
    pairs = [(row, row_of[answer]) for row, answer in enumerate(answers) if answer in row_of]
    own, theirs = (list(rows) for rows in zip(*pairs, strict=True))
    weights, kept = given.state_dict(), {}
    for name, fresh in prepared.state_dict().items():
        if name.startswith("heads.qa.output."):
            kept[name] = fresh.clone()
            kept[name][own] = weights[name][theirs]
    return kept


def _num_outputs(recipe: Recipe, answers: Sequence[str]) -> int:
    if recipe.task == "qa":
        return len(answers)
    if recipe.task == "pretraining" or (recipe.task == "retrieval" and recipe.loss == "ce"):
        return 2
    return 1
