"""`clipbert batches`: how far the bulk indexing is."""

from typing import Annotated
from uuid import UUID

import typer

from cli.api_client import connect, list_first
from cli.data_folder import DataOption
from cli.show.batch_outcome import count_items, failed_items, print_failures, print_partial
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
from cli.show.pace import format_duration, format_rate
from clipbert_client.client import Json

app = typer.Typer(help="List, show, cancel and retry batches.", no_args_is_help=True)

BatchArgument = Annotated[UUID, typer.Argument(parser=parse_id, metavar="BATCH", help="Its id.")]


@app.command("list")
def list_batches(
    *,
    limit: LimitOption = 30,
    every: EveryOption = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List batches, newest first."""
    with connect(data) as api:
        batches = list_first(api, "/v1/batches", limit=limit, every=every)
    if as_json:
        print_json(batches)
        return
    print_table(
        ["id", "name", "items#", "done#", "failed#", "cancelled#", "created"],
        [_row(batch) for batch in batches],
    )


@app.command("show")
def show_batch(
    batch: BatchArgument, *, as_json: JsonOption = False, data: DataOption = None
) -> None:
    """Show one batch and its items that failed."""
    with connect(data) as api:
        found = api.get(f"/v1/batches/{batch}")
        if as_json:
            print_json({**found, "failed_items": list(failed_items(api, str(batch)))})
            return
        print_facts(facts_of(_in_words(found)))
        print_partial(api, str(batch))
        print_failures(api, str(batch), counts=count_items(found))


@app.command("cancel")
def cancel_batch(batch: BatchArgument, *, data: DataOption = None) -> None:
    """Cancel the items of a batch that wait or run; what is indexed stays."""
    with connect(data) as api:
        found = api.post(f"/v1/batches/{batch}:cancel")
    # The service notes a cancel only where there was something to cancel.
    nothing = "nothing to cancel: " if found.get("cancel_requested") is False else ""
    print(f"{nothing}{_sentence(found)}")


@app.command("retry")
def retry_batch(batch: BatchArgument, *, data: DataOption = None) -> None:
    """Run the items of a batch again that failed."""
    with connect(data) as api:
        print(_sentence(api.post(f"/v1/batches/{batch}:retry_failed")))


def _sentence(batch: Json) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in batch["counts"].items() if count)
    return f"batch {batch['id']} is {batch['state']}: {counts or 'no items'}"


def _in_words(batch: Json) -> Json:
    """Put the pace of a batch as people do, in place of seconds and shares of them."""
    words = {**batch, "rate": None, "left": None}
    rate, left = words.pop("rate_per_second", None), words.pop("eta_seconds", None)
    if rate is not None:
        words["rate"] = format_rate(rate)
    if left is not None:
        words["left"] = format_duration(left)
    return words


def _row(batch: Json) -> tuple[str, ...]:
    counts = count_items(batch)
    return (
        str(batch["id"]),
        str(batch.get("name") or ""),
        str(counts.total),
        str(counts.done),
        str(counts.failed),
        str(counts.cancelled),
        format_time(batch["created_at"]),
    )
