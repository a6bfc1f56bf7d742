"""`clipbert train`: a model from a recipe, an annotation file and a folder of videos."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.errors import INTERRUPTED, CliError
from cli.show.console import print_error, print_facts

if TYPE_CHECKING:
    from clipbert.training.run_request import RunReport

DeviceName = Literal["auto", "cpu", "cuda"]
MOST_VIDEOS_SHOWN = 20


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, as recipes/msrvtt_retrieval.toml.")],
    *,
    data: Annotated[Path, typer.Option(help="Annotation file (JSONL).")],
    videos: Annotated[Path, typer.Option(help="Folder of the videos, at any depth.")],
    out: Annotated[Path, typer.Option(help="Folder of the run, at its end of the model.")],
    model: Annotated[
        Path | None, typer.Option(help="Model folder to start from.", show_default=False)
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Start from random weights instead: clipbert-tiny.", show_default=False),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Annotation file to validate with.", show_default=False)
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Answers to open-ended questions (ans2label JSON). Default: those of the data.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Only the data's lines of this split.", show_default=False),
    ] = None,
    validation_split: Annotated[
        str | None,
        typer.Option(help="Only the validation file's lines of this split.", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a field of the recipe: field=value.", show_default=False
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder.")
    ] = False,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop after this many steps; --resume goes on from there.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="auto: a GPU if there is one.")] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Processes that load videos. Default: by cores.", show_default=False
        ),
    ] = None,
) -> None:
    """Train a model by a recipe.

    Videos that are missing or broken are listed and left out. An interrupted run goes on with
    --resume, to the same weights. For several GPUs give the same arguments to
    `torchrun --nproc-per-node N -m clipbert.training`.
    """
    from clipbert.errors import ClipBertError
    from clipbert.training.recipe import read_recipe
    from clipbert.training.run_request import RunRequest
    from clipbert.training.starting_config import check_request

    try:
        request = RunRequest(
            recipe=read_recipe(recipe.expanduser()).replace(settings or []),
            data=data.expanduser(),
            videos=videos.expanduser(),
            out=out.expanduser(),
            model=None if model is None else model.expanduser(),
            preset=init,
            validation=None if validation is None else validation.expanduser(),
            answers=None if answers is None else answers.expanduser(),
            split=split,
            validation_split=validation_split,
            resume=resume,
            max_steps=max_steps,
            device=device,
            num_workers=workers,
        )
        check_request(request)  # before torch is loaded, which takes far longer
        from clipbert.training.run import train as run_training

        with shown_log(), looking_bar() as progress:
            report = run_training(request, progress=progress)
    except (ClipBertError, OSError) as error:
        raise CliError(str(error)) from error
    except KeyboardInterrupt:
        print_error("interrupted", "the same command with --resume goes on from its checkpoint")
        raise typer.Exit(INTERRUPTED) from None
    print_report(report)


@contextmanager
def shown_log() -> Iterator[None]:
    """Write what the library logs to stderr, plainly."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    library = logging.getLogger("clipbert")
    level = library.level
    library.setLevel(logging.INFO)
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(level)


@contextmanager
def looking_bar() -> Iterator[Callable[[int, int], None]]:
    """Show how many videos were looked at, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        TextColumn("looking at videos"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if done == total:
                bar.stop()  # the bar of the training follows

        yield show


def print_report(report: "RunReport") -> None:
    """Print what a run did."""
    last: dict[str, float] = {}
    for line in report.metrics:
        last |= line
    facts = [
        ("model", str(report.folder)),
        ("steps", f"{report.steps} of {report.total_steps}"),
        ("lines", str(report.num_annotations)),
    ]
    facts += [(f"left out, {why}", str(count)) for why, count in report.left_out.items()]
    facts += [(name.replace("_", " "), f"{v:g}") for name, v in last.items() if _is_result(name)]
    facts.append(("videos not used", str(len(report.unusable))))
    if report.num_dropped:
        names = ", ".join(video.video for video in report.dropped[:MOST_VIDEOS_SHOWN])
        facts.append(("examples that failed", f"{report.num_dropped}, of {names}"))
    print_facts(facts)
    if report.steps < report.total_steps:
        print("the run was stopped early: --resume goes on with it")


def _is_result(name: str) -> bool:
    return name == "loss" or name.startswith("validation_")
