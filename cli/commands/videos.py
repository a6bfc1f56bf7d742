"""`clipbert videos`: what is in the library."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

import typer

from cli.api_client import connect, list_first
from cli.data_folder import DataOption
from cli.deletion import YesOption, confirm_delete
from cli.errors import CliError
from cli.show.console import (
    EveryOption,
    JsonOption,
    LimitOption,
    file_name,
    format_instant,
    format_span,
    is_same_name,
    print_facts,
    print_json,
    print_table,
)
from cli.show.facts import facts_of
from cli.show.table import one_line
from cli.video_names import find_video
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ApiProblem

# candidates named when a name or a part of it fits several

app = typer.Typer(help="List, show and delete videos.", no_args_is_help=True)

TagOption = Annotated[
    str | None, typer.Option("--tag", help="Only those with this tag.", show_default=False)
]
StateOption = Annotated[
    str | None,
    typer.Option(
        "--state",
        help="Only those in this state, such as ready or failed.",
        show_default=False,
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Only those whose file name has this part.", show_default=False),
]
VideoArgument = Annotated[
    str, typer.Argument(help="Its id, URI, path, name, or a unique part of one.")
]


@app.command("list")
def list_videos(
    *,
    tag: TagOption = None,
    state: StateOption = None,
    name: NameOption = None,
    limit: LimitOption = 50,
    every: EveryOption = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List videos, newest first."""
    filters = {"tag": tag, "state": state, "name_part": name}
    with connect(data) as api:
        videos = list_first(api, "/v1/videos", limit=limit, every=every, **filters)
    if as_json:
        print_json(videos)
        return
    print_table(
        ["id", "video", "state", "length#", "size#", "codec"],
        [
            (
                str(video["id"]),
                file_name(str(video["uri"])),
                _state(video),
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
    with connect(data) as api:
        found = find_video(api, video)
        clips = api.all_items(f"/v1/videos/{found['id']}/clips")
    if as_json:
        print_json({**found, "clips": clips})
        return
    shown = {name: value for name, value in found.items() if name != "links"}
    shown["damaged_spans"] = _damage(found)
    print_facts([*facts_of(shown), ("clips", str(len(clips)))])


@app.command("delete")
def delete_videos(
    video: Annotated[
        str | None,
        typer.Argument(
            metavar="[VIDEO]",
            help="Its id, URI, path, name, or a unique part of one.",
            show_default=False,
        ),
    ] = None,
    *,
    tag: TagOption = None,
    state: StateOption = None,
    name: NameOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be deleted.")
    ] = False,
    yes: YesOption = False,
    data: DataOption = None,
) -> None:
    """Remove a video, or all that fit, from the library, and the labels about it.

    A file that was indexed in place stays where it is.
    """
    filters = {"tag": tag, "state": state, "name_part": name}
    is_filtered = any(value is not None for value in filters.values())
    if (video is not None) == is_filtered:
        raise CliError(
            "name either a video, or what to delete by --tag, --state or --name",
            "such as: clipbert videos delete --state failed --dry-run",
        )
    with connect(data) as api:
        if video is not None:
            found = [find_video(api, video)]
            wanted = video.lower()
            is_sure = wanted == str(found[0]["id"]) or is_same_name(_name(found[0]).lower(), wanted)
        else:
            found, is_sure = list(api.items("/v1/videos", limit=None, **filters)), False
        if not found:
            print("no video fits, so nothing is deleted")
            return
        if dry_run:
            _list_doomed(found)
            return
        if not yes and not is_sure:
            what = _described(found[0]) if video is not None else _counted(found)
            why = f"{what} would be deleted" if video is None else f"{video!r} may mean {what}"
            confirm_delete(why, what)
        _delete(api, found)


def _delete(api: ApiClient, videos: Sequence[Json]) -> None:
    for video in videos:
        try:
            api.delete(f"/v1/videos/{video['id']}")
        except ApiProblem as problem:
            if problem.status != HTTPStatus.NOT_FOUND:
                raise  # one that somebody else deleted meanwhile is gone as was wanted
        else:
            print(f"deleted {_described(video)}", flush=True)


def _list_doomed(videos: Sequence[Json]) -> None:
    for video in videos:
        print(f"would delete {_described(video)}")
    if len(videos) != 1:
        print(f"{_counted(videos)} would be deleted")


def _counted(videos: Sequence[Json]) -> str:
    counted = f"{len(videos)} video{'s' * (len(videos) != 1)}"
    return counted + _and_labels(videos)


def _described(video: Json) -> str:
    return f"{_name(video)} ({video['id']}){_and_labels([video])}"


def _and_labels(videos: Sequence[Json]) -> str:
    """Say what is deleted with videos that people have worked on."""
    count = sum(int(video.get("num_labels") or 0) for video in videos)
    whose = "its" if len(videos) == 1 else "their"
    return f" and {whose} {count} label{'s' * (count != 1)}" if count else ""


def _name(video: Json) -> str:
    return one_line(file_name(str(video["uri"])))


def _state(video: Json) -> str:
    return f"{video['state']}, partial" if video.get("is_partial") else str(video["state"])


def _damage(video: Json) -> str:
    spans = video.get("damaged_spans") or []
    return ", ".join(format_span(span["start_seconds"], span["end_seconds"]) for span in spans)


def _length(video: Json) -> str:
    seconds = video.get("duration_seconds")
    return "" if seconds is None else format_instant(float(seconds))
