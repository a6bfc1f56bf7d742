"""The folder of one finetune: what a worker that goes on with it finds, and who may write there.

    fence           the token of the claim that may write; it only ever grows
    state.json      what was decided on the way
    trainer.json    which process trains
    trainer.log     what it said
    data/           labels, visual tokens or links to videos; see export.py
    run/            of the trainer: checkpoints, metrics, curves, and at the end the weights
    scores/         of the models compared
    model/          the finetuned model as it is registered

The fence outlives the rest, since a trainer that was cut off may still come and look at it.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from clipbert.runs.contract import (
    CHECKPOINT_PREFIX,
    CHECKPOINT_STATE,
    CHECKPOINTS_FOLDER,
    ERROR_FILE,
    METRICS_FILE,
    PROGRESS_FILE,
)
from clipbert.runs.whole_files import write_beside
from workers.errors import JobLost

FENCE_FILE: Final = "fence"
_TRAINED_FILE: Final = "trained"
_TAIL_BYTES: Final = 4000


@dataclass(frozen=True)
class TrainerProgress:
    """How far a trainer says it is; the time of it says only that it lives, and is left out.

    Attributes:
        stage: what it is at; empty before it said anything.
        step: optimiser steps done.
        total_steps: of the run; 0 before it is known.
    """

    stage: str = ""
    step: int = 0
    total_steps: int = 0


class FinetuneFolder:
    """The folder of one finetune.

    Args:
        runs: folder of all of them.
        finetune_id: this one's.
    """

    def __init__(self, runs: Path, finetune_id: UUID) -> None:
        self.path = runs / str(finetune_id)
        self.run = self.path / "run"
        self.data = self.path / "data"
        self.scores = self.path / "scores"
        self.model = self.path / "model"
        self.fence = self.path / FENCE_FILE
        self.log = self.path / "trainer.log"
        self.trainer = self.path / "trainer.json"
        self.metrics = self.run / METRICS_FILE
        self.progress = self.run / PROGRESS_FILE
        self.error = self.run / ERROR_FILE
        self.checkpoints = self.run / CHECKPOINTS_FOLDER
        self._state = self.path / "state.json"
        self._trained = self.path / _TRAINED_FILE

    def open(self, token: int) -> None:
        """Make the folder, and keep out whoever holds an older claim.

        Raises:
            JobLost: a newer claim was here before.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(self.path / "fence.lock"):
            known = self.token()
            if known > token:
                raise JobLost(f"claim {known} goes on in {self.path}, after claim {token}")
            write_text(self.fence, f"{token}\n")

    def token(self) -> int:
        """Return the token of the claim that may write; 0 if there was none yet."""
        return int(read_text(self.fence) or 0)

    def read_state(self) -> dict[str, Any]:
        """Read what was decided on the way; nothing yet is an empty object."""
        return read_json(self._state) or {}

    def write_state(self, **fields: object) -> None:
        """Keep what was decided on the way, beside what is kept already."""
        write_text(self._state, json.dumps(self.read_state() | fields))

    def is_trained(self) -> bool:
        """Whether the trainer has come to its end."""
        return self._trained.is_file()

    def mark_trained(self) -> None:
        """Keep that the trainer has come to its end."""
        write_text(self._trained, "")

    def begin_anew(self) -> None:
        """Remove all that training and scoring have left."""
        self._trained.unlink(missing_ok=True)
        for folder in (self.run, self.scores, self.model):
            remove_folder(folder)

    def last_checkpoint(self) -> tuple[int, Path] | None:
        """Find the newest whole checkpoint, with its step."""
        found = []
        for path in self.checkpoints.glob(f"{CHECKPOINT_PREFIX}*"):
            state = read_json(path / CHECKPOINT_STATE)
            if state is not None and isinstance(state.get("global_step"), int):
                found.append((state["global_step"], path))
        return max(found) if found else None

    def read_progress(self) -> TrainerProgress:
        """Read how far the trainer is."""
        found = read_json(self.progress)
        if found is None:
            return TrainerProgress()
        return TrainerProgress(
            str(found.get("stage", "")), int(found.get("step", 0)), int(found.get("total_steps", 0))
        )

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read the lines of the metrics; one that is being written is left out."""
        lines = []
        for line in (read_text(self.metrics) or "").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines

    def log_tail(self) -> str:
        """Return the end of the trainer's log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def size_bytes(self) -> int:
        """Count the bytes of checkpoints and weights that are here already."""
        return sum(
            (Path(parent) / name).lstat().st_size
            for folder in (self.run, self.model)
            for parent, _, names in os.walk(folder)
            for name in names
        )

    def empty(self) -> None:
        """Remove what nobody will go on from; the fence and the trainer's log stay."""
        for folder in (self.run, self.data, self.scores, self.model):
            remove_folder(folder)

    def remove(self) -> None:
        """Remove the folder."""
        remove_folder(self.path)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if there is none, or half of one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def read_text(path: Path) -> str | None:
    """Read a small file; None if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def write_text(path: Path, text: str) -> None:
    """Write a small file, which is there whole or not at all."""
    with write_beside(path) as beside, beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, lines: Iterator[Mapping[str, Any]]) -> None:
    """Write a file of JSON objects, which is there whole or not at all."""
    with write_beside(path) as beside, beside.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def remove_folder(path: Path) -> None:
    """Remove a folder, if it is there; what another process removes meanwhile is gone too."""
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
