"""Checkpoints of the authors' code: the small ones of tests/parity, and full-size random ones."""

import ast
import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from clipbert.checkpoints.authors_import import ImportedCheckpoint, import_authors_checkpoint
from clipbert.checkpoints.authors_names import BERT_PREFIX, TIED
from clipbert.checkpoints.authors_settings import AuthorsSettings
from clipbert.model.head_names import HeadName

PARITY = Path(__file__).parent / "parity"
# Head of ours -> what tests/parity calls it.
PARITY_NAMES: dict[HeadName, str] = {
    "retrieval": "retrieval",
    "qa": "qa",
    "multiple_choice": "mc",
    "pretraining": "pretrain",
}
ANSWERS = tuple(f"answer {index}" for index in range(1500))


def small_checkpoint(head: HeadName) -> Path:
    return PARITY / f"{PARITY_NAMES[head]}_checkpoint.pt"


def small_settings(head: HeadName, **changes: object) -> AuthorsSettings:
    """What the small checkpoints do not tell."""
    small = {"num_attention_heads": 4, "max_side_px": 128, "max_text_tokens": 12}
    return dataclasses.replace(AuthorsSettings.of_paper(head), **(small | changes))


def import_small(head: HeadName, path: Path | None = None) -> ImportedCheckpoint:
    return import_authors_checkpoint(
        path or small_checkpoint(head),
        head=head,
        answers=ANSWERS if head == "qa" else (),
        settings=small_settings(head),
    )


def draw_count_checkpoint(*, seed: int = 0) -> dict[str, Tensor]:
    """Make a small checkpoint of their counting model: its head under their names."""
    theirs = torch.load(small_checkpoint("retrieval"), weights_only=True)
    size = theirs["transformer.bert.pooler.dense.bias"].shape[0]
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.empty(shape).uniform_(-1, 1, generator=generator)

    # Linear, ELU, batch norm, dropout, linear: of these, 0, 2 and 4 have weights.
    regressor = {
        "0.weight": draw(size, size),
        "0.bias": draw(size),
        "2.weight": draw(size),
        "2.bias": draw(size),
        "2.running_mean": draw(size),
        "2.running_var": draw(size).abs() + 0.5,
        "2.num_batches_tracked": torch.tensor(321),
        "4.weight": draw(1, size),
        "4.bias": draw(1),
    }
    kept = {name: t for name, t in theirs.items() if not name.startswith("transformer.classifier.")}
    return kept | {f"transformer.regressor.{name}": t for name, t in regressor.items()}


def read_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Read what a full-size checkpoint holds: "pretrain", "retrieval" or "qa"."""
    lines = (PARITY / f"keys_{kind}.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return {name: ast.literal_eval(shape) for name, shape, *_ in rows}


def draw_checkpoint(kind: str, *, seed: int = 0) -> dict[str, Tensor]:
    """Draw random values for all of them, 800 MB; what is tied is equal, and stored twice."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.empty(shape).uniform_(-1, 1, generator=generator)
        for name, shape in read_shapes(kind).items()
    }
    for second, first in TIED.items():
        if BERT_PREFIX + second in weights:
            weights[BERT_PREFIX + second] = weights[BERT_PREFIX + first].clone()
    return weights
