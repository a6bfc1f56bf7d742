"""New model folders: complete or not there at all."""

import tempfile
from pathlib import Path

import torch

from clipbert.checkpoints.card import CARD_FILE, ModelCard
from clipbert.checkpoints.folder import Checkpoint, save_folder
from clipbert.errors import CheckpointError
from clipbert.model.network import Network


def refuse_filled_folder(folder: Path) -> None:
    """Raise CheckpointError if something is at a path already, other than an empty folder."""
    folder = Path(folder)
    if folder.is_dir():
        if any(folder.iterdir()):
            raise CheckpointError(f"{folder} is not empty: choose another folder")
    elif folder.exists() or folder.is_symlink():
        raise CheckpointError(f"{folder} is not a folder: choose another name")


def write_model_folder(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    card: ModelCard,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a new model folder with its card. It appears at once, or on an error not at all.

    Args:
        checkpoint: the model; its weights are converted to the dtype.
        folder: where it goes; must not exist, or be empty. Missing parents are made.
        card: what README.md says.
        dtype: of the saved weights, float32 or float16.

    Raises:
        CheckpointError: the folder is not empty, or a weight is too large for the dtype.
    """
    folder = Path(folder).absolute()
    refuse_filled_folder(folder)
    network = checkpoint.network
    _refuse_overflow(network, dtype)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        built = Path(scratch) / "model"
        save_folder(network.to(dtype), built, tokenizer=checkpoint.tokenizer)
        name = str(dtype).removeprefix("torch.")
        text = card.to_markdown(network.config, name=folder.name, dtype=name)
        (built / CARD_FILE).write_text(text, encoding="utf-8")
        built.replace(folder)


def _refuse_overflow(network: Network, dtype: torch.dtype) -> None:
    """Raise CheckpointError if a finite weight would become infinite."""
    if dtype is torch.float32:
        return
    largest = torch.finfo(dtype).max
    for name, tensor in network.state_dict().items():
        reached = tensor.abs().max().item()
        if largest < reached < float("inf"):
            raise CheckpointError(
                f"{name} reaches {reached:.4g}, which {str(dtype).removeprefix('torch.')} cannot "
                "hold: keep float32"
            )
