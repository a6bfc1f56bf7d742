"""Model folders in the Hugging Face form: config.json, model.safetensors, tokenizer.json."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from clipbert.errors import CheckpointError
from clipbert.model.config import CONFIG_FILE, WEIGHTS_FILE, ClipBertConfig
from clipbert.model.network import Network
from clipbert.model.text import TOKENIZER_FILE, TextTokenizer
from clipbert.runs.whole_files import replace_file, write_beside

# The parameters on which cached visual tokens depend.
VISUAL_PREFIXES = ("backbone.", "grid_encoder.")
_NAMED_KEYS = 5
# Methods of tensors and functions of torch.nn.init, by which layers begin.
_DRAWING = frozenset({"normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_"})


@dataclass(frozen=True)
class Checkpoint:
    """What a model folder holds: a network, and the tokenizer that its texts are read by.

    Attributes:
        network: the weights, with their configuration.
        tokenizer: None if it is unknown.
    """

    network: Network
    tokenizer: TextTokenizer | None

    @classmethod
    def create(cls, config: ClipBertConfig, *, seed: int) -> "Checkpoint":
        """Make a network of random weights; see Network.create.

        It spells texts by characters if the configuration has as many tokens, as clipbert-tiny has.
        """
        spelling = TextTokenizer.from_characters()
        spells = config.vocab_size == spelling.vocab_size
        return cls(Network.create(config, seed=seed), spelling if spells else None)


def load_folder(
    folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Checkpoint:
    """Load a model folder: config.json, model.safetensors and, if there, tokenizer.json.

    Args:
        folder: as save_folder wrote it.
        device: "cpu", "cuda" or "cuda:N".
        dtype: float32, bfloat16 or float16; all weights are converted to it.

    Returns:
        The network, in eval mode, and its tokenizer.

    Raises:
        CheckpointError: a file is missing or damaged, or its weights do not fit: unknown or
            missing keys, wrong shapes.
        ConfigError: config.json contradicts itself.
    """
    folder = Path(folder)
    config = ClipBertConfig.from_folder(folder)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"no {WEIGHTS_FILE} in {folder}")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    network = build_from_state(config, state, source=str(path)).to(device=device, dtype=dtype)
    has_tokenizer = (folder / TOKENIZER_FILE).is_file()
    return Checkpoint(network.eval(), TextTokenizer.from_folder(folder) if has_tokenizer else None)


def save_folder(
    network: Network,
    folder: Path,
    *,
    tokenizer: TextTokenizer | None,
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> None:
    """Write config.json, model.safetensors and, if known, tokenizer.json.

    The folder is made if need be; each file replaces its predecessor at once.

    Args:
        network: to be saved.
        folder: made if need be.
        tokenizer: the network's; None if unknown.
        dtypes: of weights, by name, that are to be stored in another type than they have.

    Raises:
        CheckpointError: batch norm was folded, so that the weights are no longer the network's.
    """
    if network.is_folded:
        raise CheckpointError("a model with folded batch norm cannot be saved")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtypes = dtypes or {}
    state = {
        name: tensor.detach().to("cpu", dtypes.get(name, tensor.dtype)).contiguous()
        for name, tensor in _state(network).items()
    }
    with write_beside(folder / WEIGHTS_FILE) as beside:
        save_file(state, beside, metadata={"format": "pt"})
        # safetensors writes for the owner only; other users may share a model folder.
        beside.chmod(0o644)
    if tokenizer is not None:
        tokenizer.save(folder)
    # The configuration comes last: a folder without one is not a model folder.
    replace_file(folder / CONFIG_FILE, json.dumps(network.config.to_json(), indent=2) + "\n")


def build_from_state(
    config: ClipBertConfig, state: Mapping[str, Tensor], *, source: str
) -> Network:
    """Make a network whose weights are exactly those given, in float32.

    Args:
        config: of the model.
        state: every parameter and buffer by name; floating ones of any dtype.
        source: where they come from, for the error.

    Raises:
        CheckpointError: a key is unknown or missing, or a shape is wrong. The first few are named.
        ConfigError: the backbone cannot be built.
    """
    with torch.device("meta"), _NothingDrawn():
        network = Network(config)
    check_state({name: t.shape for name, t in _state(network).items()}, state, source=source)
    # Counters of trained batch norms stay integers.
    floats = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    network.load_state_dict(floats, assign=True)
    return network.eval()


class _NothingDrawn(TorchFunctionMode):
    """Leaves weights on "meta" undrawn: they are all replaced, and to draw imports the compiler."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        named = kwargs or {}
        if func.__name__ in _DRAWING:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


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


def _state(network: Network) -> dict[str, Tensor]:
    return dict(network.state_dict())


def first_few(names: Sequence[str]) -> str:
    """Name the first few of many, for an error."""
    shown = ", ".join(names[:_NAMED_KEYS])
    return shown if len(names) <= _NAMED_KEYS else f"{shown}, ..."
