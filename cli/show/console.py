"""How the command speaks: tables and text on stdout, JSON when asked, errors on stderr."""

import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, TextIO
from unicodedata import normalize
from uuid import UUID

import typer

from cli.hints import runnable
from cli.show.table import table_lines

if TYPE_CHECKING:
    from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="At most this many.")]
EveryOption = Annotated[bool, typer.Option("--all", help="List all, however many.")]

LEAST_WIDTH = 80  # an id takes half of it

STATE_STYLES = {
    "succeeded": "green",
    "ready": "green",
    "failed": "red",
    "quarantined": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "running": "cyan",
    "processing": "cyan",
    "paused": "yellow",
    "serving": "green",
    "candidate": "cyan",
    "active": "green",
    "building": "cyan",
    "started": "green",
    "skipped": "yellow",
}


def console(output: TextIO) -> "Console":
    """Return a console for what moves on a terminal; wide enough for an id."""
    from rich.console import Console

    terminal = Console(file=output, highlight=False)
    return Console(file=output, width=max(terminal.width, LEAST_WIDTH), highlight=False)


def show_every_name() -> None:
    """Write what the terminal's coding has no letters for as escapes, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Discard what is still to be written to stdout, since nobody reads it."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_same_name(one: str, other: str) -> bool:
    """Compare names as people read them: macOS writes "ü" as two letters, others as one."""
    return normalize("NFC", one) == normalize("NFC", other)


def parse_id(argument: str) -> UUID:
    """Read an id; anything else would lead to another place of the API."""
    try:
        return UUID(argument)
    except ValueError:
        raise typer.BadParameter(f"{argument!r} is not an id") from None


def print_json(value: object) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under column names; a name ending in `#` sets its column to the right."""
    width, colours = None, None
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns, LEAST_WIDTH)
        colours = None if os.environ.get("NO_COLOR") else STATE_STYLES
    print("\n".join(table_lines(columns, rows, width=width, colours=colours)))


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print name and value lines, names aligned."""
    facts = list(facts)
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        print(f"{name:<{width}}  {value}")


def print_error(message: str, cure: str | None = None) -> None:
    """Print one line on stderr, and a second with the cure."""
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}clipbert:{plain} {message}", file=sys.stderr)
    if cure:
        print(f"  {runnable(cure)}", file=sys.stderr)


def format_time(time: object) -> str:
    """Format a time of the API, in UTC: 2026-01-05 09:00:00."""
    return str(time)[:19].replace("T", " ")


def format_instant(seconds: float) -> str:
    """Format a place in a video: 0:07.5, 1:02:03.0."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:04.1f}"
    return f"{minutes}:{rest:04.1f}"


def format_span(start_seconds: float, end_seconds: float) -> str:
    """Format a moment of a video: 0:02.0-0:04.0."""
    return f"{format_instant(start_seconds)}-{format_instant(end_seconds)}"


def file_name(uri: str) -> str:
    """Return the last part of a uri or path, as people call a video."""
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(uri)
    path = unquote(parts.path) if parts.scheme else uri
    return path.rstrip("/").rsplit("/", 1)[-1] or uri
