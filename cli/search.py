"""`clipbert search`: a text in, ranked moments out; on request a contact sheet of them."""

import time
from pathlib import Path
from typing import Annotated

import typer

from cli.client import ApiClient, Json
from cli.console import JsonOption, file_name, format_span, print_json, print_table
from cli.data_folder import DataOption, find_data_folder
from cli.errors import check_one_of

MODES = ("auto", "recall", "exhaustive")


def search(
    text: Annotated[str, typer.Argument(help="What is to be seen, in words.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many hits.")] = 10,
    mode: Annotated[
        str, typer.Option(help="auto, recall (vectors only) or exhaustive (every clip).")
    ] = "auto",
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a picture of the hits: a .png, .jpg or .webp.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the answer.")] = 60.0,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Search the indexed videos by text."""
    check_one_of("--mode", mode, MODES)
    if sheet is not None:
        from cli.contact_sheet import format_of, write_sheet

        format_of(sheet)  # refused before the search, not after it
    with ApiClient.of_data_folder(find_data_folder(data)) as api:
        result, seconds = run_search(api, text, limit=limit, mode=mode, timeout_seconds=timeout)
        if as_json:
            print_json(result)
        else:
            print_hits(result, seconds)
        if sheet is not None:
            write_sheet(api, text, result["result"]["hits"], sheet)
            if not as_json:
                print(f"contact sheet: {sheet}")


def run_search(
    api: ApiClient, text: str, *, limit: int, mode: str = "auto", timeout_seconds: float = 60.0
) -> tuple[Json, float]:
    """Search and wait for the answer.

    Returns:
        The search resource, and the seconds from question to answer.
    """
    started_at = time.monotonic()
    body = {"text": text, "limit": limit, "mode": mode}
    resource = api.ask("/v1/searches", body, timeout_seconds=timeout_seconds)
    return resource, time.monotonic() - started_at


def print_hits(resource: Json, seconds: float) -> None:
    """Print the hits as a table, and what was done in which time."""
    result = resource["result"]
    if not result["hits"]:
        print("nothing found (is anything indexed? `clipbert videos list`)")
        return
    print_table(
        ["rank#", "score#", "video", "moment", "id"],
        [
            (
                str(hit["rank"]),
                f"{hit['score']:.3f}",
                file_name(str(hit["uri"])),
                format_span(hit["start_seconds"], hit["end_seconds"]),
                str(hit["video_id"]),
            )
            for hit in result["hits"]
        ],
    )
    print(f"{seconds * 1000:.0f} ms, {' + '.join(result['stages'])}, {result['recall_model']}")
