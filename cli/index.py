"""`clipbert index`: files and folders into one batch, with a live progress bar."""

import os
import stat
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from cli.batch_outcome import (
    NotSent,
    failed_items,
    follow_batch,
    print_not_indexed,
    print_outcome,
)
from cli.client import ApiClient
from cli.console import JsonOption, print_json
from cli.data_folder import DataOption, find_data_folder
from cli.errors import INTERRUPTED, CliError, ServiceUnreachable
from cli.sent_batch import start_batch, upload_files
from clipbert.video.formats import MEDIA_EXTENSIONS


@dataclass
class FoundFiles:
    """What there is to index.

    Attributes:
        files: absolute, in order, each once.
        unreadable: folders that could not be looked into.
        num_skipped: files of folders that have no extension of a video or an image.
    """

    files: list[Path] = field(default_factory=list)
    unreadable: list[NotSent] = field(default_factory=list)
    num_skipped: int = 0


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
    found = collect_files(paths, every_file=every_file)
    _say_what_is_left_out(paths, found)
    told = sys.stderr if as_json else sys.stdout
    with ApiClient.of_data_folder(find_data_folder(data)) as api:
        batch_id, to_upload = start_batch(api, found.files, name=name, upload_all=upload)
        # Before the uploads: whoever breaks them off knows where the others are.
        note = f", {len(to_upload)} of them to upload" if to_upload else ""
        number = "1 file" if len(found.files) == 1 else f"{len(found.files)} files"
        print(f"batch {batch_id}: {number}{note}", file=told, flush=True)
        follow = f"follow it with: clipbert batches show {batch_id}"
        try:
            not_sent = [*found.unreadable, *upload_files(api, batch_id, to_upload)]
            counts = follow_batch(api, batch_id, told=told) if wait else None
        except KeyboardInterrupt:
            print(f"indexing of what was sent goes on; {follow}", file=told)
            raise typer.Exit(INTERRUPTED) from None
        except ServiceUnreachable as error:
            raise ServiceUnreachable(error.message, f"what was sent is safe; {follow}") from error
        if as_json:
            failed = [*failed_items(api, batch_id)] if counts is not None else []
            failed += [each.as_item() for each in not_sent]
            print_json({**api.get(f"/v1/batches/{batch_id}"), "failed_items": failed})
        elif counts is not None:
            print_outcome(api, batch_id, counts, not_sent)
        else:
            print_not_indexed([each.as_item() for each in not_sent])
            print(follow)
    if not_sent or (counts is not None and counts.succeeded < counts.total):
        raise typer.Exit(1)


def collect_files(paths: Iterable[Path], *, every_file: bool) -> FoundFiles:
    """Find what to index.

    A file named by itself is always taken; of a folder, what has the extension of a video or an
    image, at any depth, without hidden files and without following links to folders.

    Raises:
        CliError: a path does not exist, or cannot be looked at.
    """
    found = FoundFiles()
    for path in paths:
        # Not resolve(): a link keeps the name that people know it by.
        absolute = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100
        try:
            mode = absolute.stat().st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CliError(f"{path} does not exist") from error
        except OSError as error:
            raise CliError(f"{path} cannot be looked at: {error.strerror}") from error
        if stat.S_ISDIR(mode):
            _collect_folder(absolute, found, every_file=every_file)
        else:
            found.files.append(absolute)
    found.files = list(dict.fromkeys(found.files))
    return found


def _collect_folder(top: Path, found: FoundFiles, *, every_file: bool) -> None:
    def note_unreadable(error: OSError) -> None:
        message = f"folder left out: {error.strerror}"
        found.unreadable.append(NotSent(Path(error.filename), "not_readable", message))

    for folder, subfolders, names in os.walk(top, onerror=note_unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            if every_file or Path(name).suffix.lower() in MEDIA_EXTENSIONS:
                found.files.append(Path(folder, name))
            else:
                found.num_skipped += 1


def _say_what_is_left_out(paths: Sequence[Path], found: FoundFiles) -> None:
    """Tell what of the folders is not indexed.

    Raises:
        CliError: nothing is left.
    """
    if found.num_skipped:
        print(
            f"files skipped for their extension: {found.num_skipped} (--all takes them too)",
            file=sys.stderr,
        )
    for folder in found.unreadable:
        print(f"{folder.path}: {folder.message}", file=sys.stderr)
    if not found.files:
        raise CliError(
            "no video or image in " + ", ".join(str(path) for path in paths),
            "--all takes files of any extension",
        )
