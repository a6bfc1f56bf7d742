"""`clipbert index`: files and folders into one batch, with a live progress bar."""

import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import ApiClient, Json
from cli.console import JsonOption, console, file_name, print_json, print_table
from cli.data_folder import DataOption, find_data_folder
from cli.errors import INTERRUPTED, ApiProblem, CliError

VIDEO_EXTENSIONS = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"}
    | {".mts", ".mxf", ".ogg", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
IMAGE_EXTENSIONS = frozenset({".jpeg", ".jpg", ".png", ".webp"})
MEDIA_EXTENSIONS = VIDEO_EXTENSIONS | IMAGE_EXTENSIONS
FAILED_STATES = ("failed", "quarantined", "cancelled")
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.3, 2.0
MOST_FAILURES_SHOWN, MOST_FAILURES_READ = 50, 500


@dataclass(frozen=True)
class Counts:
    """How far a batch is."""

    total: int
    succeeded: int
    failed: int  # failed, cancelled and quarantined

    @property
    def done(self) -> int:
        """Items that will not change any more."""
        return self.succeeded + self.failed


def index(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders (with all below them).")],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until all is done.")] = False,
    name: Annotated[str | None, typer.Option(help="A name for the batch.")] = None,
    every_file: Annotated[
        bool, typer.Option("--all", help="Take every file of a folder, whatever its extension.")
    ] = False,
    upload: Annotated[
        bool,
        typer.Option("--upload", help="Send the files themselves, to an API on another machine."),
    ] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Index videos and images: search and questions find them from then on."""
    files = collect_files(paths, every_file=every_file)
    if not files:
        raise CliError(
            "no video or image in " + ", ".join(str(path) for path in paths),
            "--all takes files of any extension",
        )
    with ApiClient.of_data_folder(find_data_folder(data)) as api:
        batch_id, uploaded = send_batch(api, files, name=name, upload_all=upload)
        if not as_json:
            note = f", {uploaded} of them uploaded" if uploaded else ""
            print(f"batch {batch_id}: {len(files)} files{note}")
        if not wait:
            if as_json:
                print_json(api.get(f"/v1/batches/{batch_id}"))
            else:
                print(f"follow it with: clipbert batches show {batch_id}")
            return
        try:
            counts = follow_batch(api, batch_id, visible=not as_json)
        except KeyboardInterrupt:
            print(f"indexing goes on; follow it with: clipbert batches show {batch_id}")
            raise typer.Exit(INTERRUPTED) from None
        if as_json:
            batch = api.get(f"/v1/batches/{batch_id}")
            print_json({**batch, "failed_items": _failed_items(api, batch_id)})
        else:
            print_outcome(api, batch_id, counts)
    if counts.failed:
        raise typer.Exit(1)


def collect_files(paths: Iterable[Path], *, every_file: bool) -> list[Path]:
    """List what to index, absolute, in order, each file once.

    A file named by itself is always taken; of a folder, what has the extension of a video or an
    image, at any depth, without hidden files and without following links to folders.

    Raises:
        CliError: a path does not exist.
    """
    found: dict[Path, None] = {}
    for path in paths:
        # Not resolve(): a link keeps the name that people know it by.
        absolute = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100
        if absolute.is_dir():
            for folder, subfolders, names in os.walk(absolute):
                subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
                for name in sorted(names):
                    if name.startswith("."):
                        continue
                    if every_file or Path(name).suffix.lower() in MEDIA_EXTENSIONS:
                        found[Path(folder, name)] = None
        elif absolute.exists():
            found[absolute] = None
        else:
            raise CliError(f"{path} does not exist")
    return list(found)


def send_batch(
    api: ApiClient, files: Sequence[Path], *, name: str | None, upload_all: bool = False
) -> tuple[str, int]:
    """Send all files as one batch: by uri, and by upload where the API may not read the path.

    Args:
        api: the service.
        files: absolute paths.
        name: of the batch.
        upload_all: send the content of every file, for an API that does not see this disk.

    Returns:
        The batch's id, and how many files were uploaded.
    """
    inside: Sequence[Path] = [] if upload_all else files
    while True:
        try:
            batch = _create_batch(api, inside, name)
            break
        except ApiProblem as problem:
            if problem.code != "outside_media_roots":
                raise
            # The answer lists the first of them only.
            remaining = without_outside(inside, problem.errors)
            if len(remaining) == len(inside):
                raise
            inside = remaining
    kept = set(inside)
    uploads = [file for file in files if file not in kept]
    for number, file in enumerate(uploads, start=1):
        print(f"uploading {number} of {len(uploads)}: {file.name}", file=sys.stderr)
        api.upload("/v1/videos", file, {"batch_id": str(batch["id"])})
    return str(batch["id"]), len(uploads)


def follow_batch(api: ApiClient, batch_id: str, *, visible: bool) -> Counts:
    """Poll a batch until every item is done, with a progress bar if visible."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("indexing"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[failed]} failed[/red]"),
        TextColumn("{task.fields[rate]:.1f}/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console(),
        disable=not visible,
    )
    started_at = time.monotonic()
    with progress:
        task = progress.add_task("indexing", total=None, failed=0, rate=0.0)
        while True:
            counts = count_items(api.get(f"/v1/batches/{batch_id}"))
            rate = counts.done / max(time.monotonic() - started_at, 0.001)
            progress.update(
                task, total=counts.total, completed=counts.done, failed=counts.failed, rate=rate
            )
            if counts.done >= counts.total:
                return counts
            # A batch that takes hours need not be asked for three times a second.
            waited = time.monotonic() - started_at
            time.sleep(min(LONGEST_POLL_SECONDS, max(FIRST_POLL_SECONDS, waited / 100)))


def count_items(batch: Json) -> Counts:
    """Read the counts by state of a batch resource."""
    counts: dict[str, Any] = batch["counts"]
    failed = sum(int(counts[state]) for state in FAILED_STATES)
    return Counts(total=int(batch["total"]), succeeded=int(counts["succeeded"]), failed=failed)


def print_outcome(api: ApiClient, batch_id: str, counts: Counts) -> None:
    """Print how many items were indexed, and a table of those that were not."""
    failures = _failed_items(api, batch_id) if counts.failed else []
    print(f"{counts.succeeded} indexed, {counts.failed} failed")
    if not failures:
        return
    print_table(
        ["file", "code", "why"],
        [
            (
                file_name(str(item.get("uri") or "")),
                str((item.get("error") or {}).get("code") or item["state"]),
                str((item.get("error") or {}).get("message") or ""),
            )
            for item in failures[:MOST_FAILURES_SHOWN]
        ],
    )
    if len(failures) > MOST_FAILURES_SHOWN:
        print(f"... and {len(failures) - MOST_FAILURES_SHOWN} more")


def without_outside(files: Sequence[Path], errors: Sequence[dict[str, object]]) -> Sequence[Path]:
    """Leave out the files that the API named, and all below the folders they are in.

    A link may lead out of a folder that is inside, so it stands for itself only.
    """
    named = [files[i] for error in errors if isinstance(i := error.get("index"), int)]
    links = {file for file in named if file.is_symlink()}
    folders = {file.parent for file in named if file not in links}
    return [
        file
        for file in files
        if file not in links and (file.is_symlink() or folders.isdisjoint(file.parents))
    ]


def _create_batch(api: ApiClient, files: Sequence[Path], name: str | None) -> Json:
    body: Json = {"items": [{"uri": file.as_uri()} for file in files]}
    if name is not None:
        body["name"] = name
    return api.post("/v1/batches", body)


def _failed_items(api: ApiClient, batch_id: str) -> list[Json]:
    path = f"/v1/batches/{batch_id}/items"
    return [
        item
        for state in FAILED_STATES
        for item in api.items(path, limit=MOST_FAILURES_READ, state=state)
    ]
