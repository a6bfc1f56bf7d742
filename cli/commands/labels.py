"""`clipbert label`: what people say about videos, in and out, and what is worth asking them."""

import gzip
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from cli.api_client import connect, list_first
from cli.data_folder import DataOption
from cli.deletion import YesOption
from cli.errors import CliError, check_one_of
from cli.finetune_request import TASKS
from cli.hints import runnable
from cli.label_file import STDIN, read_pieces
from cli.show.console import (
    EveryOption,
    JsonOption,
    LimitOption,
    parse_id,
    print_error,
    print_facts,
    print_json,
    print_table,
)
from cli.show.facts import facts_of
from cli.show.label_rows import label_answer, label_text, revision_row, suggestion_row, video_name
from cli.video_names import find_video
from clipbert.runs.whole_files import write_beside
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ApiProblem

ON_ERROR = ("fail", "skip")
VIDEO_NAMES = ("sha256", "filename", "id")
ORIGINS = ("asked", "unlabelled")
MOST_REFUSED_SHOWN = 20

app = typer.Typer(
    help="Import, export and list labels; see which are worth making.", no_args_is_help=True
)

LabelArgument = Annotated[UUID, typer.Argument(parser=parse_id, metavar="LABEL", help="Its id.")]
TaskOption = Annotated[
    str | None, typer.Option(help="Only of this task: qa, multiple_choice, retrieval.")
]
SplitOption = Annotated[str | None, typer.Option(help="Only of this split: train, holdout.")]
SourceOption = Annotated[str | None, typer.Option(help="Only of this source.")]
VideoOption = Annotated[
    str | None, typer.Option(help="Only of this video: its id, path, name or a unique part of one.")
]


@app.command("import")
def import_labels(
    file: Annotated[
        Path,
        typer.Argument(help="JSONL of the paper's data sets or our own, plain or .gz; - is stdin."),
    ],
    *,
    kind: Annotated[
        str | None,
        typer.Option(help="The file's form, such as msrvtt_qa. Default: recognised by its fields."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of lines without one: train, holdout. Default: by the video's hash."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Of lines without one: who made the labels.")
    ] = None,
    on_error: Annotated[
        str,
        typer.Option(
            help="fail: a line that is refused keeps all out; skip: only itself, and the command "
            "succeeds if any line is left (--json tells num_refused)."
        ),
    ] = "fail",
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Import labels of indexed videos. The same file again changes nothing."""
    check_one_of("--on-error", on_error, allowed=ON_ERROR)
    with connect(data) as api, read_pieces(file) as pieces:
        found = _send(api, pieces, kind=kind, split=split, source=source, on_error=on_error)
    if not found["num_lines"]:
        raise CliError(f"{'stdin' if file == STDIN else file} has no line")
    if as_json:
        print_json(found)
    else:
        _print_import(found, is_kept=on_error == "skip" or not found["num_refused"])
    # To skip lines was asked for; to be left with nothing was not.
    if found["num_refused"] and (on_error == "fail" or found["num_refused"] == found["num_lines"]):
        raise typer.Exit(1)


@app.command("export")
def export_labels(
    file: Annotated[Path, typer.Argument(help="Where to, gzip if it ends in .gz.")] = STDIN,
    *,
    task: TaskOption = None,
    split: SplitOption = None,
    source: SourceOption = None,
    video: VideoOption = None,
    video_as: Annotated[
        str,
        typer.Option(
            help="What names the videos: sha256, which any service understands that has the same "
            "files; filename, for people and `clipbert train`; id, for this service only."
        ),
    ] = "sha256",
    data: DataOption = None,
) -> None:
    """Write labels as lines that can be imported again; to stdout unless a file is named."""
    check_one_of("--video-as", video_as, allowed=VIDEO_NAMES)
    with connect(data) as api:
        wanted = _filters(api, task=task, split=split, source=source, video=video)
        count = 0
        with _opened(file) as write:
            for line in api.lines("/v1/labels:export", video=video_as, **wanted):
                write(line.encode() + b"\n")
                count += 1
    if file != STDIN:
        print(f"wrote {count} labels to {file}")


@app.command("list")
def list_labels(
    *,
    task: TaskOption = None,
    split: SplitOption = None,
    source: SourceOption = None,
    video: VideoOption = None,
    limit: LimitOption = 30,
    every: EveryOption = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List labels, newest first."""
    with connect(data) as api:
        wanted = _filters(api, task=task, split=split, source=source, video=video)
        labels = list_first(api, "/v1/labels", limit=limit, every=every, **wanted)
    if as_json:
        print_json(labels)
        return
    print_table(
        ["id", "task", "video", "text", "answer", "split", "source"],
        [
            (
                str(label["id"]),
                str(label["task"]),
                video_name(label),
                label_text(label),
                label_answer(label),
                str(label.get("split") or ""),
                str(label.get("source") or ""),
            )
            for label in labels
        ],
    )


@app.command("show")
def show_label(
    label: LabelArgument, *, as_json: JsonOption = False, data: DataOption = None
) -> None:
    """Show one label and what it was before."""
    with connect(data) as api:
        found = api.get(f"/v1/labels/{label}")
        history = api.all_items(f"/v1/labels/{label}/history")
    if as_json:
        print_json({**found, "history": history})
        return
    print_facts(facts_of(found))
    if len(history) > 1:
        print("\nhistory")
        print_table(
            ["revision#", "what", "text", "answer", "by", "when"],
            [revision_row(revision) for revision in history],
        )


@app.command("delete")
def delete_labels(
    labels: Annotated[
        list[UUID], typer.Argument(parser=parse_id, metavar="LABEL...", help="Their ids.")
    ],
    *,
    yes: YesOption = False,
    data: DataOption = None,
) -> None:
    """Delete labels. Data sets that were made with them keep what they have."""
    with connect(data) as api:
        for label in labels:
            api.delete(f"/v1/labels/{label}")
            print(f"deleted label {label}")


@app.command("answers")
def list_answers(
    *,
    split: SplitOption = None,
    source: SourceOption = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Count the answers to open-ended questions: what a finetune's vocabulary would be."""
    with connect(data) as api:
        found = api.get("/v1/labels/answers", split=split, source=source)
    if as_json:
        print_json(found)
        return
    print_table(
        ["answer", "labels#"],
        [(str(each["answer"]), str(each["count"])) for each in found["items"]],
    )


@app.command("suggest")
def suggest_labels(
    *,
    task: Annotated[str, typer.Option(help="qa or multiple_choice.")] = "qa",
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Only questions that people asked, or that were put to videos without labels: "
            "asked, unlabelled.",
        ),
    ] = None,
    video: VideoOption = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most this many.")] = 20,
    as_lines: Annotated[
        bool,
        typer.Option(
            "--lines", help="Print lines to be imported, once their answers are filled in."
        ),
    ] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List the questions whose answer by a person would teach the model most, best first."""
    check_one_of("--from", origin, allowed=ORIGINS)
    with connect(data) as api:
        video_id = None if video is None else str(find_video(api, video)["id"])
        found = api.get(
            "/v1/labels/suggestions", task=task, source=origin, video_id=video_id, limit=limit
        )["items"]
    if as_json:
        print_json(found)
    elif as_lines:
        for each in found:
            print(json.dumps(each["label"], ensure_ascii=False))
    elif not found:
        print(
            "nothing to suggest: a suggestion is a question that a model answered unsurely. Once a "
            + runnable("model serves open-ended questions (`clipbert models list`), ask it some ")
            + runnable("(`clipbert ask`), ")
            + "or wait while it tries on other videos what was labelled on some"
        )
    else:
        print_table(
            ["worth#", "video", "look at", "question", "model's guesses", "from"],
            [suggestion_row(each) for each in found],
        )


def _send(api: ApiClient, pieces: Iterator[bytes], **params: str | None) -> Json:
    """Import; what is refused line by line is an outcome, all else an error."""
    try:
        return api.send_lines("/v1/labels", pieces, **params)
    except ApiProblem as problem:
        lines = [error for error in problem.errors if "line" in error]
        if not lines:
            raise
        return {
            "num_lines": problem.facts.get("num_lines"),
            "num_inserted": 0,
            "num_unchanged": 0,
            "num_refused": problem.facts.get("num_refused", len(lines)),
            "errors": lines,
        }


def _print_import(found: Json, *, is_kept: bool) -> None:
    refused = _lines(int(found["num_refused"]))
    if is_kept:
        parts = [f"{found['num_inserted']} imported"]
        if found["num_unchanged"]:
            parts.append(f"{found['num_unchanged']} known already")
        if found["num_refused"]:
            parts.append(f"{refused} refused")
        print(f"labels: {', '.join(parts)}")
    for warning in found.get("warnings") or ():
        print(f"note: {warning}")
    errors: Sequence[Json] = found.get("errors") or ()
    if errors:
        shown = errors[:MOST_REFUSED_SHOWN]
        print_table(
            ["line#", "code", "why"],
            [(str(each["line"]), str(each["code"]), str(each["message"])) for each in shown],
        )
        more = int(found["num_refused"]) - len(shown)
        if more:
            print(f"... and {more} more (--json lists the first {len(errors)})")
    if not is_kept:
        print_error(f"nothing imported: {refused} refused", "--on-error skip imports the others")


def _lines(count: int) -> str:
    return f"{count} line{'s' * (count != 1)}"


def _filters(
    api: ApiClient, *, task: str | None, split: str | None, source: str | None, video: str | None
) -> dict[str, str | None]:
    check_one_of("--task", task, allowed=TASKS)
    video_id = None if video is None else str(find_video(api, video)["id"])
    return {"task": task, "split": split, "source": source, "video_id": video_id}


@contextmanager
def _opened(file: Path) -> Iterator[Callable[[bytes], object]]:
    """Yield what writes to the file, which has its name only once it is whole."""
    if file == STDIN:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    target = file.expanduser()
    with write_beside(target) as beside:
        try:
            opened = beside.open("wb")
        except OSError as error:
            raise CliError(f"{file} cannot be written: {error.strerror}") from error
        with opened as plain:
            if target.suffix == ".gz":
                with gzip.GzipFile(filename="", fileobj=plain, mode="wb") as packed:
                    yield packed.write
            else:
                yield plain.write
