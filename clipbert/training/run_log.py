"""How far a run is: one JSON line at intervals, and a progress bar or a line on stderr."""

import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from clipbert.errors import TrainingDiverged
from clipbert.training.schedule import RateOf

_VALIDATION_PREFIX = "eval_"
_SIGNIFICANT_DIGITS = 6
_TELL_SECONDS = 30.0  # where no terminal shows the bar, and a step may take minutes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """What turns steps into what a reader wants to know.

    Attributes:
        epochs_per_step: part of the data set that a step sees.
        clips_per_step: over all processes.
        rate_of: gives the learning rate of a base rate and a step, from 1.
    """

    epochs_per_step: float
    clips_per_step: int
    rate_of: RateOf


class RunLog(TrainerCallback):
    """Writes what the trainer logs; in the main process only, but for a diverged loss.

    A line of metrics.jsonl is either of training (loss, the mean since the line before, learning
    rates, gradient norm before clipping, clips per second, seconds left) or of validation
    (validation_loss and what the task is measured by). The lines of a run that goes on follow
    those up to its checkpoint; later ones are removed.

    Args:
        path: of metrics.jsonl.
        pace: of the run.
    """

    def __init__(self, path: Path, pace: Pace) -> None:
        self._path, self._pace = path, pace
        self._bar: Bar | None = None
        self._bases: dict[str, float] = {}
        self._begun = self._last_time = self._told_at = 0.0
        self._first_step = self._last_step = 0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Optimizer | None = None,
        **_: object,
    ) -> None:
        """Cut the file to the steps that are kept, and show the bar."""
        groups = [] if optimizer is None else optimizer.param_groups
        self._bases = {group["name"].partition("/")[0]: group["initial_lr"] for group in groups}
        self._begun = self._last_time = time.perf_counter()
        self._first_step = self._last_step = state.global_step
        if not state.is_world_process_zero:
            return
        keep_lines(self._path, last_step=state.global_step)
        if sys.stderr.isatty():
            self._bar = Bar(done=state.global_step, total=state.max_steps)
        else:
            self._tell(f"training: {state.global_step} of {state.max_steps} steps done")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Move the bar; without one, say now and then how far it is."""
        if self._bar is not None:
            self._bar.move(state.global_step)
            return
        now, step = time.perf_counter(), state.global_step
        if state.is_world_process_zero and now >= self._told_at + _TELL_SECONDS:
            left = (now - self._begun) / (step - self._first_step) * (state.max_steps - step)
            self._tell(f"training: {step} of {state.max_steps} steps done, {left:.0f} s left")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: object,
    ) -> None:
        """Write one line.

        Raises:
            TrainingDiverged: the loss is not a finite number.
        """
        step, logs = state.global_step, logs or {}
        for loss in (logs.get("loss", 0.0), logs.get(f"{_VALIDATION_PREFIX}loss", 0.0)):
            if not math.isfinite(loss):
                raise TrainingDiverged(step, loss)
        if "loss" in logs:
            line = self._training_line(step, state.max_steps, logs)
        elif any(name.startswith(_VALIDATION_PREFIX) for name in logs):
            line = _validation_line(logs)
        else:  # the trainer's own summary at the end
            return
        if not state.is_world_process_zero:
            return
        rounded = {name: _round(value) for name, value in line.items()}
        line = {"step": step, "epoch": _round(step * self._pace.epochs_per_step), **rounded}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._show(line)

    def close(self) -> None:
        """Hand the terminal back, however the run ended."""
        if self._bar is not None:
            self._bar.close()

    def _tell(self, text: str) -> None:
        self._told_at = time.perf_counter()
        log.info("%s", text)

    def _training_line(
        self, step: int, last_step: int, logs: Mapping[str, float]
    ) -> dict[str, float]:
        now = time.perf_counter()
        steps, seconds = step - self._last_step, max(now - self._last_time, 1e-9)
        per_step = (now - self._begun) / max(1, step - self._first_step)
        self._last_step, self._last_time = step, now
        rates = {
            f"{part}_lr": self._pace.rate_of(base, step=step) for part, base in self._bases.items()
        }
        return {
            "loss": logs["loss"],
            **rates,
            "gradient_norm": logs["grad_norm"],
            "clips_per_second": steps * self._pace.clips_per_step / seconds,
            "seconds": now - self._begun,
            "seconds_left": (last_step - step) * per_step,
        }

    def _show(self, line: Mapping[str, float]) -> None:
        text = " ".join(f"{name}={value}" for name, value in line.items())
        if self._bar is None:
            log.info("%s", text)
        elif "loss" in line:
            self._bar.tell_loss(line["loss"])
        else:
            self._bar.print(text)


class Bar:
    """The steps of a run on a terminal, on stderr."""

    def __init__(self, *, done: int, total: int) -> None:
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task: TaskID = self._progress.add_task("", total=total, completed=done, loss="-")
        self._progress.start()

    def move(self, done: int) -> None:
        """Show how many steps are done."""
        self._progress.update(self._task, completed=done)

    def tell_loss(self, loss: float) -> None:
        """Show the loss beside the bar."""
        self._progress.update(self._task, loss=f"{loss:.4g}")

    def print(self, text: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(text, highlight=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._progress.stop()


def keep_lines(path: Path, *, last_step: int) -> None:
    """Remove what a run wrote after the step that it goes on from."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= last_step:
                kept.append(line + "\n")
        except ValueError:  # the process was killed while it wrote
            continue
    path.write_text("".join(kept), encoding="utf-8")


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read the lines of a metrics file; none if there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _validation_line(logs: Mapping[str, float]) -> dict[str, float]:
    return {
        f"validation_{name.removeprefix(_VALIDATION_PREFIX)}": value
        for name, value in logs.items()
        if name.startswith(_VALIDATION_PREFIX)
    }


def _round(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
