"""What became of the items of a batch: counted, followed until all are done, the failed listed."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cli.hints import runnable
from cli.show.console import console, file_name, print_table
from cli.show.pace import ProgressLines, format_duration, format_rate
from cli.show.table import one_line
from clipbert_client.client import ApiClient, Json
from clipbert_client.errors import ApiProblem, ServiceUnreachable, may_come_back

if TYPE_CHECKING:
    from rich.progress import Progress

FAILED_STATES = ("failed", "quarantined", "cancelled")  # in the order of their listing
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.3, 2.0
PATIENCE_SECONDS = 60.0  # with a service that does not answer: `clipbert up` may be starting again
MOST_FAILURES_SHOWN = 50


@dataclass(frozen=True)
class Counts:
    """How far a batch is."""

    total: int
    succeeded: int
    known: int  # of those that succeeded: content that was in the library already
    failed: int  # and quarantined
    cancelled: int

    @property
    def done(self) -> int:
        """Items that will not change again."""
        return self.succeeded + self.failed + self.cancelled


@dataclass(frozen=True)
class NotSent:
    """A file or folder of this machine that the service never heard of, and why."""

    path: Path
    code: str
    message: str

    def as_item(self) -> Json:
        """Return it in the form of a failed item of the API."""
        error = {"code": self.code, "message": self.message}
        return {"uri": self.path.as_uri(), "state": "failed", "error": error}


def count_items(batch: Json) -> Counts:
    """Read the counts by state of a batch resource."""
    counts: dict[str, Any] = batch["counts"]
    return Counts(
        total=int(batch["total"]),
        succeeded=int(counts["succeeded"]),
        known=int(batch["duplicates"]),
        failed=int(counts["failed"]) + int(counts["quarantined"]),
        cancelled=int(counts["cancelled"]),
    )


def follow_batch(
    api: ApiClient, batch_id: str, *, visible: bool = True, output: TextIO | None = None
) -> Counts:
    """Poll a batch until every item is done; a bar on a terminal, a line now and then elsewhere.

    Args:
        api: the service.
        batch_id: the batch.
        visible: whether progress is shown.
        output: where; by default on stdout.

    Raises:
        ServiceUnreachable: the service has not answered for a minute.
    """
    started_at = answered_at = time.monotonic()
    with _shown((output or sys.stdout) if visible else None) as show:
        while True:
            now = time.monotonic()
            waited = now - started_at
            try:
                counts = count_items(api.get(f"/v1/batches/{batch_id}"))
            except (ServiceUnreachable, ApiProblem) as error:
                if not may_come_back(error) or now - answered_at > PATIENCE_SECONDS:
                    raise
                show(None, waited)
            else:
                answered_at = now
                show(counts, waited)
                if counts.done >= counts.total:
                    return counts
            # A batch that takes hours need not be asked for three times a second.
            time.sleep(min(LONGEST_POLL_SECONDS, max(FIRST_POLL_SECONDS, waited / 100)))


def describe_progress(counts: Counts, waited_seconds: float) -> str:
    """Describe in one line how far a batch is.

    "indexing 120/3000, 2 failed, 4.1/s, 11:42 left"
    """
    parts = [f"indexing {counts.done}/{counts.total}"]
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    if counts.done and counts.done < counts.total and waited_seconds > 0:
        rate = counts.done / waited_seconds
        parts.append(format_rate(rate))
        parts.append(f"{format_duration((counts.total - counts.done) / rate)} left")
    elif counts.done < counts.total:
        parts.append(f"{format_duration(waited_seconds)} so far")
    return ", ".join(parts)


def failed_items(api: ApiClient, batch_id: str) -> Iterator[Json]:
    """Yield every item of a batch that ended without success."""
    for state in FAILED_STATES:
        yield from api.items(f"/v1/batches/{batch_id}/items", limit=None, state=state)


def partial_items(api: ApiClient, batch_id: str) -> Iterator[Json]:
    """Yield every item of a batch whose video is read in part only."""
    found = api.items(f"/v1/batches/{batch_id}/items", limit=None, is_partial="true")
    # A service of an older version knows no such filter.
    yield from (item for item in found if item.get("is_partial"))


def print_outcome(
    api: ApiClient, batch_id: str, counts: Counts, not_sent: Sequence[NotSent] = ()
) -> None:
    """Print how many items were indexed, and a table of those that were not."""
    known = f" ({counts.known} of them known already)" if counts.known else ""
    parts = [f"{counts.succeeded} indexed{known}", f"{counts.failed} failed"]
    if counts.cancelled:
        parts.append(f"{counts.cancelled} cancelled")
    if not_sent:
        parts.append(f"{len(not_sent)} not sent")
    print(", ".join(parts))
    if counts.succeeded:
        print_partial(api, batch_id)
    print_failures(api, batch_id, counts=counts, not_sent=not_sent)


def print_partial(api: ApiClient, batch_id: str) -> None:
    """Name the files that are damaged or cut off, so that a part of each cannot be found."""
    found = list(islice(partial_items(api, batch_id), MOST_FAILURES_SHOWN + 1))
    if not found:
        return
    names = [one_line(file_name(str(item.get("uri") or ""))) for item in found]
    more = " and more" if len(names) > MOST_FAILURES_SHOWN else ""
    print(
        f"indexed in part only, since they are damaged or cut off: "
        f"{', '.join(names[:MOST_FAILURES_SHOWN])}{more}; "
        + runnable("what is missing: clipbert videos show NAME")
    )


def print_failures(
    api: ApiClient, batch_id: str, *, counts: Counts, not_sent: Sequence[NotSent] = ()
) -> None:
    """Print a table of what was not sent and of the items that failed; of many, the first."""
    num_failed = counts.failed + counts.cancelled
    shown = list(islice(failed_items(api, batch_id), MOST_FAILURES_SHOWN)) if num_failed else []
    print_not_indexed([*(each.as_item() for each in not_sent), *shown])
    if num_failed > len(shown):
        print(
            f"... and {num_failed - len(shown)} more; all of them: "
            f"clipbert batches show {batch_id} --json"
        )


def print_not_indexed(items: Sequence[Json]) -> None:
    """Print a row for each failed item; nothing if there is none."""
    if items:
        print_table(["file", "code", "why"], [_failure_row(item) for item in items])


def _failure_row(item: Json) -> tuple[str, ...]:
    error = item.get("error") or {}
    return (
        file_name(str(item.get("uri") or "")),
        str(error.get("code") or item["state"]),
        str(error.get("message") or ""),
    )


Show = Callable[[Counts | None, float], None]


@contextmanager
def _shown(output: TextIO | None) -> Iterator[Show]:
    """Return a function to call with each answer (None: there was none) and the seconds waited."""
    if output is None:
        yield lambda _counts, _waited_seconds: None
    elif output.isatty():
        with _progress_bar(output) as bar:
            yield _on_bar(bar)
    else:
        yield _in_lines(output)


def _on_bar(bar: "Progress") -> Show:
    task = bar.add_task("indexing", total=None, failed=0, rate="", note="")

    def show(counts: Counts | None, waited_seconds: float) -> None:
        if counts is None:
            bar.update(task, note="no answer, asking again")
            return
        rate = format_rate(counts.done / max(waited_seconds, 0.001)) if counts.done else ""
        bar.update(
            task,
            total=counts.total,
            completed=counts.done,
            failed=counts.failed,
            rate=rate,
            note="",
        )

    return show


def _in_lines(output: TextIO) -> Show:
    lines = ProgressLines(output)

    def show(counts: Counts | None, waited_seconds: float) -> None:
        if counts is None:
            so_far = format_duration(waited_seconds)
            lines.show(f"no answer, asking again, {so_far} so far", about="away")
        elif counts.done >= counts.total:
            lines.end(describe_progress(counts, waited_seconds))
        else:
            lines.show(describe_progress(counts, waited_seconds))

    return show


def _progress_bar(output: TextIO) -> "Progress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("indexing"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[failed]} failed[/red]"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[yellow]{task.fields[note]}[/yellow]"),
        console=console(output),
    )
