"""`clipbert index`: files and folders into batches, with live progress."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TextIO

import typer

from cli.api_client import connect
from cli.data_folder import DataOption
from cli.errors import INTERRUPTED, CliError
from cli.folder_walk import Broken, Reason, Skipped, Taken, walk
from cli.hints import runnable
from cli.sent_batch import SaidOfAll, start_batch, upload_files
from cli.show.batch_outcome import (
    Counts,
    NotSent,
    failed_items,
    follow_batch,
    print_not_indexed,
    print_outcome,
)
from cli.show.console import JsonOption, print_json
from cli.show.table import one_line
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ServiceUnreachable
from clipbert_client.text import as_text

MOST_ITEMS = 100_000  # of one batch


@dataclass
class FoundFiles:
    """What there is to index.

    Attributes:
        files: absolute, in order, each once.
        unreadable: what is wanted and cannot be read.
        skipped: how much of folders is left out, by reason.
    """

    files: list[Path] = field(default_factory=list)
    unreadable: list[NotSent] = field(default_factory=list)
    skipped: Counter[Reason] = field(default_factory=Counter)

    @property
    def num_skipped(self) -> int:
        """Files that have no extension of a video or an image."""
        return self.skipped[Reason.EXTENSION]


@dataclass(frozen=True)
class _SentBatch:
    id: str
    to_upload: list[Path]
    not_sent: list[NotSent]


def index(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders (with all below them).")],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until all is done.")] = False,
    name: Annotated[str | None, typer.Option(help="A name for the batch.")] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", help="Give the videos this tag; repeatable.", show_default=False),
    ] = None,
    every_file: Annotated[
        bool, typer.Option("--all", help="Take every file of a folder, whatever its extension.")
    ] = False,
    upload: Annotated[
        bool,
        typer.Option("--upload", help="Send the files themselves, to an API on another machine."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the files that would be indexed.")
    ] = False,
    list_skipped: Annotated[
        bool, typer.Option("--list-skipped", help="Name each file that is left out, and why.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Refuse a video that is cut off, or damaged where it is looked at."
        ),
    ] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Index videos and images: search and questions find them from then on."""
    found = FoundFiles()
    files = _taken(paths, found, every_file=every_file, list_skipped=list_skipped)
    if dry_run:
        _list_files(files, found, as_json=as_json)
        raise typer.Exit(1 if found.unreadable else 0)
    first = next(files, None)
    if first is None and not found.unreadable:
        _say_what_is_skipped(found)
        raise CliError(
            "no video or image in " + ", ".join(as_text(str(path)) for path in paths),
            "--all takes files of any extension",
        )
    output = sys.stderr if as_json else sys.stdout
    with connect(data) as api:
        sent: list[_SentBatch] = []
        said = SaidOfAll(tags=tag or [], strict=strict)
        try:
            for part in _parts(first, files, found):
                started = _start(api, part, name=name, said=said, upload=upload, output=output)
                sent.append(started)
                started.not_sent.extend(
                    upload_files(api, started.id, files=started.to_upload, said=said)
                )
            _say_what_is_skipped(found)
            counts = [follow_batch(api, each.id, output=output) for each in sent] if wait else []
        except KeyboardInterrupt:
            if sent:
                print(f"indexing of what was sent goes on; {_follow(sent)}", file=output)
            raise typer.Exit(INTERRUPTED) from None
        except ServiceUnreachable as error:
            if not sent:
                raise
            cure = f"what was sent is safe; {_follow(sent)}"
            raise ServiceUnreachable(error.message, cure) from error
        _report(api, sent, counts, as_json=as_json)
    is_whole = all(each.succeeded == each.total for each in counts)
    if not is_whole or any(each.not_sent for each in sent):
        raise typer.Exit(1)


def collect_files(paths: Iterable[Path], *, every_file: bool) -> FoundFiles:
    """Find what to index, as walk() does, and keep it.

    Raises:
        CliError: a path does not exist, or cannot be read.
    """
    found = FoundFiles()
    found.files += _taken(paths, found, every_file=every_file, list_skipped=False)
    return found


def _taken(
    paths: Iterable[Path], found: FoundFiles, *, every_file: bool, list_skipped: bool
) -> Iterator[Path]:
    """Yield the files; count and name all else."""
    for each in walk(paths, every_file=every_file):
        match each:
            case Taken(path):
                yield path
            case Skipped(path, reason):
                found.skipped[reason] += 1
                if list_skipped:
                    print(f"skipped {as_text(str(path))}: {reason}", file=sys.stderr)
            case Broken(path, why):
                print(f"{as_text(str(path))}: {why}", file=sys.stderr)
                found.unreadable.append(NotSent(path, "not_readable", why))


def _parts(
    first: Path | None, others: Iterator[Path], found: FoundFiles
) -> Iterator[tuple[list[Path], list[NotSent]]]:
    """Yield as many files as a batch may have, and what could not be read among them."""
    files = [] if first is None else [first]
    while True:
        for path in others:
            files.append(path)
            if len(files) == MOST_ITEMS:
                break
        unreadable, found.unreadable = found.unreadable, []
        if not files and not unreadable:
            return
        yield files, unreadable
        files = []


def _start(
    api: ApiClient,
    part: tuple[list[Path], list[NotSent]],
    *,
    name: str | None,
    said: SaidOfAll,
    upload: bool,
    output: TextIO,
) -> _SentBatch:
    """Make a batch and print its id, so that whoever breaks off the uploads can find the others."""
    files, unreadable = part
    batch_id, to_upload = start_batch(api, files, name=name, upload_all=upload, said=said)
    number = f"{len(files)} file{'s' * (len(files) != 1)}"
    if to_upload:
        number += f", {len(to_upload)} of them to upload"
    broken = sum(not each.path.is_dir() for each in unreadable)
    note = f"; {broken} besides cannot be read" if broken else ""
    print(f"batch {batch_id}: {number}{note}", file=output, flush=True)
    return _SentBatch(batch_id, to_upload, unreadable)


def _report(api: ApiClient, sent: list[_SentBatch], counts: list[Counts], *, as_json: bool) -> None:
    """Report what became of the batches, or how to find out."""
    if as_json:
        found = [_as_json(api, each, is_over=bool(counts)) for each in sent]
        print_json(found[0] if len(found) == 1 else found)
    elif counts:
        for each, its_counts in zip(sent, counts, strict=True):
            print_outcome(api, each.id, its_counts, each.not_sent)
    else:
        print_not_indexed([item.as_item() for each in sent for item in each.not_sent])
        print(_follow(sent))


def _as_json(api: ApiClient, sent: _SentBatch, *, is_over: bool) -> Json:
    failed = [*failed_items(api, sent.id)] if is_over else []
    failed += [each.as_item() for each in sent.not_sent]
    return {**api.get(f"/v1/batches/{sent.id}"), "failed_items": failed}


def _list_files(files: Iterator[Path], found: FoundFiles, *, as_json: bool) -> None:
    number = 0
    listed = []
    for number, path in enumerate(files, start=1):  # noqa: B007  the last is the count
        if as_json:
            listed.append(as_text(str(path)))
        else:
            print(one_line(as_text(str(path))))
    if as_json:
        skipped = {reason.name.lower(): count for reason, count in found.skipped.items()}
        print_json({"files": listed, "skipped": skipped})
        return
    _say_what_is_skipped(found)
    print(f"{number} file{'s' * (number != 1)} would be indexed", file=sys.stderr)


def _say_what_is_skipped(found: FoundFiles) -> None:
    if not found.skipped:
        return
    counts = ", ".join(f"{count} ({reason})" for reason, count in sorted(found.skipped.items()))
    cures = ["--all takes files of any extension"] if found.num_skipped else []
    print(f"skipped: {counts}; {'; '.join([*cures, '--list-skipped names them'])}", file=sys.stderr)


def _follow(sent: list[_SentBatch]) -> str:
    if len(sent) == 1:
        return runnable(f"follow it with: clipbert batches show {sent[0].id}")
    return runnable("follow them with: clipbert batches list")
