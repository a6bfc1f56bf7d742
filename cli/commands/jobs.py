"""`clipbert jobs`: what runs, what waits, what failed and why."""

from typing import Annotated
from uuid import UUID

import typer

from cli.api_client import connect, list_first
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

app = typer.Typer(help="List, show, cancel and retry jobs.", no_args_is_help=True)

JobArgument = Annotated[UUID, typer.Argument(parser=parse_id, metavar="JOB", help="Its id.")]


@app.command("list")
def list_jobs(
    *,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Of this kind: ingest, embed, search, question, finetune.")
    ] = None,
    limit: LimitOption = 30,
    every: EveryOption = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List jobs, newest first."""
    with connect(data) as api:
        jobs = list_first(api, "/v1/jobs", limit=limit, every=every, state=state, kind=kind)
    if as_json:
        print_json(jobs)
        return
    print_table(
        ["id", "kind", "state", "progress#", "attempt#", "error", "created"],
        [
            (
                str(job["id"]),
                str(job["kind"]),
                str(job["state"]),
                _progress(job),
                str(job.get("attempt", "")),
                str((job.get("error") or {}).get("code") or ""),
                format_time(job["created_at"]),
            )
            for job in jobs
        ],
    )


@app.command("show")
def show_job(job: JobArgument, *, as_json: JsonOption = False, data: DataOption = None) -> None:
    """Show one job."""
    with connect(data) as api:
        found = api.get(f"/v1/jobs/{job}")
    if as_json:
        print_json(found)
        return
    print_facts(facts_of(found))


@app.command("cancel")
def cancel_job(job: JobArgument, *, data: DataOption = None) -> None:
    """Cancel a job that waits or runs."""
    with connect(data) as api:
        found = api.post(f"/v1/jobs/{job}:cancel")
    print(f"job {found['id']} is {found['state']}")


@app.command("retry")
def retry_job(job: JobArgument, *, data: DataOption = None) -> None:
    """Run a job again that failed, was cancelled or is quarantined."""
    with connect(data) as api:
        found = api.post(f"/v1/jobs/{job}:retry")
    print(f"job {found['id']} is {found['state']}")


def _progress(job: Json) -> str:
    progress = job.get("progress") or {}
    total = progress.get("total")
    return f"{progress.get('done', 0)}/{total}" if total else ""
