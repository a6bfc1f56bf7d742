"""What a checkpoint depends on: sizes, pixel settings, heads. Stored as config.json beside it."""

import dataclasses
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clipbert.errors import CheckpointError, ConfigError
from clipbert.model.config_json import dataclass_from_json
from clipbert.model.head_names import HeadName
from clipbert.model.presets import PRESETS
from clipbert.sampling.plan import SamplingPlan

Aggregation = Literal["mean", "max", "lse"]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MODEL_TYPE = "clipbert"
# Cells of the backbone's last feature map; the grid encoder then halves each side.
BACKBONE_STRIDE_PX = 32
GRID_STRIDE_PX = 2 * BACKBONE_STRIDE_PX
_RGB = 3
_NUM_STAGES = 4
_ARCHITECTURE = "ClipBert"
_JSON_FIELDS_OF_THE_HUB = {"model_type", "architectures"}
# Outputs that a head may have; question answering has one for each answer, however many.
_NUM_OUTPUTS = {"retrieval": (1, 2), "multiple_choice": (1,), "count": (1,), "pretraining": (2,)}


@dataclass(frozen=True)
class BackboneConfig:
    """The 2D CNN.

    Attributes:
        kind: "resnet", bottleneck ResNet of the sizes below, or "timm", any model of timm.
        timm_model: name of the timm model; empty for a ResNet.
        stem_channels: of the ResNet's first convolution.
        width: bottleneck channels of its first stage; each later stage doubles them, and a
            stage puts out four times its bottleneck channels.
        stage_blocks: blocks in each of the four stages.
        stride_in_1x1: where a stage halves the size: in its first 1x1 convolution, as the
            authors' weights want it, or in the 3x3, as torchvision's do. The shapes are the
            same either way, so nothing but the numbers shows a wrong choice.
    """

    kind: Literal["resnet", "timm"] = "resnet"
    timm_model: str = ""
    stem_channels: int = 64
    width: int = 64
    stage_blocks: tuple[int, ...] = (3, 4, 6, 3)
    stride_in_1x1: bool = True

    def __post_init__(self) -> None:
        _one_of("backbone.kind", self.kind, ("resnet", "timm"))
        if self.kind == "timm" and not self.timm_model:
            raise ConfigError("backbone.timm_model is empty: backbone.kind 'timm' needs a name")
        if self.kind == "resnet" and self.timm_model:
            raise ConfigError(
                f"backbone.timm_model is {self.timm_model!r}: must be empty for a 'resnet'"
            )
        _at_least("backbone.stem_channels", self.stem_channels, 1)
        _at_least("backbone.width", self.width, 1)
        if len(self.stage_blocks) != _NUM_STAGES:
            raise ConfigError(f"backbone.stage_blocks is {self.stage_blocks}: needs 4 numbers")
        for blocks in self.stage_blocks:
            _at_least("backbone.stage_blocks", blocks, 1)


@dataclass(frozen=True)
class GridEncoderConfig:
    """What turns the backbone's features into visual tokens.

    Attributes:
        kind: "conv", the paper's convolution and pooling, or "class_mixture", a classifier on
            each cell and the mixture of its classes' word embeddings.
        num_classes: of the classifier; 0 for "conv".
    """

    kind: Literal["conv", "class_mixture"] = "conv"
    num_classes: int = 0

    def __post_init__(self) -> None:
        _one_of("grid_encoder.kind", self.kind, ("conv", "class_mixture"))
        if self.kind == "class_mixture":
            _at_least("grid_encoder.num_classes", self.num_classes, 1)
        elif self.num_classes:
            raise ConfigError(
                f"grid_encoder.num_classes is {self.num_classes}: must be 0 for kind 'conv'"
            )


@dataclass(frozen=True)
class HeadConfig:
    """One task head.

    Attributes:
        name: which task.
        num_outputs: retrieval 2 (cross-entropy; the second is "match") or 1 (ranking), qa one
            for each answer, multiple_choice 1, count 1 (the number itself), pretraining 2 (no
            match, match; beside them it has one logit for each word of the vocabulary).
    """

    name: HeadName
    num_outputs: int

    def __post_init__(self) -> None:
        _one_of("heads.name", self.name, typing.get_args(HeadName))
        _at_least(f"heads[{self.name}].num_outputs", self.num_outputs, 1)
        allowed = _NUM_OUTPUTS.get(self.name)
        if allowed is not None and self.num_outputs not in allowed:
            wanted = " or ".join(map(str, allowed))
            raise ConfigError(
                f"heads[{self.name}].num_outputs is {self.num_outputs}: must be {wanted}"
            )


@dataclass(frozen=True)
class ClipBertConfig:
    """Everything a checkpoint's meaning depends on.

    Attributes:
        max_side_px: S, side of the square that frames are fitted into; a multiple of 32.
        mean: subtracted from pixels, RGB, on the 0-255 scale.
        std: pixels are then divided by it, RGB.
        channel_order: that the backbone reads.
        backbone: the 2D CNN.
        grid_encoder: features to visual tokens.
        hidden_size: D.
        num_layers: of the cross-encoder.
        num_attention_heads: divides hidden_size.
        intermediate_size: inner size of the feed-forward blocks.
        vocab_size: token ids of the tokenizer.
        num_positions: rows of the text position table.
        max_text_tokens: texts are cut to this many tokens, special tokens included.
        num_rows: rows of the visual row table.
        num_cols: rows of the visual column table.
        frame_positions: 0, as in the paper: a clip is the mean of its frames, their order is lost.
            Otherwise each frame keeps its tokens, told apart by a table of this many places: a
            clip has T times as many tokens, and at most this many frames.
        clip_positions: 0, as in the paper: no clip knows where in the video it is. Otherwise the
            video is cut into this many equal parts, and a clip's tokens carry the embedding of
            the part that its middle lies in.
        dropout: of hidden states and attention, in training.
        layer_norm_eps: of every LayerNorm.
        heads: task heads, at most one of a name.
        trained_heads: names of those heads whose weights were trained; the others are random.
        answers: what the outputs of the qa head mean; empty without one.
        aggregation: how clip logits become a video's.
        recall: "zero_shot" if the model also makes recall vectors from its classes.
        recall_likeliest: classes that enter a recall vector.
        plan: how a video is looked at unless the caller says otherwise.
    """

    max_side_px: int = 448
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channel_order: Literal["rgb", "bgr"] = "bgr"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    grid_encoder: GridEncoderConfig = field(default_factory=GridEncoderConfig)
    hidden_size: int = 768
    num_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    vocab_size: int = 30522
    num_positions: int = 512
    max_text_tokens: int = 100
    num_rows: int = 100
    num_cols: int = 100
    frame_positions: int = 0
    clip_positions: int = 0
    dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    heads: tuple[HeadConfig, ...] = ()
    trained_heads: tuple[HeadName, ...] = ()
    answers: tuple[str, ...] = ()
    aggregation: Aggregation = "lse"
    recall: Literal["zero_shot"] | None = None
    recall_likeliest: int = 10
    plan: SamplingPlan = field(default_factory=SamplingPlan)

    def __post_init__(self) -> None:
        self._check_pixels()
        self._check_sizes()
        self._check_heads()
        self._check_recall()

    @property
    def grid_side(self) -> int:
        """Visual tokens along one side of the grid: h and w."""
        return self.max_side_px // BACKBONE_STRIDE_PX // 2

    def head(self, name: str) -> HeadConfig | None:
        """Find a head by its name; None if the model has none."""
        return next((head for head in self.heads if head.name == name), None)

    @classmethod
    def preset(cls, name: str) -> "ClipBertConfig":
        """Return a named configuration: clipbert-base (the paper's), clipbert-mini, clipbert-tiny.

        dataclasses.replace() changes it, and checks again.

        Raises:
            ConfigError: there is no preset of this name.
        """
        if name not in PRESETS:
            raise ConfigError(f"preset is {name!r}: must be one of {', '.join(PRESETS)}")
        return dataclass_from_json(cls, PRESETS[name])

    def to_json(self) -> dict[str, Any]:
        """Return what stands in config.json: only JSON's own types, nothing left out."""
        fields = json.loads(json.dumps(dataclasses.asdict(self)))
        return {"model_type": MODEL_TYPE, "architectures": [_ARCHITECTURE], **fields}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "ClipBertConfig":
        """Read what to_json gave. Fields that are left out have the values of the class.

        Raises:
            ConfigError: model_type is not "clipbert", a field is unknown, of a wrong type or
                out of range.
        """
        if fields.get("model_type") != MODEL_TYPE:
            raise ConfigError(f"model_type is {fields.get('model_type')!r}: must be 'clipbert'")
        own = {name: v for name, v in fields.items() if name not in _JSON_FIELDS_OF_THE_HUB}
        return dataclass_from_json(cls, own)

    @classmethod
    def from_folder(cls, folder: Path) -> "ClipBertConfig":
        """Read config.json of a model folder.

        Raises:
            CheckpointError: there is none, or it is not a JSON object.
            ConfigError: as from_json.
        """
        path = Path(folder) / CONFIG_FILE
        if not path.is_file():
            raise CheckpointError(f"no {CONFIG_FILE} in {folder}")
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{path} is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise CheckpointError(f"{path} is not a JSON object")
        return cls.from_json(fields)

    def _check_pixels(self) -> None:
        if self.max_side_px < GRID_STRIDE_PX or self.max_side_px % BACKBONE_STRIDE_PX:
            raise ConfigError(
                f"max_side_px is {self.max_side_px}: must be a multiple of 32, at least 64"
            )
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != _RGB or not all(map(math.isfinite, numbers)):
                raise ConfigError(f"{name} is {numbers}: needs 3 finite numbers, R, G, B")
        if min(self.std) <= 0:
            raise ConfigError(f"std is {self.std}: must be above 0")
        _one_of("channel_order", self.channel_order, ("rgb", "bgr"))
        for name in ("num_rows", "num_cols"):
            if getattr(self, name) < self.grid_side:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}: frames of {self.max_side_px} px need at "
                    f"least {self.grid_side}"
                )

    def _check_sizes(self) -> None:
        for name in ("hidden_size", "num_layers", "num_attention_heads", "intermediate_size"):
            _at_least(name, getattr(self, name), 1)
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"num_attention_heads is {self.num_attention_heads}: must divide hidden_size "
                f"{self.hidden_size}"
            )
        _at_least("vocab_size", self.vocab_size, 1)
        _at_least("frame_positions", self.frame_positions, 0)
        _at_least("clip_positions", self.clip_positions, 0)
        if not 3 <= self.max_text_tokens <= self.num_positions:  # noqa: PLR2004
            raise ConfigError(
                f"max_text_tokens is {self.max_text_tokens}: must be 3 to num_positions "
                f"{self.num_positions}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}: must be at least 0 and below 1")
        if not self.layer_norm_eps > 0:
            raise ConfigError(f"layer_norm_eps is {self.layer_norm_eps}: must be above 0")
        _one_of("aggregation", self.aggregation, typing.get_args(Aggregation))

    def _check_heads(self) -> None:
        names = [head.name for head in self.heads]
        if len(set(names)) < len(names):
            raise ConfigError(f"heads are {names}: at most one of each name")
        for name in self.trained_heads:
            _one_of("trained_heads", name, names)
        qa = self.head("qa")
        if len(set(self.answers)) < len(self.answers):
            raise ConfigError(f"answers has {len(self.answers)} texts: each must stand once only")
        if qa is None and self.answers:
            raise ConfigError(f"answers has {len(self.answers)} texts: must be empty without qa")
        if qa is not None and qa.num_outputs != len(self.answers):
            raise ConfigError(
                f"heads[qa].num_outputs is {qa.num_outputs}: must be the number of answers, "
                f"{len(self.answers)}"
            )

    def _check_recall(self) -> None:
        if self.recall is None:
            return
        _one_of("recall", self.recall, ("zero_shot",))
        if self.grid_encoder.kind != "class_mixture":
            raise ConfigError(
                f"recall is {self.recall!r}: needs grid_encoder.kind 'class_mixture', got "
                f"{self.grid_encoder.kind!r}"
            )
        if not 1 <= self.recall_likeliest <= self.grid_encoder.num_classes:
            raise ConfigError(
                f"recall_likeliest is {self.recall_likeliest}: must be 1 to "
                f"grid_encoder.num_classes {self.grid_encoder.num_classes}"
            )


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} is {value}: must be at least {least}")


def _one_of(name: str, value: str, allowed: typing.Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}: must be one of {', '.join(allowed) or 'none'}")
