"""`clipbert videos`: what is in the library."""

import sys
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

import typer

from cli.client import ApiClient, Json
from cli.console import (
    JsonOption,
    as_text,
    file_name,
    format_instant,
    print_facts,
    print_json,
    print_table,
)
from cli.data_folder import DataOption, find_data_folder
from cli.errors import ApiProblem, CliError

MOST_NAMED = 5  # candidates named when a name or a part of it fits several

app = typer.Typer(help="List, show and delete videos.", no_args_is_help=True)

VideoArgument = Annotated[str, typer.Argument(help="Its id, or a unique part of its file name.")]


@app.command("list")
def list_videos(
    *,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List videos, newest first."""
    with ApiClient.of_data_folder(find_data_folder(data)) as api:
        videos = list(api.items("/v1/videos", limit=limit))
    if as_json:
        print_json(videos)
        return
    print_table(
        ["id", "video", "state", "length#", "size#", "codec"],
        [
            (
                str(video["id"]),
                file_name(str(video["uri"])),
                str(video["state"]),
                _length(video),
                f"{video['width']}x{video['height']}" if video.get("width") else "",
                str(video.get("codec") or ""),
            )
            for video in videos
        ],
    )


@app.command("show")
def show_video(
    video: VideoArgument, *, as_json: JsonOption = False, data: DataOption = None
) -> None:
    """Show one video and its clips."""
    with ApiClient.of_data_folder(find_data_folder(data)) as api:
        found = find_video(api, video)
        clips = api.get(f"/v1/videos/{found['id']}/clips")["items"]
    if as_json:
        print_json({**found, "clips": clips})
        return
    facts = [
        (name, str(value))
        for name, value in found.items()
        if value not in (None, [], {}) and name != "links"
    ]
    print_facts([*facts, ("clips", str(len(clips)))])


@app.command("delete")
def delete_video(
    video: VideoArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data: DataOption = None,
) -> None:
    """Remove a video from the library (a file indexed in place stays where it is)."""
    with ApiClient.of_data_folder(find_data_folder(data)) as api:
        found = find_video(api, video)
        name = file_name(str(found["uri"]))
        if not yes and video.lower() not in {str(found["id"]), name.lower()}:
            confirm_delete(video, f"{name} ({found['id']})")
        api.delete(f"/v1/videos/{found['id']}")
    print(f"deleted {name} ({found['id']})")


def confirm_delete(wanted: str, found: str) -> None:
    """Ask whether a video that was not named in full is the one to delete.

    Raises:
        CliError: there is nobody to ask.
        typer.Abort: it is not.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise CliError(f"{wanted!r} may mean {found}", "give its id or its whole name, or --yes")
    typer.confirm(f"delete {found}?", abort=True)


def find_video(api: ApiClient, wanted: str) -> Json:
    """Find a video by id, by its file name or a copy's, or by a part that only one such name has.

    Raises:
        CliError: none fits, or several do.
    """
    if not wanted.strip():
        raise CliError("name a video", "`clipbert videos list` shows them all")
    found = _with_id(api, wanted)
    if found is not None:
        return found
    wanted = as_text(wanted)
    fitting = list(api.items("/v1/videos", limit=None, name=wanted))
    # The video that has the name itself comes before those that have a copy of this name.
    own = [video for video in fitting if file_name(str(video["uri"])) == wanted]
    fitting = own or fitting or list(api.items("/v1/videos", limit=None, name_part=wanted))
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise CliError(f"no video named like {wanted!r}", "`clipbert videos list` shows them all")
    names = ", ".join(
        f"{file_name(str(video['uri']))} ({video['id']})" for video in fitting[:MOST_NAMED]
    )
    raise CliError(f"{len(fitting)} videos are named like {wanted!r}: {names}", "give the id")


def _with_id(api: ApiClient, wanted: str) -> Json | None:
    try:
        return api.get(f"/v1/videos/{UUID(wanted)}")
    except ValueError:
        return None  # no id
    except ApiProblem as problem:
        if problem.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def _length(video: Json) -> str:
    seconds = video.get("duration_seconds")
    return "" if seconds is None else format_instant(float(seconds))
