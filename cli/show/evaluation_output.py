"""What `clipbert evaluate` shows: warnings and a progress bar on stderr, the figures on stdout."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cli.show.console import print_table
from cli.show.pace import format_rate

if TYPE_CHECKING:
    from clipbert.evaluation.evaluate import Evaluation, EvaluationProgress
    from clipbert.evaluation.evaluators import Evaluator
    from clipbert.evaluation.report import EvaluationSettings

MOST_VIDEOS_SHOWN = 20


def note(text: str) -> None:
    """Print a line on stderr, beside what goes to stdout."""
    print(text, file=sys.stderr)


def warn_of(settings: "EvaluationSettings", evaluator: "Evaluator") -> None:
    """Warn on stderr of what makes the figures mean less than they seem to."""
    if not settings.head_is_trained:
        note(f"warning: the {settings.head} head of {settings.model} was never trained")


@contextmanager
def progress_bar() -> Iterator[Callable[["EvaluationProgress"], None]]:
    """Show a bar with rate and time left on stderr, if that is a terminal; gives its updater."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    started_at = time.monotonic()
    with Bar(
        TextColumn("evaluating"),
        BarColumn(bar_width=32),
        TextColumn("{task.fields[done]}/{task.fields[all]} videos"),
        TextColumn("[red]{task.fields[unusable]} unusable[/red]"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("evaluating", total=None, done=0, all=0, unusable=0, rate="")

        def update(progress: "EvaluationProgress") -> None:
            bar.update(
                task,
                total=progress.total_texts,
                completed=progress.done_texts,
                done=progress.done_videos,
                all=progress.total_videos,
                unusable=progress.num_unusable,
                rate=format_rate(
                    progress.num_pairs / max(time.monotonic() - started_at, 0.001), "pairs"
                ),
            )

        yield update


def print_evaluation(
    settings: "EvaluationSettings",
    evaluation: "Evaluation",
    *,
    evaluator: "Evaluator",
    out: Path | None,
) -> None:
    """Print the metrics, what they are over, and the videos that could not be used."""
    from clipbert.evaluation.report import MARKDOWN_FILE, rates, to_table

    plan = settings.plan
    print(
        f"{settings.task} by the {settings.head} head of {settings.model}, plan {plan.name}, "
        f"{plan.num_clips} x {plan.frames_per_clip} frames, {settings.dtype} on {settings.device}"
    )
    print_table(*to_table(evaluation))
    num_used = evaluation.num_videos - len(evaluation.unusable)
    print(
        f"over {evaluation.num_evaluated} of {evaluation.num_annotations} lines and {num_used} of "
        f"{evaluation.num_videos} videos"
    )
    if evaluator.num_repeated:
        print(f"{evaluator.num_repeated} repeated lines were left out")
    if evaluator.num_unknown_answers:
        print(
            f"{evaluator.num_unknown_answers} questions have no answer that the model knows; "
            "they score 0"
        )
    print(f"{evaluation.seconds:.1f} s, {rates(evaluation)}")
    _print_unusable(evaluation)
    if out is not None:
        print(f"written to {out / MARKDOWN_FILE} and beside it")


def _print_unusable(evaluation: "Evaluation") -> None:
    unusable = evaluation.unusable
    if not unusable:
        return
    print(f"\n{len(unusable)} videos could not be used:")
    rows: list[Sequence[str]] = [
        (video.name, str(video.num_annotations), video.code, video.reason)
        for video in unusable[:MOST_VIDEOS_SHOWN]
    ]
    print_table(["video", "lines#", "code", "why"], rows)
    if len(unusable) > MOST_VIDEOS_SHOWN:
        print(f"... and {len(unusable) - MOST_VIDEOS_SHOWN} more")
