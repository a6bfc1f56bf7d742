"""Parts that others trained, as they lie on disk: torchvision's ResNets and transformers' BERTs."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert.checkpoints.authors_names import BERT_PREFIX, drop_tied, to_authors_name, to_our_name
from clipbert.checkpoints.card import SourceFile
from clipbert.checkpoints.foreign import BertSizes, ForeignWeights, rename_weights
from clipbert.checkpoints.tensor_files import read_tensors
from clipbert.errors import CheckpointError
from clipbert.model.config_json import dataclass_from_json
from clipbert.model.text import TOKENIZER_FILE, TextTokenizer

# torchvision's weights want RGB on the scale 0 to 1; these are its numbers on our scale, 0 to 255.
TORCHVISION_MEAN = (123.675, 116.28, 103.53)
TORCHVISION_STD = (58.395, 57.12, 57.375)

_CLASSIFIER, _COUNTERS = "fc.", "num_batches_tracked"
_BERT_FILES = ("model.safetensors", "pytorch_model.bin")
_VOCABULARY_FILE = "vocab.txt"
# The heads of BERT's own tasks, and 0, 1, 2, ..., which older files hold.
_BERT_UNUSED = ("cls.seq_relationship.", "classifier.", "qa_outputs.", "embeddings.position_ids")
_WORDS_GROUP = "cls.predictions."
_BERT_PARTS = ("text_embeddings.", "cross_encoder.")
_WORDS_PARTS = tuple(f"heads.pretraining.{layer}" for layer in ("dense.", "LayerNorm.", "bias"))


@dataclass(frozen=True)
class TrainedPart:
    """A trained part of a model.

    Attributes:
        weights: all that it has, by our names.
        prefixes: beginnings of the names that it must have all weights of.
        fields: fields of ClipBertConfig that come with it.
        skipped: numbers of elements in its file that are not used, by group of keys.
        source: its file of weights.
        tokenizer: that it was trained with; None for a CNN.
    """

    weights: ForeignWeights
    prefixes: tuple[str, ...]
    fields: Mapping[str, Any]
    skipped: Mapping[str, int]
    source: SourceFile
    tokenizer: TextTokenizer | None = None


@dataclass(frozen=True)
class _BertSettings:
    """The fields of a BERT's config.json that count here, by its own names."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    layer_norm_eps: float = 1e-12
    model_type: str = "bert"
    hidden_act: str = "gelu"
    position_embedding_type: str = "absolute"


_PLAIN_BERT = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


def read_torchvision_resnet(path: Path) -> TrainedPart:
    """Read a bottleneck ResNet of torchvision's layout: ResNet-50, 101 or 152.

    It wants RGB with torchvision's mean and deviation, and halves the picture in 3x3 convolutions.

    Args:
        path: its state dict, as torch.save or safetensors wrote it.

    Raises:
        CheckpointError: the file cannot be read, or holds no such network.
    """
    tensors, skipped = rename_weights(
        read_tensors(path),
        unused_group=_unused_of_resnet,
        our_name=lambda name: f"backbone.{name}",
        source=str(path),
    )
    weights = ForeignWeights(tensors, lambda name: name.removeprefix("backbone."), str(path))
    return TrainedPart(
        weights=weights,
        prefixes=("backbone.",),
        fields={
            "backbone": weights.backbone_config(stride_in_1x1=False),
            "mean": TORCHVISION_MEAN,
            "std": TORCHVISION_STD,
            "channel_order": "rgb",
        },
        skipped=skipped,
        source=SourceFile.of("ResNet of torchvision's layout", path),
    )


def read_bert(folder: Path, *, with_words: bool) -> TrainedPart:
    """Read a BERT from a folder of transformers.

    Args:
        folder: config.json, model.safetensors or pytorch_model.bin, tokenizer.json or vocab.txt.
            LayerNorms may have their old names, gamma and beta.
        with_words: whether the head that predicts masked words is wanted; it is read if the folder
            has one.

    Raises:
        CheckpointError: a file is missing or cannot be read, a weight is unknown or does not fit
            config.json, or it is not a plain BERT.
        ConfigError: config.json lacks a field, or one is of a wrong type.
    """
    folder = Path(folder)
    path = next((folder / name for name in _BERT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"no {' or '.join(_BERT_FILES)} in {folder}")
    settings = _read_bert_settings(folder)
    theirs = read_tensors(path)
    has_words = with_words and any(name.startswith(_WORDS_GROUP) for name in theirs)
    if has_words:
        theirs = drop_tied(theirs, prefix="", source=str(path))
    unused = _BERT_UNUSED if has_words else (*_BERT_UNUSED, _WORDS_GROUP)
    prefix = "bert." if any(name.startswith("bert.") for name in theirs) else ""
    tensors, skipped = rename_weights(
        theirs,
        unused_group=lambda name: _unused_of_bert(name.removeprefix(prefix), unused),
        our_name=lambda name: _our_name_of_bert(name, prefix),
        source=str(path),
    )
    weights = ForeignWeights(tensors, lambda name: _bert_name(name, prefix), str(path))
    sizes = weights.bert_sizes()
    _check_sizes(settings, sizes, folder=folder)
    return TrainedPart(
        weights=weights,
        prefixes=(*_BERT_PARTS, *_WORDS_PARTS) if has_words else _BERT_PARTS,
        fields={
            **dataclasses.asdict(sizes),
            "num_attention_heads": settings.num_attention_heads,
            "layer_norm_eps": settings.layer_norm_eps,
        },
        skipped=skipped,
        source=SourceFile.of("BERT", path),
        tokenizer=_read_bert_tokenizer(folder),
    )


def _unused_of_resnet(name: str) -> str | None:
    if name.startswith(_CLASSIFIER):
        return _CLASSIFIER
    return _COUNTERS if name.endswith(_COUNTERS) else None


def _unused_of_bert(name: str, groups: tuple[str, ...]) -> str | None:
    return next((group for group in groups if name.startswith(group)), None)


def _our_name_of_bert(name: str, prefix: str) -> str | None:
    """Return our name: the authors' are BERT's, behind a prefix."""
    has_prefix = name.startswith(("bert.", "cls.")) if prefix else name.startswith("cls.")
    full = name if has_prefix else f"bert.{name}"
    return to_our_name(f"{BERT_PREFIX}{full}", head="pretraining")


def _bert_name(ours: str, prefix: str) -> str:
    theirs = to_authors_name(ours, head="pretraining") or ours
    return theirs.removeprefix(BERT_PREFIX).removeprefix("" if prefix else "bert.")


def _read_bert_settings(folder: Path) -> _BertSettings:
    """Read config.json, and refuse what is computed otherwise here."""
    fields = _read_json(folder / "config.json")
    known = {field.name for field in dataclasses.fields(_BertSettings)}
    settings = dataclass_from_json(
        _BertSettings, {name: value for name, value in fields.items() if name in known}
    )
    for name, wanted in _PLAIN_BERT.items():
        if getattr(settings, name) != wanted:
            raise CheckpointError(
                f"{folder} holds no plain BERT: {name} is {getattr(settings, name)!r}, must be "
                f"{wanted!r}"
            )
    return settings


def _check_sizes(settings: _BertSettings, sizes: BertSizes, *, folder: Path) -> None:
    pairs = {
        "hidden_size": sizes.hidden_size,
        "num_hidden_layers": sizes.num_layers,
        "intermediate_size": sizes.intermediate_size,
        "vocab_size": sizes.vocab_size,
        "max_position_embeddings": sizes.num_positions,
    }
    for name, size in pairs.items():
        if getattr(settings, name) != size:
            raise CheckpointError(
                f"{folder}: {name} is {getattr(settings, name)} in config.json, the weights have "
                f"{size}"
            )


def _read_bert_tokenizer(folder: Path) -> TextTokenizer:
    if (folder / TOKENIZER_FILE).is_file():
        return TextTokenizer.from_folder(folder)
    if not (folder / _VOCABULARY_FILE).is_file():
        raise CheckpointError(f"no {TOKENIZER_FILE} or {_VOCABULARY_FILE} in {folder}")
    settings_file = folder / "tokenizer_config.json"
    settings = _read_json(settings_file) if settings_file.is_file() else {}
    lowercase = settings.get("do_lower_case", True)  # as BERT's tokenizer has it
    return TextTokenizer.from_file(folder / _VOCABULARY_FILE, lowercase=bool(lowercase))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return fields
