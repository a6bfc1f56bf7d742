"""What a training run chooses: one TOML file a run, copied beside the weights it made."""

import dataclasses
import json
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clipbert.datasets.same_answers import SameAnswers
from clipbert.errors import ConfigError
from clipbert.model.config import Aggregation
from clipbert.model.config_json import dataclass_from_json
from clipbert.model.head_names import HeadName
from clipbert.sampling.plan import PlanName, SamplingPlan

Decay = Literal["linear", "invsqrt", "multi_step", "constant"]
Loss = Literal["ce", "rank", "bce", "mse"]
Precision = Literal["auto", "bf16", "fp32"]
Visual = Literal["trained", "frozen"]

_LEAST_COUNTED_TEXTS = 2
_SEEDS = 2**32  # NumPy's generators know so many
_LOSSES: Mapping[HeadName, tuple[Loss, ...]] = {
    "pretraining": ("ce",),
    "retrieval": ("ce", "rank"),
    "qa": ("ce", "bce"),
    "multiple_choice": ("ce",),
    "count": ("mse",),
}
_CHOICES = {
    "task": typing.get_args(HeadName),
    "plan": typing.get_args(PlanName),
    "aggregation": typing.get_args(Aggregation),
    "decay": typing.get_args(Decay),
    "precision": typing.get_args(Precision),
    "visual": typing.get_args(Visual),
    "same_answers": typing.get_args(SameAnswers),
}
_LEAST = {
    "texts_per_video": 1,
    "clips": 1,
    "frames_per_clip": 1,
    "inference_clips": 1,
    "validation_clips": 1,
    "videos_per_step": 1,
    "videos_per_forward": 1,
    "validations": 1,
    "min_validation_steps": 1,
    "checkpoint_steps": 1,
    "checkpoints_kept": 1,
    "log_steps": 1,
    # None or one of these:
    "kept_cells": 1,
    "max_answers": 1,
    "steps": 1,
    "max_side_px": 64,
    "max_text_tokens": 3,
    "checkpoint_seconds": 1,
}
# Beyond any use, and far below what a counter or the memory of a machine holds.
_MOST = {
    "texts_per_video": 10_000,
    "clips": 1_000,
    "frames_per_clip": 1_000,
    "inference_clips": 1_000,
    "validation_clips": 1_000,
    "videos_per_step": 1_000_000,
    "videos_per_forward": 1_000_000,
    "negatives": 10_000,
    "steps": 100_000_000,
    "max_side_px": 10_000,
    "epochs": 1_000_000,
    "head_std": 1_000,
    "frames_per_second": 1_000,
    "clip_seconds": 1_000_000,
}
_POSITIVE = (
    "head_std",
    "frames_per_second",
    "learning_rate",
    "cnn_learning_rate",
    "grid_encoder_factor",
    "epsilon",
    "epochs",
    "max_gradient_norm",
)
_NOT_NEGATIVE = ("negatives", "clip_seconds", "weight_decay", "cnn_weight_decay", "seed")
_PROBABILITIES = ("mask_probability", "mismatch_probability", "warmup_ratio")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes, but the model and the data.

    The number of processes is not among it: a step is videos_per_step videos, however many
    processes share them.

    Attributes:
        task: what is trained.
        visual: `trained`, backbone and grid encoder learn with the rest; `frozen`, they stay as
            they are to the bit, so that stored visual tokens still fit the trained model.
        texts_per_video: a video with more texts is split into several examples.
        negatives: retrieval: captions of other videos beside each right one.
        mask_probability: pretraining: part of the words that are to be guessed.
        mismatch_probability: pretraining: part of the texts that are replaced by one of another
            picture.
        kept_cells: pretraining: visual tokens that are kept, drawn at random for each batch; None
            keeps all.
        max_answers: qa: the most frequent answers make the vocabulary, so many at the most; None
            takes every answer. An answer file given to the run goes before it.
        same_answers: qa: `folded`, answers that differ only in case, spaces or Unicode form are
            one, shown in the form most used; `exact`, as the paper's code compares them.
        clips: K of each video at each step.
        random_clips: they are drawn anew at each look; otherwise they are the plan's fixed ones.
        frames_per_clip: T.
        plan: how clips are placed; `authors` as the paper's code does, each anywhere.
        frames_per_second: of the `authors` plan; a clip lasts frames_per_clip by this.
        clip_seconds: of the other plans, first to last instant of a clip.
        inference_clips: K of the trained model, unless its user says otherwise.
        validation_clips: K while training is validated; their places are fixed.
        max_side_px: S, side of the square that frames are fitted into; None: as the model that
            training starts from.
        max_text_tokens: longer texts are cut; None: as the model that training starts from.
        aggregation: how clip logits become a video's, in the loss and in the trained model.
        loss: `ce` cross-entropy, `rank` margin ranking (retrieval), `bce` binary cross-entropy
            with soft labels (qa), `mse` squared error (count).
        head_std: standard deviation of the random weights that a new head starts with. The
            paper's 0.02 is made for 768 dimensions; a narrower model's head then hardly sees what
            its text and clip say, and learns nothing for many hundred steps.
        dropout: of hidden states and attention, 0 to below 1; None: as the model that training
            starts from.
        learning_rate: of embeddings, cross-encoder and heads, at its highest.
        cnn_learning_rate: of backbone and grid encoder, at its highest.
        grid_encoder_factor: the grid encoder's rate is cnn_learning_rate times this.
        weight_decay: of embeddings, cross-encoder and heads.
        cnn_weight_decay: of backbone and grid encoder.
        betas: of AdamW's two moments.
        epsilon: of AdamW.
        decay: of the learning rate: `linear`, `invsqrt`, `multi_step` or `constant`.
        warmup_ratio: part of the steps over which the learning rate rises from 0.
        decay_epochs: of `multi_step`.
        epochs: how often each example is seen.
        steps: optimiser steps; None: as epochs say.
        videos_per_step: examples whose gradients make one step, over all processes.
        videos_per_forward: examples that one process holds in memory at once; gradients are
            accumulated over as many forward passes as videos_per_step needs.
        max_gradient_norm: the gradient is scaled down to it.
        precision: `bf16`, autocast over float32 weights, or `fp32`; `auto` is `bf16` where the
            device multiplies it in hardware.
        seed: of every random draw.
        validations: about so many over a run that has a validation file.
        min_validation_steps: they are a multiple of so many steps apart.
        checkpoint_steps: steps between checkpoints, from which an interrupted run goes on.
        checkpoint_seconds: besides, no more than so many seconds between them; None: by steps
            alone.
        checkpoints_kept: the newest ones.
        log_steps: steps between two lines of metrics.jsonl, each the mean over them.
    """

    task: HeadName
    visual: Visual = "trained"
    texts_per_video: int = 1
    negatives: int = 1
    mask_probability: float = 0.15
    mismatch_probability: float = 0.5
    kept_cells: int | None = None
    max_answers: int | None = None
    same_answers: SameAnswers = "folded"
    clips: int = 8
    random_clips: bool = True
    frames_per_clip: int = 2
    plan: PlanName = "authors"
    frames_per_second: float = 2.0
    clip_seconds: float = 1.0
    inference_clips: int = 16
    validation_clips: int = 1
    max_side_px: int | None = None
    max_text_tokens: int | None = None
    aggregation: Aggregation = "lse"
    loss: Loss = "ce"
    head_std: float = 0.02
    dropout: float | None = None
    learning_rate: float = 5e-5
    cnn_learning_rate: float = 5e-5
    grid_encoder_factor: float = 1.0
    weight_decay: float = 1e-3
    cnn_weight_decay: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.98)
    epsilon: float = 1e-6
    decay: Decay = "linear"
    warmup_ratio: float = 0.1
    decay_epochs: tuple[int, ...] = ()
    epochs: float = 20.0
    steps: int | None = None
    videos_per_step: int = 64
    videos_per_forward: int = 16
    max_gradient_norm: float = 5.0
    precision: Precision = "bf16"
    seed: int = 42
    validations: int = 100
    min_validation_steps: int = 100
    checkpoint_steps: int = 500
    checkpoint_seconds: float | None = None
    checkpoints_kept: int = 2
    log_steps: int = 10

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            _one_of(name, getattr(self, name), allowed)
        _one_of("loss", self.loss, _LOSSES[self.task])
        self._check_each()
        self._check_together()

    def _check_each(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}: must be at least {least}")
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}: must be above 0")
        for name in _NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}: must be at least 0")
        for name in _PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: must be 0 to 1")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                raise ConfigError(f"{name} is {value}: must be at most {most}")
        if self.seed >= _SEEDS:
            raise ConfigError(f"seed is {self.seed}: must be below {_SEEDS}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}: must be at least 0 and below 1")

    def _check_together(self) -> None:
        if self.aggregation == "lse" and self.loss != "ce":
            raise ConfigError(f"aggregation is 'lse': with loss {self.loss!r} take mean or max")
        if self.task == "retrieval" and self.negatives < 1:
            raise ConfigError("negatives is 0: retrieval needs at least 1")
        texts_per_forward = self.videos_per_forward * self.texts_per_video
        if self.task == "count" and texts_per_forward < _LEAST_COUNTED_TEXTS:
            raise ConfigError(
                f"videos_per_forward is {self.videos_per_forward} and texts_per_video "
                f"{self.texts_per_video}: counting needs at least 2 questions in a forward pass, "
                "for its batch norm, which sees one clip of each at a time"
            )
        if self.videos_per_step % self.videos_per_forward:
            raise ConfigError(
                f"videos_per_step is {self.videos_per_step}: must be a multiple of "
                f"videos_per_forward {self.videos_per_forward}"
            )
        if self.visual == "frozen" and self.task == "pretraining":
            raise ConfigError("visual is 'frozen': pretraining trains the visual side too")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):  # noqa: PLR2004
            raise ConfigError(f"betas is {self.betas}: needs 2 numbers, each 0 to below 1")
        if self.decay == "multi_step" and not self.decay_epochs:
            raise ConfigError("decay_epochs is empty: decay 'multi_step' needs them")

    @property
    def training_plan(self) -> SamplingPlan:
        """The clips of a training step, to be drawn with a generator."""
        return self._plan(self.clips)

    @property
    def inference_plan(self) -> SamplingPlan:
        """What the trained model looks at by default."""
        return self._plan(self.inference_clips)

    def to_toml(self) -> str:
        """Return the text of a recipe file, every field in it but those that are None."""
        lines = [f"{name} = {_toml(value)}" for name, value in self._given().items()]
        return "\n".join(lines) + "\n"

    def replace(self, settings: Iterable[str]) -> "Recipe":
        """Change fields as `--set` does.

        recipe.replace(["clips=4", "plan=segments", "steps=none"])

        Args:
            settings: field, "=" and a value as in TOML; quotes around texts may be left out,
                and `none` is for fields that may be None.

        Raises:
            ConfigError: a field is unknown, or its value is not right.
        """
        fields: dict[str, Any] = dataclasses.asdict(self)
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise ConfigError(f"{setting!r} is not a setting: must be field=value")
            fields[name.strip()] = _from_text(text.strip())
        return dataclass_from_json(Recipe, fields)

    def _plan(self, num_clips: int) -> SamplingPlan:
        return SamplingPlan(
            self.plan,
            num_clips=num_clips,
            frames_per_clip=self.frames_per_clip,
            clip_seconds=self.clip_seconds,
            frames_per_second=self.frames_per_second,
            max_clips=max(num_clips, SamplingPlan.max_clips),
        )

    def _given(self) -> dict[str, Any]:
        return {name: v for name, v in dataclasses.asdict(self).items() if v is not None}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Args:
        path: TOML, one key a field; fields that are left out have the values of the class.

    Raises:
        ConfigError: the file cannot be read, or a field is unknown, missing, of a wrong type or
            out of range; the error names the file and the field.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigError(f"{path} is not TOML in UTF-8: {error}") from error
    if "task" not in fields:
        raise ConfigError(f"{path}: task is missing: must be one of {', '.join(_CHOICES['task'])}")
    try:
        return dataclass_from_json(Recipe, fields)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _from_text(text: str) -> Any:  # noqa: ANN401 (any type of TOML)
    if text == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _toml(value: Any) -> str:  # noqa: ANN401 (any type of a field)
    # Texts, numbers and lists of numbers are written alike in both.
    return json.dumps(value)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}: must be one of {', '.join(allowed)}")
