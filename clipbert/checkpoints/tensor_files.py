"""Files of weights that others wrote, by torch.save or safetensors: read, never run."""

import hashlib
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clipbert.checkpoints.folder import first_few
from clipbert.errors import CheckpointError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a dict of names and tensors.

    Of a pickle nothing is run: anything in it but plain tensors is an error. Where the format
    allows it the tensors are mapped from the file instead of read: they cost no memory until they
    are used, writing into them does not change the file, and the file must not be changed before
    they are gone (it may be deleted).

    Args:
        path: what torch.save wrote, a zip file or one of the older kind; or, if its name ends in
            .safetensors, such a file.

    Returns:
        The tensors by name, on the CPU, in the order of the file.

    Raises:
        CheckpointError: there is no such file, it cannot be read, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no such file: {path}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise CheckpointError(f"{path} is not a dict of names and tensors, but a {kind}")
    _refuse_nested(path, content)
    strange = [repr(name) for name, value in content.items() if not _is_plain(name, value)]
    if strange:
        raise CheckpointError(
            f"{path} is not a plain dict of names and tensors: {len(strange)} of its "
            f"{len(content)} entries are something else: {first_few(strange)}"
        )
    return {name: tensor.detach() for name, tensor in content.items()}


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _read_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # What torch thinks of old or odd files is no news once they are read or refused.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_can_map(path))
    except UnpicklingError as error:
        # torch's own sentence explains how to run what the file asks for.
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {wanted[1]}" if wanted else "it cannot be unpickled"
        raise CheckpointError(f"{path} is not a file of tensors alone: {reason}") from error
    except Exception as error:  # a damaged file makes torch raise almost anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not a checkpoint, or a damaged one: {reason}") from error


def _can_map(path: Path) -> bool:
    """Whether torch can map the file: a zip file whose members are not compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def _refuse_nested(path: Path, content: Mapping[object, object]) -> None:
    nested = [str(name) for name, value in content.items() if isinstance(value, Mapping)]
    if nested:
        raise CheckpointError(
            f"{path} holds dicts within a dict ({first_few(nested)}), as the state of a "
            "training run does (restore.pt): give a file of the weights alone (model_step_N.pt)"
        )


def _is_plain(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"  # others have no values, on "meta"
        and not value.is_quantized
    )
