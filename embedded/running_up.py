"""What a running `clipbert up` tells the other commands, in the data folder's up.json.

`down`, `doctor` and the commands that work on the store read it; only its owner can.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from embedded.private_file import write_private


@dataclass(frozen=True)
class RunningUp:
    """What a running `clipbert up` says about itself.

    Attributes:
        environment: the STORE_* and WORKER_* variables of its processes.
        options: what it was started with, by the options' names.
    """

    pid: int
    api_url: str
    ready: bool
    environment: Mapping[str, str]
    options: Mapping[str, list[str]] = field(default_factory=dict)


def read_running(data: Path) -> RunningUp | None:
    """Read what the last `clipbert up` wrote; None when there is nothing to read."""
    try:
        return RunningUp(**json.loads((data / "up.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_running(data: Path, running: RunningUp) -> None:
    """Write up.json, for its owner only."""
    write_private(data / "up.json", json.dumps(asdict(running), indent=2) + "\n")


def remove_running(data: Path) -> None:
    """Remove up.json; nothing runs."""
    (data / "up.json").unlink(missing_ok=True)
