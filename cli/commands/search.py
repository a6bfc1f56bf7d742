"""`clipbert search`: a text in, ranked moments out; on request a contact sheet of them."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli.api_client import connect
from cli.data_folder import DataOption
from cli.errors import check_one_of
from cli.hints import runnable
from cli.show.console import JsonOption, file_name, format_span, print_json, print_table
from cli.video_names import find_video
from clipbert_client.client import ApiClient, Json

EXHAUSTIVE = "exhaustive"
MODES = ("auto", "recall", EXHAUSTIVE)
WHY_RECALL_ONLY = (
    "note: not every clip was scored, only vectors were compared: no model with a trained "
    "retrieval head serves (`clipbert models list`; `clipbert finetune --task retrieval` trains "
    "one)"
)
GROUPINGS = ("video", "clip")


def search(
    text: Annotated[str, typer.Argument(help="What is to be seen, in words.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most this many hits.")] = 10,
    video: Annotated[
        list[str] | None,
        typer.Option(
            "--video",
            help="Only in this video: its id, path, name or a unique part of one; repeatable.",
            show_default=False,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", help="Only in videos with this tag; of several, with all.", show_default=False
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help="video: one hit a video; clip: every clip is a hit.")
    ] = "video",
    mode: Annotated[
        str,
        typer.Option(
            help="auto, recall (vectors only) or exhaustive (every clip by the cross-encoder, "
            "where a model with a trained retrieval head serves)."
        ),
    ] = "auto",
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a picture of the hits: a .png, .jpg or .webp.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the answer.")] = 60.0,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Search the indexed videos by text."""
    check_one_of("--mode", mode, allowed=MODES)
    check_one_of("--by", by, allowed=GROUPINGS)
    if sheet is not None:
        from cli.show.contact_sheet import format_of, write_sheet

        format_of(sheet)  # refused before the search, not after it
    with connect(data) as api:
        video_ids = [str(find_video(api, each)["id"]) for each in video or ()]
        result, seconds = run_search(
            api,
            text,
            limit=limit,
            mode=mode,
            by=by,
            video_ids=video_ids,
            tags=tag or (),
            timeout_seconds=timeout,
        )
        if mode == EXHAUSTIVE and EXHAUSTIVE not in result["result"]["stages"]:
            print(runnable(WHY_RECALL_ONLY), file=sys.stderr)
        if as_json:
            print_json(result)
        else:
            print_hits(result, seconds, is_filtered=bool(video or tag))
        if sheet is not None:
            write_sheet(api, text, hits=result["result"]["hits"], target=sheet)
            if not as_json:
                print(f"contact sheet: {sheet}")


def run_search(
    api: ApiClient,
    text: str,
    *,
    limit: int,
    mode: str = "auto",
    by: str = "video",
    video_ids: Sequence[str] = (),
    tags: Sequence[str] = (),
    timeout_seconds: float = 60.0,
) -> tuple[Json, float]:
    """Search and wait for the answer.

    Returns:
        The search resource, and the seconds from question to answer.
    """
    started_at = time.monotonic()
    body: Json = {"text": text, "limit": limit, "mode": mode, "group_by": by}
    if video_ids or tags:
        body["filters"] = {"video_ids": [*video_ids], "tags": [*tags]}
    resource = api.ask("/v1/searches", body, timeout_seconds=timeout_seconds)
    return resource, time.monotonic() - started_at


def print_hits(resource: Json, seconds: float, *, is_filtered: bool = False) -> None:
    """Print the hits as a table, and what was done in which time."""
    result = resource["result"]
    if not result["hits"]:
        where = (
            "in these videos"
            if is_filtered
            else runnable("(is anything indexed? `clipbert videos list`)")
        )
        print(f"nothing found {where}")
        return
    print_table(
        ["rank#", "score#", "video", "moment", "id"],
        [
            (
                str(hit["rank"]),
                f"{hit['score']:.3f}",
                file_name(str(hit["uri"])) + (" (missing)" if hit.get("is_missing") else ""),
                format_span(hit["start_seconds"], hit["end_seconds"]),
                str(hit["video_id"]),
            )
            for hit in result["hits"]
        ],
    )
    print(f"{seconds * 1000:.0f} ms, {' + '.join(result['stages'])}, {result['recall_model']}")
