"""`clipbert videos`: what is in the library."""

from typing import Annotated

import typer

from cli.client import ApiClient, Json
from cli.console import (
    JsonOption,
    file_name,
    format_instant,
    print_facts,
    print_json,
    print_table,
)
from cli.data_folder import DataOption, find_data_folder
from cli.errors import ApiProblem, CliError

MOST_SEARCHED = 10_000  # videos looked through for a name
MOST_NAMED = 5  # candidates named when a part of a name fits several
ID_CHARACTERS = 36

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
def delete_video(video: VideoArgument, *, data: DataOption = None) -> None:
    """Remove a video from the library (a file indexed in place stays where it is)."""
    with ApiClient.of_data_folder(find_data_folder(data)) as api:
        found = find_video(api, video)
        api.delete(f"/v1/videos/{found['id']}")
    print(f"deleted {file_name(str(found['uri']))} ({found['id']})")


def find_video(api: ApiClient, wanted: str) -> Json:
    """Find a video by id, or by a part of its file name that only one has.

    Raises:
        CliError: none fits, or several do.
    """
    if len(wanted) == ID_CHARACTERS and wanted.count("-") == 4:  # noqa: PLR2004
        try:
            return api.get(f"/v1/videos/{wanted}")
        except ApiProblem as problem:
            if problem.status != 404:  # noqa: PLR2004
                raise
    videos = [
        (file_name(str(video["uri"])), video)
        for video in api.items("/v1/videos", limit=MOST_SEARCHED)
    ]
    exact = [video for name, video in videos if name == wanted]
    if len(exact) == 1:
        return exact[0]
    fitting = [(name, video) for name, video in videos if wanted.lower() in name.lower()]
    if len(fitting) == 1:
        return fitting[0][1]
    if not fitting:
        raise CliError(f"no video named like {wanted!r}", "`clipbert videos list` shows them all")
    names = ", ".join(f"{name} ({video['id']})" for name, video in fitting[:MOST_NAMED])
    raise CliError(f"{len(fitting)} videos are named like {wanted!r}: {names}", "give the id")


def _length(video: Json) -> str:
    seconds = video.get("duration_seconds")
    return "" if seconds is None else format_instant(float(seconds))
