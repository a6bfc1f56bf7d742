"""Follow a finetune until it ends: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from cli.hints import runnable
from cli.show.pace import ProgressLines, format_duration, format_rate
from clipbert_client.client import TERMINAL_STATES, ApiClient, Json
from clipbert_client.errors import ApiProblem, ServiceUnreachable, may_come_back

if TYPE_CHECKING:
    from rich.progress import Progress

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60.0  # with a service that does not answer: `clipbert up` may be starting again
_TRAINING_STAGES = frozenset({"training", "saving"})
_FIGURES = ("loss", "rate", "speed", "left")
LONG_WAIT_SECONDS = 30.0  # for a worker; longer needs a word


def follow_finetune(api: ApiClient, finetune_id: str, *, output: TextIO) -> Json:
    """Poll a finetune until it is over, through pauses and restarts of the service.

    Args:
        api: the service.
        finetune_id: the finetune.
        output: where the progress is shown.

    Returns:
        The resource as it ended.

    Raises:
        ServiceUnreachable: the service has not answered for a minute.
    """
    answered_at = queued_at = time.monotonic()
    with _shown(output) as show:
        while True:
            now = time.monotonic()
            try:
                finetune = api.get(f"/v1/finetunes/{finetune_id}")
            except (ServiceUnreachable, ApiProblem) as error:
                if not may_come_back(error) or now - answered_at > PATIENCE_SECONDS:
                    raise
                show(None, f"no answer for {now - answered_at:.0f} s, asking again")
            else:
                answered_at = now
                if finetune["state"] != "queued":
                    queued_at = now
                show(finetune, _note(finetune, now - queued_at))
                if finetune["state"] in TERMINAL_STATES:
                    return finetune
            time.sleep(POLL_SECONDS)


def describe(finetune: Json) -> str:
    """Describe in one line where a finetune is.

    "training 120/400, loss 0.412, rate 4.2e-05, 210 clips/s, 1:20 left"
    """
    progress = finetune.get("progress") or {}
    is_running = finetune["state"] == "running"
    words = stage_words(finetune.get("stage")) if is_running else str(finetune["state"])
    if progress.get("total") and (_is_training(finetune) or finetune["state"] == "paused"):
        words += f" {progress['done']}/{progress['total']}"
    figures = _figures(finetune) if _is_training(finetune) else {}
    return ", ".join([words, *(text for text in figures.values() if text)])


def stage_words(stage: str | None) -> str:
    """Write the name of a stage as words."""
    return (stage or "starting").replace("_", " ")


def _note(finetune: Json, queued_seconds: float) -> str:
    if finetune["state"] == "paused":
        return runnable(f"go on: clipbert finetunes resume {finetune['id']}")
    if finetune["state"] == "queued" and queued_seconds > LONG_WAIT_SECONDS:
        return runnable(
            "no worker has taken it yet: others are before it (`clipbert finetunes list`), or none "
            "runs (`clipbert doctor`)"
        )
    return ""


def _is_training(finetune: Json) -> bool:
    return finetune["state"] == "running" and finetune.get("stage") in _TRAINING_STAGES


def _figures(finetune: Json) -> dict[str, str]:
    loss, rate = finetune.get("loss"), finetune.get("learning_rate")
    speed, left = finetune.get("clips_per_second"), finetune.get("seconds_left")
    return {
        "loss": "" if loss is None else f"loss {loss:.3f}",
        "rate": "" if rate is None else f"rate {rate:.1e}",
        "speed": "" if speed is None else format_rate(speed, "clips"),
        "left": "" if left is None else f"{format_duration(left)} left",
    }


Show = Callable[[Json | None, str], None]


@contextmanager
def _shown(output: TextIO) -> Iterator[Show]:
    """Return a function to call with each answer (None: there was none) and a note."""
    if output is sys.stdout and output.isatty():
        with _progress_bar() as bar:
            yield _on_bar(bar)
    else:
        yield _in_lines(output)


def _on_bar(bar: "Progress") -> Show:
    task = bar.add_task("waiting", total=None, note="", loss="", rate="", speed="", left="")

    def show(finetune: Json | None, note: str) -> None:
        if finetune is None:
            bar.update(task, note=note)
            return
        progress, is_running = finetune.get("progress") or {}, finetune["state"] == "running"
        what = stage_words(finetune.get("stage")) if is_running else str(finetune["state"])
        values: dict[str, Any] = {"description": what, "note": note}
        values |= _figures(finetune) if _is_training(finetune) else dict.fromkeys(_FIGURES, "")
        if progress.get("total"):
            values |= {"completed": progress["done"], "total": progress["total"]}
        bar.update(task, **values)

    return show


def _in_lines(output: TextIO) -> Show:
    lines = ProgressLines(output)

    def show(finetune: Json | None, note: str) -> None:
        if finetune is None:
            lines.show(note, about="away")
        # How it ended is told elsewhere; saving is a part of the training, each minute of it.
        elif finetune["state"] not in TERMINAL_STATES and finetune.get("stage") != "saving":
            line = describe(finetune) + (f" ({note})" if note else "")
            lines.show(line, about=f"{finetune['state']} {finetune.get('stage')} {bool(note)}")

    return show


def _progress_bar() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from cli.show.console import console

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        *(TextColumn("{task.fields[" + name + "]}") for name in _FIGURES),
        TextColumn("[yellow]{task.fields[note]}[/yellow]"),
        console=console(sys.stdout),
    )
