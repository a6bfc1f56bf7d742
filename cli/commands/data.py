"""`clipbert data`: data sets on this machine."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CliError
from cli.show.console import JsonOption, print_facts, print_json, print_table

if TYPE_CHECKING:
    from clipbert.datasets.annotation_files import AnnotationKind
    from clipbert.datasets.check import TextLimit
    from clipbert.datasets.check_report import AnswerReport, DataReport

MOST_ROWS, MOST_LISTED = 20, 5

app = typer.Typer(help="Look into data sets.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Keep `check` a command of its own, although it is the only one."""


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="An annotation file: JSONL.")],
    *,
    videos: Annotated[
        Path, typer.Option(help="Folder of the videos or pictures, with all below it.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            help="The file's form, such as msrvtt_qa. Default: recognised by its first line."
        ),
    ] = None,
    probe: Annotated[
        bool, typer.Option(help="Open every video, or only look whether it is there.")
    ] = True,
    answers: Annotated[
        Path | None,
        typer.Option(help="ans2label file: counts the answers that it lacks.", show_default=False),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Model folder: counts the texts that it would cut and the answers that it lacks.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Report what is wrong with a data set; exit with 1 if training would trip over it."""
    from clipbert.datasets.answers import read_answer_labels
    from clipbert.datasets.check import check_data
    from clipbert.errors import ClipBertError

    try:
        text_limit, vocabulary = (None, None) if model is None else _read_model(model.expanduser())
        if answers is not None:
            vocabulary = read_answer_labels(answers.expanduser())
        with _progress_bar() as progress:
            report = check_data(
                file.expanduser(),
                videos=videos.expanduser(),
                kind=_known_kind(kind),
                probe=probe,
                answers=vocabulary,
                text_limit=text_limit,
                progress=progress,
            )
    except ClipBertError as error:
        raise CliError(str(error)) from error
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)
    if not report.is_sound:
        raise typer.Exit(1)


def print_report(report: "DataReport") -> None:
    """Print the facts, a table for each thing that is wrong, and a verdict."""
    print_facts(_facts(report))
    findings = list(_findings(report))
    for finding in findings:
        print(f"\n{finding.title}")
        print_table(finding.columns, finding.rows)
        if finding.count > len(finding.rows):
            print(f"... and {finding.count - len(finding.rows):,} more")
    counts = [f"{one.count:,} {one.what}{'s' * (one.count > 1)}" for one in findings]
    print(f"\nWRONG: {', '.join(counts)}" if counts else "\nnothing is wrong")


@dataclass(frozen=True)
class _Finding:
    """One thing that is wrong: how many of what, and the first of them as a table."""

    count: int
    what: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def _facts(report: "DataReport") -> Iterator[tuple[str, str]]:
    lines, media = report.lines, report.media
    yield "file", str(report.path)
    yield "kind", f"{report.kind}, for {report.task}"
    yield "lines", f"{lines.num_lines:,}"
    opened = "" if media.num_probed else ", none opened"
    yield "videos", f"{media.num_named:,} named, {len(media.missing):,} missing{opened}"
    yield "other files", f"{media.num_unused_files:,}, of which no line speaks"
    for name, counts in (
        ("answer types", lines.answer_types),
        ("choices", lines.choices),
        ("splits", lines.splits),
    ):
        if counts:
            yield name, _listed(counts.items())
    if lines.answers is not None:
        yield from _answer_facts(lines.answers)
    if lines.num_long_texts is not None:
        yield "too long", f"{lines.num_long_texts:,} texts that the model cuts"
    for name, count, pairs in (
        ("doubled lines", lines.num_doubled, lines.doubled),
        ("contradicting", lines.num_contradicting, lines.contradicting),
        ("across splits", lines.num_across_splits, lines.across_splits),
    ):
        if count:
            some = [f"{line} and {before}" for line, before in pairs[:MOST_LISTED]]
            rest = ["..."] * (count > MOST_LISTED)
            yield name, f"{count:,}: {', '.join(some + rest)}"
    for split, answer in lines.only_answers.items():
        where = f"all of the split {split}" if split else "all questions"
        yield "one answer", f"{where} have the answer {answer!r}: nothing can be learned or judged"
    for split, missed in lines.untrained_answers.items():
        total = sum(count for _, count in missed)
        first = _listed(missed[:MOST_LISTED]) + ", ..." * (len(missed) > MOST_LISTED)
        yield "never trained", f"{total:,} answers of the split {split}, not in train: {first}"


def _answer_facts(answers: "AnswerReport") -> Iterator[tuple[str, str]]:
    forms = answers.num_forms - answers.num_distinct
    typed = f" ({forms:,} more by case, spaces or Unicode form alone)" if forms else ""
    yield "answers", f"{answers.num_distinct:,} distinct{typed}; {_listed(answers.most_common)}"
    if answers.num_unanswered:
        yield "unanswered", f"{answers.num_unanswered:,} lines"
    if answers.num_unknown is not None:
        unknown = f"; {_listed(answers.unknown)}" if answers.unknown else ""
        yield "not in vocabulary", f"{answers.num_unknown:,} answers{unknown}"


def _listed(counts: Iterable[tuple[object, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts)


def _findings(report: "DataReport") -> Iterator[_Finding]:
    media = report.media
    if report.num_bad_lines:
        yield _Finding(
            report.num_bad_lines,
            "unreadable line",
            "lines that cannot be read",
            ("line#", "field", "why"),
            [(str(bad.line), bad.field or "", bad.reason) for bad in report.bad_lines],
        )
    if media.missing:
        named = list(media.missing.items())[:MOST_ROWS]
        yield _Finding(
            len(media.missing),
            "missing video",
            f"videos that are not in {media.folder}",
            ("video", "lines#"),
            [(name, f"{num_lines:,}") for name, num_lines in named],
        )
    if media.broken:
        yield _Finding(
            len(media.broken),
            "broken video",
            "videos that cannot be used",
            ("video", "lines#", "code", "why"),
            [
                (video.name, f"{video.num_lines:,}", video.code, video.message)
                for video in media.broken[:MOST_ROWS]
            ],
        )
    if media.num_late:
        yield _Finding(
            media.num_late,
            "late line",
            "lines about a part of a video that begins after its end",
            ("line#",),
            [(str(line),) for line in media.late],
        )


def _known_kind(name: str | None) -> "AnnotationKind | None":
    from clipbert.datasets.annotation_files import KINDS

    if name is None:
        return None
    for kind in KINDS:
        if kind == name:
            return kind
    raise CliError(f"--kind is one of {', '.join(KINDS)}")


def _read_model(folder: Path) -> "tuple[TextLimit, tuple[str, ...] | None]":
    from clipbert.datasets.check import TextLimit
    from clipbert.model.config import ClipBertConfig
    from clipbert.model.text import TextTokenizer

    config = ClipBertConfig.from_folder(folder)
    limit = TextLimit(TextTokenizer.from_folder(folder), config.max_text_tokens)
    return limit, config.answers or None


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Return a function to call with how many videos are done and how many there are."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("probing"), BarColumn(bar_width=32), MofNCompleteColumn(), Remaining())
    terminal = Console(stderr=True)
    with Progress(*columns, console=terminal, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("probing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
