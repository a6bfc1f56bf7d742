"""What a training process and whoever watches it agree on: exit statuses and names of files.

Both sides import this; it imports nothing.
"""

from enum import IntEnum

RUN_FILE = "run.json"
"""What a run was asked for; the folder of a run has it."""
RECIPE_FILE = "recipe.toml"
METRICS_FILE = "metrics.jsonl"
PROGRESS_FILE = "progress.json"
ERROR_FILE = "error.json"
CURVES_FILE = "curves.json"
CURVES_PICTURE = "curves.png"
CHECKPOINTS_FOLDER = "checkpoints"
CHECKPOINT_PREFIX = "checkpoint-"
"""A folder each, named by its step, as transformers does."""
CHECKPOINT_STATE = "trainer_state.json"
"""Written last: a checkpoint without it is not whole."""


class RunExit(IntEnum):
    """How a supervised process ends."""

    DONE = 0
    FAILED = 1
    FENCED = 3
    OUT_OF_MEMORY = 4
    STOPPED = 5
