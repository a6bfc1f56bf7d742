"""Model folders in the Hugging Face form: config.json, model.safetensors, tokenizer.json."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipbert.errors import CheckpointError
from clipbert.model.config import CONFIG_FILE, ClipBertConfig
from clipbert.model.network import ClipBert
from clipbert.model.text import TOKENIZER_FILE, TextTokenizer
from clipbert.runs.whole_files import replace_file, write_beside

WEIGHTS_FILE = "model.safetensors"
# What cached visual tokens depend on, in parameter names and in configuration fields.
VISUAL_PREFIXES = ("backbone.", "grid_encoder.")
_VISUAL_FIELDS = (
    "max_side_px",
    "mean",
    "std",
    "channel_order",
    "backbone",
    "grid_encoder",
    "frame_positions",
)
_NAMED_KEYS = 5
# As a safetensors file calls them.
_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


def load_folder(
    folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> ClipBert:
    """Load a model folder; see ClipBert.from_pretrained."""
    folder = Path(folder)
    config = ClipBertConfig.from_folder(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"no {WEIGHTS_FILE} in {folder}")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    model = build_from_state(config, state, source=str(path)).to(device=device, dtype=dtype)
    if (folder / TOKENIZER_FILE).is_file():
        model.tokenizer = TextTokenizer.from_folder(folder)
    return model.eval()


def save_folder(
    model: ClipBert, folder: Path, *, dtypes: Mapping[str, torch.dtype] | None = None
) -> None:
    """Write a model folder; see ClipBert.save_pretrained.

    Args:
        model: to be saved.
        folder: made if need be.
        dtypes: of weights, by name, that are to be stored in another type than they have.
    """
    if model.is_folded:
        raise CheckpointError("a model with folded batch norm cannot be saved")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtypes = dtypes or {}
    state = {
        name: tensor.detach().to("cpu", dtypes.get(name, tensor.dtype)).contiguous()
        for name, tensor in _state(model).items()
    }
    with write_beside(folder / WEIGHTS_FILE) as beside:
        save_file(state, beside, metadata={"format": "pt"})
        # safetensors writes for the owner only; other users may share a model folder.
        beside.chmod(0o644)
    if model.tokenizer is not None:
        model.tokenizer.save(folder)
    # The configuration comes last: a folder without one is not a model folder.
    replace_file(folder / CONFIG_FILE, json.dumps(model.config.to_json(), indent=2) + "\n")


def build_from_state(
    config: ClipBertConfig, state: Mapping[str, Tensor], *, source: str
) -> ClipBert:
    """Make a model whose weights are exactly those given, in float32.

    Args:
        config: of the model.
        state: every parameter and buffer by name; floating ones of any dtype.
        source: where they come from, for the error.

    Raises:
        CheckpointError: a key is unknown or missing, or a shape is wrong. The first few are named.
        ConfigError: the backbone cannot be built.
    """
    # On "meta" nothing is drawn at random only to be overwritten.
    with torch.device("meta"):
        model = ClipBert(config)
    check_state({name: t.shape for name, t in _state(model).items()}, state, source=source)
    # Counters of trained batch norms stay integers.
    floats = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    model.load_state_dict(floats, assign=True)
    return model.eval()


def check_state(
    wanted: Mapping[str, torch.Size], state: Mapping[str, Tensor], *, source: str
) -> None:
    """Raise CheckpointError unless names and shapes are the same."""
    problems = []
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    misshapen = [
        f"{name} is {tuple(state[name].shape)}, must be {tuple(shape)}"
        for name, shape in wanted.items()
        if name in state and state[name].shape != shape
    ]
    for kind, names in (("missing", missing), ("unknown", extra), ("misshapen", misshapen)):
        if names:
            problems.append(f"{len(names)} {kind}: {first_few(names)}")
    if problems:
        raise CheckpointError(f"{source} does not fit the configuration; {'; '.join(problems)}")


def visual_sha256(model: ClipBert) -> str:
    """Fingerprint what a clip's visual tokens depend on: the CNN's weights and the pixel settings.

    Two models with the same fingerprint share cached tokens. It is the one that the bytes of the
    saved model give, so that it can be had without torch as well.

    Returns:
        64 hexadecimal digits.
    """
    config = model.config.to_json()
    fields = {name: config[name] for name in _VISUAL_FIELDS}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name, tensor in sorted(_state(model).items()):
        if name.startswith(VISUAL_PREFIXES):
            digest.update(f"{name} {_DTYPE_NAMES[tensor.dtype]} {list(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _state(model: ClipBert) -> dict[str, Tensor]:
    return dict(model.state_dict())


def first_few(names: Sequence[str]) -> str:
    """Name the first few of many, for an error."""
    shown = ", ".join(names[:_NAMED_KEYS])
    return shown if len(names) <= _NAMED_KEYS else f"{shown}, ..."
