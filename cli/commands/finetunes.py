"""`clipbert finetunes`: what was trained, what runs, and how it went."""

import json
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from cli.api_client import connect, list_first
from cli.commands.finetune import wait_for_finetune
from cli.data_folder import DataOption
from cli.errors import CliError
from cli.show.console import (
    EveryOption,
    JsonOption,
    LimitOption,
    format_time,
    print_json,
    print_table,
)
from cli.show.finetune_outcome import decision_words, print_finetune, print_outcome
from cli.show.finetune_progress import describe
from clipbert_client.client import ApiClient, Json

MOST_PICTURE_BYTES = 50 * 2**20
LAST = "last"

app = typer.Typer(
    help="List and show finetunes; pause, resume, cancel and retry them.", no_args_is_help=True
)

FinetuneArgument = Annotated[
    str, typer.Argument(metavar="FINETUNE", help="Its id; `last` is the newest.")
]


@app.command("list")
def list_finetunes(
    *,
    task: Annotated[str | None, typer.Option(help="Only of this task.")] = None,
    limit: LimitOption = 30,
    every: EveryOption = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List finetunes, newest first."""
    with connect(data) as api:
        found = list_first(api, "/v1/finetunes", limit=limit, every=every, task=task)
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "task", "state", "where", "outcome", "created"],
        [
            (
                str(each["id"]),
                str(each["task"]),
                str(each["state"]),
                "" if each["done"] else describe(each),
                decision_words(each),
                format_time(each["created_at"]),
            )
            for each in found
        ],
    )


@app.command("show")
def show_finetune(
    finetune: FinetuneArgument,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until it is over.")] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Show one finetune: what it trains, where it is, how it was evaluated and decided."""
    with connect(data) as api:
        found = find_finetune(api, finetune)
        if wait:
            found = wait_for_finetune(api, found, as_json=as_json)
    if as_json:
        print_json(found)
    elif wait:
        print_outcome(found)
    else:
        print_finetune(found)
    if wait and found["state"] != "succeeded":
        raise typer.Exit(1)


@app.command("pause")
def pause_finetune(finetune: FinetuneArgument, *, data: DataOption = None) -> None:
    """Pause a finetune: it stops at a checkpoint and frees its device."""
    _act(finetune, "pause", data)


@app.command("resume")
def resume_finetune(finetune: FinetuneArgument, *, data: DataOption = None) -> None:
    """Resume a paused finetune from its checkpoint."""
    _act(finetune, "resume", data)


@app.command("cancel")
def cancel_finetune(finetune: FinetuneArgument, *, data: DataOption = None) -> None:
    """Cancel a finetune; what serves stays as it is."""
    _act(finetune, "cancel", data)


@app.command("retry")
def retry_finetune(finetune: FinetuneArgument, *, data: DataOption = None) -> None:
    """Run a finetune again that failed or was cancelled, on the same data set."""
    _act(finetune, "retry", data)


@app.command("curves")
def save_curves(
    finetune: FinetuneArgument,
    file: Annotated[Path, typer.Argument(help="A .png picture, or .json for the points.")] = Path(
        "curves.png"
    ),
    *,
    data: DataOption = None,
) -> None:
    """Save the curves of loss, learning rate and evaluations."""
    if file.suffix.lower() not in {".png", ".json"}:
        raise CliError(f"{file}: the curves are a .png picture or .json points")
    target = file.expanduser()
    with connect(data) as api:
        found = find_finetune(api, finetune)
        path = f"/v1/finetunes/{found['id']}/curves"
        if target.suffix.lower() == ".json":
            target.write_text(json.dumps(api.get(path)) + "\n")
        elif not api.download(f"{path}.png", target, most_bytes=MOST_PICTURE_BYTES):
            raise CliError(f"the picture is larger than {MOST_PICTURE_BYTES} bytes")
    print(f"wrote {file}")


@app.command("events")
def list_events(
    finetune: FinetuneArgument, *, as_json: JsonOption = False, data: DataOption = None
) -> None:
    """List all that happened to a finetune, oldest first."""
    with connect(data) as api:
        found = find_finetune(api, finetune)
        events = list(api.items(f"/v1/jobs/{found['id']}/events", limit=None))
    if as_json:
        print_json(events)
        return
    print_table(
        ["#", "time", "event", "what"],
        [
            (
                str(event["seq"]),
                format_time(event["created_at"]),
                str(event["type"]),
                _words(event["data"]),
            )
            for event in events
        ],
    )


def _words(facts: Json) -> str:
    """Write what an event says; what is within something else only --json shows."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in facts.items()
        if value is not None and not isinstance(value, dict | list)
    )


def find_finetune(api: ApiClient, wanted: str) -> Json:
    """Get a finetune by its id, or the newest.

    Raises:
        CliError: it is not an id, or there is no finetune yet.
    """
    if wanted == LAST:
        for finetune in api.items("/v1/finetunes", limit=1):
            return finetune
        raise CliError("there are no finetunes yet", "start one: clipbert finetune --task qa")
    try:
        finetune_id = UUID(wanted)
    except ValueError:
        raise CliError(
            f"{wanted!r} is not the id of a finetune",
            "`clipbert finetunes list` shows them; or: last",
        ) from None
    return api.get(f"/v1/finetunes/{finetune_id}")


def _act(finetune: str, verb: str, data: Path | None) -> None:
    with connect(data) as api:
        found = find_finetune(api, finetune)
        found = api.post(f"/v1/finetunes/{found['id']}:{verb}")
    asked = " (asked to pause)" if verb == "pause" and found["state"] == "running" else ""
    print(f"finetune {found['id']} is {found['state']}{asked}")
