"""The folder of a run: what it began with, its checkpoints, and at the end the model."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipbert.errors import ConfigError
from clipbert.runs.contract import ERROR_FILE, PROGRESS_FILE, RECIPE_FILE, RUN_FILE
from clipbert.runs.whole_files import replace_file
from clipbert.training.recipe import Recipe, read_recipe

# What may change when a run goes on: none of it decides which examples make a step.
_FREE_FIELDS = (
    "videos_per_forward",
    "validation_clips",
    "validations",
    "min_validation_steps",
    "checkpoint_steps",
    "checkpoint_seconds",
    "checkpoints_kept",
    "log_steps",
)
# Written before the folder is a run's.
_STATUS_FILES = (PROGRESS_FILE, ERROR_FILE, RECIPE_FILE, RUN_FILE)


def open_run_folder(
    folder: Path, recipe: Recipe, *, facts: Mapping[str, Any], resume: bool
) -> None:
    """Make the folder of a new run, or check that it is that of the run that is to go on.

    Args:
        folder: of the run.
        recipe: of the run.
        facts: JSON that must not change while the run is interrupted, such as hashes of the data.
        resume: go on with the run in the folder; if there is none yet, begin one.

    Raises:
        ConfigError: a new run, and the folder is not empty; or the run there began with another
            recipe or other facts.
    """
    has_run = (folder / RUN_FILE).is_file()
    if resume and has_run:
        _check_same(folder, recipe, facts)
        return
    # A run that was broken off while its folder was made is none, and begins again.
    if has_run or (folder.is_dir() and any(not _is_told(path.name) for path in folder.iterdir())):
        hint = "--resume goes on with the run in it" if has_run else ""
        raise ConfigError(
            f"{folder} is not empty: choose another folder{', or ' + hint if hint else ''}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / RECIPE_FILE, recipe.to_toml())
    # The last file: a folder without it is not a run's.
    replace_file(folder / RUN_FILE, json.dumps(facts, indent=2) + "\n")


def hash_json(value: Mapping[str, Any]) -> str:
    """Hash a JSON object, whatever the order of its fields: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _is_told(name: str) -> bool:
    """Whether a file is one of progress or error, or was to become one."""
    return name in _STATUS_FILES or any(name.startswith(f".{status}.") for status in _STATUS_FILES)


def _check_same(folder: Path, recipe: Recipe, facts: Mapping[str, Any]) -> None:
    begun = read_recipe(folder / RECIPE_FILE)
    for field in dataclasses.fields(Recipe):
        was, now = getattr(begun, field.name), getattr(recipe, field.name)
        if was != now and field.name not in _FREE_FIELDS:
            raise ConfigError(
                f"{field.name} is {now!r}: the run in {folder} began with {was!r}, and can go on "
                "only so"
            )
    known = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    for name, fact in facts.items():
        if known.get(name) != fact:
            raise ConfigError(
                f"{name.replace('_', ' ')} is {fact}: the run in {folder} began with "
                f"{known.get(name)}, and can go on only so"
            )
