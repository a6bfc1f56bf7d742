"""Our model -> a checkpoint that the authors' code reads: its names, and its file format."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clipbert.checkpoints.authors_names import (
    BERT_PREFIX,
    CLASSIFIER_GROUP,
    TIED,
    UNUSED_GROUPS,
    to_authors_name,
)
from clipbert.checkpoints.folder import first_few
from clipbert.errors import CheckpointError
from clipbert.model.config import ClipBertConfig
from clipbert.model.head_names import HeadName
from clipbert.model.network import Network
from clipbert.runs.whole_files import write_beside

# What their code hard-codes. A model that differs in one of them has the same shapes, and would
# compute something else there.
_PIXELS = ("mean", "std", "channel_order")
_LEAST_ANSWERS = 1500


@dataclass(frozen=True)
class ExportedCheckpoint:
    """A checkpoint in the authors' form.

    Attributes:
        head: what its head is.
        num_tensors: in the file, tied ones counted twice as theirs are.
        left_out: groups of keys that theirs have and this one has not, all of them never used;
            and our other heads.
        passed_over: groups of keys that their loader would silently not load: their qa heads have
            at least 1500 outputs, ours one for each answer.
    """

    head: HeadName
    num_tensors: int
    left_out: tuple[str, ...]
    passed_over: tuple[str, ...]


def export_authors_checkpoint(
    network: Network, path: Path, *, head: HeadName | None = None
) -> ExportedCheckpoint:
    """Write a model as a checkpoint of the authors' code.

    import_authors_checkpoint of the file gives the model again, bit for bit in float32.

    Args:
        network: of the paper's parts: a ResNet and the paper's grid encoder and heads.
        path: a .pt file, which must not exist.
        head: which head to write, for theirs have one; None if the model has only one anyway.

    Returns:
        What was written, and what was left out.

    Raises:
        CheckpointError: the file exists or cannot be written, no head or none alone can be
            written, or the model has parts or pixels that their code does not have.
    """
    path = Path(path)
    if path.exists():
        raise CheckpointError(f"{path} exists: choose another name")
    head = _choose_head(network.config, head)
    _refuse_other_pixels(network)
    others = tuple(f"heads.{other.name}." for other in network.config.heads if other.name != head)
    tensors = {
        name: tensor.detach().cpu()
        for name, tensor in network.state_dict().items()
        if not name.startswith(others)
    }
    theirs = _rename(tensors, head)
    if head == "pretraining":
        theirs |= {BERT_PREFIX + tied: theirs[BERT_PREFIX + name] for tied, name in TIED.items()}
    _save(theirs, path)
    is_short = head == "qa" and len(network.config.answers) < _LEAST_ANSWERS
    return ExportedCheckpoint(
        head,
        num_tensors=len(theirs),
        left_out=(*UNUSED_GROUPS, *others),
        passed_over=(f"{CLASSIFIER_GROUP}2.",) if is_short else (),
    )


def _choose_head(config: ClipBertConfig, head: HeadName | None) -> HeadName:
    known = typing.get_args(HeadName)
    names = [each.name for each in config.heads if each.name in known]
    if head is None and len(names) == 1:
        return names[0]
    if head is None:
        raise CheckpointError(
            f"the model has the heads {', '.join(names)}: say which, a checkpoint of theirs has one"
            if names
            else "the model has no head that the authors' code has"
        )
    if head not in names:
        raise CheckpointError(f"the model has no {head} head, only {', '.join(names) or 'none'}")
    return head


def _refuse_other_pixels(network: Network) -> None:
    config, theirs = network.config, ClipBertConfig()
    different = [name for name in _PIXELS if getattr(config, name) != getattr(theirs, name)]
    if not config.backbone.stride_in_1x1:
        different.append("backbone.stride_in_1x1")
    if network.is_folded:
        different.append("folded batch norm")
    if different:
        raise CheckpointError(
            "the authors' code would compute something else with these weights: it has another "
            f"{', '.join(different)}"
        )


def _rename(tensors: Mapping[str, Tensor], head: HeadName) -> dict[str, Tensor]:
    names = {name: to_authors_name(name, head=head) for name in tensors}
    unknown = [name for name, theirs in names.items() if theirs is None]
    if unknown:
        raise CheckpointError(
            f"the authors' code has no place for {len(unknown)} weights: {first_few(unknown)}"
        )
    return {theirs: tensors[name] for name, theirs in names.items() if theirs is not None}


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        with write_beside(path) as beside:
            torch.save(dict(tensors), beside)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch could not open or write it
        raise CheckpointError(f"{path} cannot be written: {error}") from error
