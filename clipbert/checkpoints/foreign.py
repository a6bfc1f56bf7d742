"""Weights that others trained, under our names: their sizes, and whether they are all there."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbert.checkpoints.folder import check_state, first_few
from clipbert.errors import CheckpointError
from clipbert.model.config import BackboneConfig, ClipBertConfig
from clipbert.model.network import Network

_STEM = "backbone.conv1.weight"
_STAGES = tuple(f"backbone.layer{stage}.0.conv1.weight" for stage in (1, 2, 3, 4))
_WORDS = "text_embeddings.word_embeddings.weight"
_POSITIONS = "text_embeddings.position_embeddings.weight"
_INNER = "cross_encoder.encoder.layer.0.intermediate.dense.weight"


@dataclass(frozen=True)
class BertSizes:
    """Sizes of BERT, as ClipBertConfig names them."""

    hidden_size: int
    num_layers: int
    intermediate_size: int
    vocab_size: int
    num_positions: int


@dataclass(frozen=True)
class ForeignWeights:
    """Weights of a file that others wrote.

    Attributes:
        tensors: by our names.
        name_of: our name of a weight -> the one it has in the file, by which errors call it.
        source: where they come from, for errors.

    Each method raises CheckpointError if a weight that it looks at is missing or misshapen.
    """

    tensors: Mapping[str, Tensor]
    name_of: Callable[[str], str]
    source: str

    def backbone_config(self, *, stride_in_1x1: bool) -> BackboneConfig:
        """Read the sizes of a ResNet; where it halves the picture is nothing that shapes tell."""
        self._require((_STEM, *_STAGES), num_dims=4)
        stages = [self._count(rf"backbone\.layer{n}\.(\d+)\.conv1\.weight") for n in (1, 2, 3, 4)]
        return BackboneConfig(
            stem_channels=self.tensors[_STEM].shape[0],
            width=self.tensors[_STAGES[0]].shape[0],
            stage_blocks=tuple(stages),
            stride_in_1x1=stride_in_1x1,
        )

    def bert_sizes(self) -> BertSizes:
        """Read the sizes of a BERT."""
        self._require((_WORDS, _POSITIONS, _INNER), num_dims=2)
        vocab_size, hidden_size = self.tensors[_WORDS].shape
        return BertSizes(
            hidden_size=hidden_size,
            num_layers=self._count(r"cross_encoder\.encoder\.layer\.(\d+)\."),
            intermediate_size=self.tensors[_INNER].shape[0],
            vocab_size=vocab_size,
            num_positions=self.tensors[_POSITIONS].shape[0],
        )

    def num_rows(self, name: str) -> int:
        """Read the rows of a table or the outputs of a layer: the length of its first side."""
        self._require((name,), num_dims=2)
        return self.tensors[name].shape[0]

    def check(self, config: ClipBertConfig, *, parts: Sequence[str] = ("",)) -> None:
        """Raise CheckpointError unless all weights of a model are there, and no others.

        Args:
            config: of the model.
            parts: beginnings of our names that must be there; "" for all.

        Raises:
            CheckpointError: a weight is missing, unknown, misshapen or of no floating type. The
                first few of each kind are named.
        """
        with torch.device("meta"):
            wanted = Network(config).state_dict()
        check_state(
            {self.name_of(n): t.shape for n, t in wanted.items() if n.startswith(tuple(parts))},
            {self.name_of(n): t for n, t in self.tensors.items()},
            source=self.source,
        )
        whole = [
            self.name_of(name)
            for name, tensor in self.tensors.items()
            # A trained batch norm counts its batches.
            if wanted[name].is_floating_point() and not tensor.is_floating_point()
        ]
        if whole:
            raise CheckpointError(
                f"{self.source} has {len(whole)} weights of no floating type: {first_few(whole)}"
            )

    def _require(self, names: Sequence[str], *, num_dims: int) -> None:
        missing = [self.name_of(name) for name in names if name not in self.tensors]
        if missing:
            raise CheckpointError(
                f"{self.source} lacks weights that its sizes are read from, {len(missing)} "
                f"missing: {first_few(missing)}"
            )
        for name in names:
            shape = tuple(self.tensors[name].shape)
            if len(shape) != num_dims or 0 in shape:
                raise CheckpointError(
                    f"{self.source} is misshapen: {self.name_of(name)} is {shape}, must have "
                    f"{num_dims} sides"
                )

    def _count(self, pattern: str) -> int:
        return len({match[1] for name in self.tensors if (match := re.match(pattern, name))})


def rename_weights(
    theirs: Mapping[str, Tensor],
    *,
    unused_group: Callable[[str], str | None],
    our_name: Callable[[str], str | None],
    source: str,
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Rename weights to ours, and leave out those that are never used.

    Args:
        theirs: by their names.
        unused_group: a name -> the group that it is left out with; None if it is used.
        our_name: a name -> ours; None if it has none.
        source: where they come from, for errors.

    Returns:
        The weights by our names, and the elements left out by group.

    Raises:
        CheckpointError: a weight has no name of ours, or two have the same one.
    """
    ours: dict[str, Tensor] = {}
    skipped: dict[str, int] = {}
    unknown = []
    for name, tensor in theirs.items():
        group = unused_group(name)
        renamed = our_name(name)
        if group is not None:
            skipped[group] = skipped.get(group, 0) + tensor.numel()
        elif renamed is None:
            unknown.append(name)
        elif renamed in ours:
            raise CheckpointError(f"{source} has {name} twice, under its old and its new name")
        else:
            ours[renamed] = tensor
    if unknown:
        raise CheckpointError(f"{source} has {len(unknown)} unknown keys: {first_few(unknown)}")
    return ours, skipped
