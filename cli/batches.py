"""`clipbert batches`: how far the bulk indexing is."""

from typing import Annotated

import typer

from cli.client import ApiClient, Json
from cli.console import JsonOption, file_name, print_facts, print_json, print_table
from cli.data_folder import DataOption, find_data_folder
from cli.index import count_items

MOST_FAILURES_SHOWN = 20

app = typer.Typer(help="List and show batches.", no_args_is_help=True)

BatchArgument = Annotated[str, typer.Argument(help="The batch's id.")]


@app.command("list")
def list_batches(
    *,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 30,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List batches, newest first."""
    with ApiClient.of_data_folder(find_data_folder(data)) as api:
        batches = list(api.items("/v1/batches", limit=limit))
    if as_json:
        print_json(batches)
        return
    print_table(
        ["id", "name", "items#", "done#", "failed#", "created"],
        [_row(batch) for batch in batches],
    )


@app.command("show")
def show_batch(
    batch: BatchArgument, *, as_json: JsonOption = False, data: DataOption = None
) -> None:
    """Show one batch and the items of it that failed."""
    with ApiClient.of_data_folder(find_data_folder(data)) as api:
        found = api.get(f"/v1/batches/{batch}")
        failures = list(
            api.items(f"/v1/batches/{batch}/items", limit=MOST_FAILURES_SHOWN, state="failed")
        )
    if as_json:
        print_json({**found, "failed_items": failures})
        return
    print_facts((name, str(value)) for name, value in found.items() if value is not None)
    for item in failures:
        error = item.get("error") or {}
        print(f"  {file_name(str(item['uri']))}: {error.get('message')} ({error.get('code')})")


def _row(batch: Json) -> tuple[str, ...]:
    counts = count_items(batch)
    return (
        str(batch["id"]),
        str(batch.get("name") or ""),
        str(counts.total),
        str(counts.done),
        str(counts.failed),
        str(batch["created_at"])[:19].replace("T", " "),
    )
