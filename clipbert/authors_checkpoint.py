"""The authors' checkpoints -> our model, strictly.

Their file is a plain dict of tensors, and half of what is in it is never used: the detector that
the CNN was trained in, a position table. Those groups are skipped by name and reported; any other
key must find its place, and every place its key.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from clipbert.checkpoint import build_from_state
from clipbert.config import (
    Aggregation,
    BackboneConfig,
    ClipBertConfig,
    HeadConfig,
    HeadName,
)
from clipbert.errors import CheckpointError
from clipbert.model import ClipBert

_BLOCK = r"cnn\.feature\.backbone\.res([2-5])\.(\d+)"
_BERT = r"transformer\.bert"

_SKIPPED_GROUPS = (
    "cnn.feature.proposal_generator.",
    "cnn.feature.roi_heads.",
    "transformer.bert.visual_embeddings.position_embeddings.",
    "transformer.cls.",  # the heads of pretraining
)
_CLASSIFIER = "transformer.classifier."
_UNUSED_ANSWERS = "transformer.classifier outputs without an answer"

_WORDS = "text_embeddings.word_embeddings.weight"
_POSITIONS = "text_embeddings.position_embeddings.weight"

# Their names -> ours, but for the stages' numbers and the head's name.
_RENAMES = (
    (r"cnn\.feature\.backbone\.stem\.conv1\.weight", "backbone.conv1.weight"),
    (r"cnn\.feature\.backbone\.stem\.conv1\.norm\.(.+)", r"backbone.bn1.\1"),
    (rf"{_BLOCK}\.conv([123])\.weight", r"backbone.res\1.\2.conv\3.weight"),
    (rf"{_BLOCK}\.conv([123])\.norm\.(.+)", r"backbone.res\1.\2.bn\3.\4"),
    (rf"{_BLOCK}\.shortcut\.weight", r"backbone.res\1.\2.downsample.0.weight"),
    (rf"{_BLOCK}\.shortcut\.norm\.(.+)", r"backbone.res\1.\2.downsample.1.\3"),
    (r"cnn\.grid_encoder\.0\.weight", "grid_encoder.conv.weight"),
    (rf"{_BERT}\.embeddings\.(.+)", r"text_embeddings.\1"),
    (
        rf"{_BERT}\.visual_embeddings\.(row|col)_position_embeddings\.(.+)",
        r"visual_embeddings.\1_embeddings.\2",
    ),
    (rf"{_BERT}\.visual_embeddings\.(.+)", r"visual_embeddings.\1"),
    (rf"{_BERT}\.(encoder|pooler)\.(.+)", r"cross_encoder.\1.\2"),
    (r"transformer\.classifier\.0\.(.+)", r"heads.{head}.hidden.\1"),
    (r"transformer\.classifier\.2\.(.+)", r"heads.{head}.output.\1"),
)


@dataclass(frozen=True)
class ImportedCheckpoint:
    """An authors' checkpoint as our model.

    Attributes:
        model: float32, in eval mode; without a tokenizer, which their files do not hold.
        skipped: numbers of elements that were left out on purpose, by group of keys.
    """

    model: ClipBert
    skipped: dict[str, int]


def import_authors_checkpoint(
    path: Path,
    *,
    head: HeadName | None,
    answers: Sequence[str] = (),
    num_attention_heads: int = 12,
    max_side_px: int = 448,
    max_text_tokens: int = 100,
    aggregation: Aggregation = "lse",
) -> ImportedCheckpoint:
    """Read a checkpoint that the authors' code wrote.

    Sizes are read from the weights' shapes; what a weight does not show is an argument.

    Args:
        path: their .pt file.
        head: the task it was finetuned for; None for a pretrained one, whose heads are skipped.
        answers: for "qa", the texts of the outputs, in their order. Their output layer may be
            longer than the vocabulary (at least 1500); outputs without an answer are cut off.
        num_attention_heads: of the cross-encoder.
        max_side_px: S, of the frames it was trained on.
        max_text_tokens: longest text it was trained on.
        aggregation: over clips, as in its training configuration.

    Returns:
        The model, and what was skipped.

    Raises:
        CheckpointError: the file is no dict of tensors, or a key is unknown, missing or misshapen.
        ConfigError: an argument does not fit the weights.
    """
    theirs = _read(path)
    ours, skipped = rename_authors_keys(theirs, head=head)
    if head is None:
        heads: tuple[HeadConfig, ...] = ()
    else:
        heads = (HeadConfig(head, _shape(ours, f"heads.{head}.output.weight")[0]),)
    if head == "qa":
        cut = _cut_answers(ours, len(answers))
        heads = (HeadConfig("qa", len(answers)),)
        if cut:
            skipped[_UNUSED_ANSWERS] = cut
    config = ClipBertConfig(
        max_side_px=max_side_px,
        num_attention_heads=num_attention_heads,
        max_text_tokens=min(max_text_tokens, _shape(ours, _POSITIONS)[0]),
        heads=heads,
        trained_heads=() if head is None else (head,),
        answers=tuple(answers),
        aggregation=aggregation,
        backbone=_backbone_config(ours),
        hidden_size=_shape(ours, _WORDS)[1],
        num_layers=_count(ours, r"cross_encoder\.encoder\.layer\.(\d+)\."),
        intermediate_size=_shape(ours, "cross_encoder.encoder.layer.0.intermediate.dense.weight")[
            0
        ],
        vocab_size=_shape(ours, _WORDS)[0],
        num_positions=_shape(ours, _POSITIONS)[0],
        num_rows=_shape(ours, "visual_embeddings.row_embeddings.weight")[0],
        num_cols=_shape(ours, "visual_embeddings.col_embeddings.weight")[0],
    )
    return ImportedCheckpoint(build_from_state(config, ours, source=str(path)), skipped)


def rename_authors_keys(
    theirs: Mapping[str, Tensor], *, head: HeadName | None
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Give the authors' weights our names.

    LayerNorms may have their old names, gamma and beta.

    Args:
        theirs: by their names.
        head: what their classifier is; None if there should be none.

    Returns:
        The weights by our names, and the elements skipped by group of keys.

    Raises:
        CheckpointError: a key has no place, or two keys have the same one.
    """
    ours: dict[str, Tensor] = {}
    skipped: dict[str, int] = {}
    unknown = []
    for name, tensor in theirs.items():
        group = next((group for group in _SKIPPED_GROUPS if name.startswith(group)), None)
        if group is not None:
            skipped[group] = skipped.get(group, 0) + tensor.numel()
            continue
        renamed = _rename(name, head)
        if renamed is None:
            unknown.append(name)
        elif renamed in ours:
            raise CheckpointError(f"{name} is there twice, under its old and its new name")
        else:
            ours[renamed] = tensor
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")  # noqa: PLR2004
        hint = " (which head is the classifier?)" if unknown[0].startswith(_CLASSIFIER) else ""
        raise CheckpointError(f"{len(unknown)} unknown keys: {shown}{hint}")
    return ours, skipped


def _read(path: Path) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise CheckpointError(f"no such file: {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no checkpoint of tensors alone: {error}") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise CheckpointError(f"{path} is no plain dict of names and tensors")
    return content


def _rename(name: str, head: HeadName | None) -> str | None:
    if name.startswith(_CLASSIFIER) and head is None:
        return None
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
    name = name.replace("LayerNorm.beta", "LayerNorm.bias")
    for pattern, ours in _RENAMES:
        if re.fullmatch(pattern, name):
            renamed = re.sub(pattern, ours, name).replace("{head}", str(head))
            # Their stages are counted from 2, torchvision's from 1.
            return re.sub(r"\.res(\d)\.", lambda match: f".layer{int(match[1]) - 1}.", renamed)
    return None


def _cut_answers(ours: dict[str, Tensor], num_answers: int) -> int:
    """Cut the outputs that no answer has, and count the elements that go."""
    weight, bias = "heads.qa.output.weight", "heads.qa.output.bias"
    outputs, hidden = _shape(ours, weight)
    if not 0 < num_answers <= outputs:
        raise CheckpointError(
            f"the classifier has {outputs} outputs, and there are {num_answers} answers: give "
            "those of the data set it was trained on (its ans2label file), in their order"
        )
    _shape(ours, bias)
    ours[weight], ours[bias] = ours[weight][:num_answers], ours[bias][:num_answers]
    return (outputs - num_answers) * (hidden + 1)


def _backbone_config(ours: Mapping[str, Tensor]) -> BackboneConfig:
    stages = [
        _count(ours, rf"backbone\.layer{stage}\.(\d+)\.conv1\.weight") for stage in (1, 2, 3, 4)
    ]
    return BackboneConfig(
        stem_channels=_shape(ours, "backbone.conv1.weight")[0],
        width=_shape(ours, "backbone.layer1.0.conv1.weight")[0],
        stage_blocks=tuple(stages),
        stride_in_1x1=True,
    )


def _count(ours: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in ours if (match := re.match(pattern, name))})


def _shape(ours: Mapping[str, Tensor], name: str) -> torch.Size:
    if name not in ours:
        raise CheckpointError(f"1 missing: {name}")
    return ours[name].shape
