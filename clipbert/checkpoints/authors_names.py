"""Names of weights, the authors' and ours: one table, read in both directions."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from clipbert.checkpoints.foreign import rename_weights
from clipbert.errors import CheckpointError
from clipbert.model.head_names import HeadName

PRETRAINING_GROUP = "transformer.cls."
CLASSIFIER_GROUP = "transformer.classifier."
REGRESSOR_GROUP = "transformer.regressor."  # of counting questions
# What torch's DataParallel and DistributedDataParallel put before each key of the model in them.
_WRAPPER = "module."
# What is in every checkpoint of theirs, and their model never uses.
UNUSED_GROUPS = (
    "cnn.feature.proposal_generator.",
    "cnn.feature.roi_heads.",
    "transformer.bert.visual_embeddings.position_embeddings.",
)
# Their transformer's names are those of transformers' BERT behind this.
BERT_PREFIX = "transformer."
# Stored a second time under this name, without the prefix: words are put out through the table that
# they are read from.
TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}

_PLACES = {
    "{block}": r"(?P<block>\d+)",
    "{conv}": r"(?P<conv>[123])",
    "{norm}": r"(?P<norm>weight|bias|running_mean|running_var)",
    "{trained_norm}": r"(?P<trained_norm>weight|bias|running_mean|running_var|num_batches_tracked)",
    "{kind}": r"(?P<kind>weight|bias)",
    "{table}": r"(?P<table>word|position|token_type)",
    "{axis}": r"(?P<axis>row|col)",
    "{rest}": r"(?P<rest>.+)",
}
_STEM = "cnn.feature.backbone.stem.conv1"
_VISUAL = "transformer.bert.visual_embeddings"
_NAMES = (
    (f"{_STEM}.weight", "backbone.conv1.weight"),
    (f"{_STEM}.norm.{{norm}}", "backbone.bn1.{norm}"),
    *(
        (f"cnn.feature.backbone.res{stage + 1}.{{block}}.{theirs}", f"backbone.layer{stage}.{ours}")
        for stage in (1, 2, 3, 4)
        for theirs, ours in (
            ("conv{conv}.weight", "{block}.conv{conv}.weight"),
            ("conv{conv}.norm.{norm}", "{block}.bn{conv}.{norm}"),
            ("shortcut.weight", "{block}.downsample.0.weight"),
            ("shortcut.norm.{norm}", "{block}.downsample.1.{norm}"),
        )
    ),
    ("cnn.grid_encoder.0.weight", "grid_encoder.conv.weight"),
    (
        "transformer.bert.embeddings.{table}_embeddings.weight",
        "text_embeddings.{table}_embeddings.weight",
    ),
    ("transformer.bert.embeddings.LayerNorm.{kind}", "text_embeddings.LayerNorm.{kind}"),
    (
        f"{_VISUAL}.{{axis}}_position_embeddings.weight",
        "visual_embeddings.{axis}_embeddings.weight",
    ),
    (f"{_VISUAL}.token_type_embeddings.weight", "visual_embeddings.token_type_embeddings.weight"),
    (f"{_VISUAL}.LayerNorm.{{kind}}", "visual_embeddings.LayerNorm.{kind}"),
    (
        "transformer.bert.encoder.layer.{block}.{rest}",
        "cross_encoder.encoder.layer.{block}.{rest}",
    ),
    ("transformer.bert.pooler.dense.{kind}", "cross_encoder.pooler.dense.{kind}"),
)
_PRETRAINING_NAMES = (
    ("transformer.cls.predictions.bias", "heads.pretraining.bias"),
    (
        "transformer.cls.predictions.transform.dense.{kind}",
        "heads.pretraining.dense.{kind}",
    ),
    (
        "transformer.cls.predictions.transform.LayerNorm.{kind}",
        "heads.pretraining.LayerNorm.{kind}",
    ),
    ("transformer.cls.seq_relationship.{kind}", "heads.pretraining.match.{kind}"),
)
_COUNT_NAMES = (
    (f"{REGRESSOR_GROUP}0.{{kind}}", "heads.count.hidden.{kind}"),
    # Unlike the backbone's, this batch norm is trained, and counts its batches.
    (f"{REGRESSOR_GROUP}2.{{trained_norm}}", "heads.count.norm.{trained_norm}"),
    (f"{REGRESSOR_GROUP}4.{{kind}}", "heads.count.output.{kind}"),
)


def head_group(head: HeadName) -> str:
    """Name the group of keys that a checkpoint of theirs with this head has."""
    if head == "pretraining":
        return PRETRAINING_GROUP
    return REGRESSOR_GROUP if head == "count" else CLASSIFIER_GROUP


def to_our_name(theirs: str, *, head: HeadName) -> str | None:
    """Return our name of a weight; None if it has none.

    to_our_name("cnn.feature.backbone.res2.0.conv1.norm.bias", head="qa")  ->
    "backbone.layer1.0.bn1.bias"

    Args:
        theirs: the authors' name; a LayerNorm's may be the old one, gamma or beta.
        head: what the checkpoint's head is.
    """
    return _translate(_modern(theirs), _table(head, "theirs"))


def to_authors_name(ours: str, *, head: HeadName) -> str | None:
    """Return the authors' name of a weight; None if it has none. The inverse of to_our_name."""
    return _translate(ours, _table(head, "ours"))


def rename_authors_keys(
    theirs: Mapping[str, Tensor], *, head: HeadName, source: str = "the checkpoint"
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Rename the authors' weights to ours.

    Groups that are never used are left out: the detector, the position table and, unless they are
    wanted, the heads of pretraining; and names of what is stored twice.

    Args:
        theirs: by their names; LayerNorms may have their old ones, gamma and beta.
        head: what the checkpoint's head is.
        source: where they come from, for errors.

    Returns:
        The weights by our names, and the elements left out by group of keys.

    Raises:
        CheckpointError: a key has no place, or two keys have the same one; tied weights differ.
    """
    if head == "pretraining":
        theirs = drop_tied(theirs, source=source)
    groups = UNUSED_GROUPS if head == "pretraining" else (*UNUSED_GROUPS, PRETRAINING_GROUP)
    return rename_weights(
        theirs,
        unused_group=lambda name: next((g for g in groups if name.startswith(g)), None),
        our_name=lambda name: to_our_name(name, head=head),
        source=source,
    )


def unwrapped(theirs: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], bool]:
    """Take away the prefix `module.` of a model that was saved within torch's data parallelism.

    Returns:
        The weights, and whether all of them had it. If only some have it, it is left: they are
        then unknown keys.
    """
    if not theirs or not all(name.startswith(_WRAPPER) for name in theirs):
        return theirs, False
    return {name.removeprefix(_WRAPPER): tensor for name, tensor in theirs.items()}, True


def drop_tied(
    theirs: Mapping[str, Tensor], *, prefix: str = BERT_PREFIX, source: str
) -> dict[str, Tensor]:
    """Leave out what is stored a second time.

    Args:
        theirs: by their names, or by those of transformers' BERT.
        prefix: of the former; empty for the latter.
        source: where they come from, for errors.

    Raises:
        CheckpointError: it is not equal to what it is tied to.
    """
    tied = {prefix + second: prefix + first for second, first in TIED.items()}
    for second, first in tied.items():
        if not (second in theirs and first in theirs):
            continue
        one, other = theirs[first], theirs[second]
        if one.dtype != other.dtype or not torch.equal(one, other):
            raise CheckpointError(f"{source}: {second} is not equal to {first}, its tied twin")
    return {name: tensor for name, tensor in theirs.items() if name not in tied}


@lru_cache
def _table(head: HeadName, given: Literal["theirs", "ours"]) -> list[tuple[re.Pattern[str], str]]:
    if head == "pretraining":
        names = (*_NAMES, *_PRETRAINING_NAMES)
    elif head == "count":
        names = (*_NAMES, *_COUNT_NAMES)
    else:
        names = (
            *_NAMES,
            (f"{CLASSIFIER_GROUP}0.{{kind}}", f"heads.{head}.hidden.{{kind}}"),
            (f"{CLASSIFIER_GROUP}2.{{kind}}", f"heads.{head}.output.{{kind}}"),
        )
    if given == "theirs":
        return [(_pattern(theirs), ours) for theirs, ours in names]
    return [(_pattern(ours), theirs) for theirs, ours in names]


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\})", template)
    return re.compile("".join(_PLACES.get(part, re.escape(part)) for part in parts))


def _translate(name: str, table: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in table:
        match = pattern.fullmatch(name)
        if match:
            return template.format(**match.groupdict())
    return None


def _modern(name: str) -> str:
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
