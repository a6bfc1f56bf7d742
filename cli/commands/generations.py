"""`clipbert generations`: the indexes of the library, one a way of looking at videos."""

from typing import Annotated
from uuid import UUID

import typer

from cli.api_client import connect, first_of
from cli.data_folder import DataOption
from cli.show.console import (
    EveryOption,
    JsonOption,
    LimitOption,
    format_time,
    parse_id,
    print_facts,
    print_json,
    print_table,
)
from cli.show.facts import facts_of
from clipbert_client.client import Json

app = typer.Typer(
    help="List and show generations: which is searched, which is being built.",
    no_args_is_help=True,
)

GenerationArgument = Annotated[
    UUID, typer.Argument(parser=parse_id, metavar="GENERATION", help="Its id.")
]


@app.command("list")
def list_generations(
    *,
    limit: LimitOption = 30,
    every: EveryOption = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List generations, newest first, and how much of the library each holds."""
    with connect(data) as api:
        found = first_of(api.all_items("/v1/generations"), limit=limit, every=every)
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "state", "model", "indexed#", "created"],
        [
            (
                str(each["id"]),
                str(each["state"]),
                str(each.get("model") or each["model_id"]),
                coverage(each),
                format_time(each["created_at"]),
            )
            for each in found
        ],
    )


@app.command("show")
def show_generation(
    generation: GenerationArgument, *, as_json: JsonOption = False, data: DataOption = None
) -> None:
    """Show one generation."""
    with connect(data) as api:
        found = api.get(f"/v1/generations/{generation}")
    if as_json:
        print_json(found)
        return
    print_facts(facts_of(found))


def coverage(generation: Json) -> str:
    """Write how many videos of how many a generation holds."""
    numbers = generation.get("coverage") or generation
    return f"{numbers.get('num_indexed', '?')}/{numbers.get('num_videos', '?')}"
