"""One tidy log of several processes: aligned coloured names, JSON lines made readable.

12:03:44 embed   job.succeeded  job_id=0198… clips=8 seconds=3.2

A line that is not JSON passes as it is.
"""

import json
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import TextIO

_NAME_COLOURS = (36, 33, 35, 32, 34, 96, 93)  # ANSI foregrounds, all readable on dark and on light
_LEVEL_COLOURS = {"warning": 33, "error": 31, "critical": 31}
_HIDDEN_FIELDS = frozenset({"event", "level", "timestamp", "logger", "exception"})


@dataclass(frozen=True)
class Line:
    """One line of a process, as it is shown."""

    text: str
    level: str
    time: str  # of the day, in this machine's zone
    event: str | None = None  # the name of what happened; None for text that is not a record
    is_routine: bool = False  # an answered request, of which there are many


class ProcessLog:
    """Writes the lines of named processes to one stream; safe to call from several threads.

    Args:
        names: of the processes.
        with_routine: also show each request that was answered without an error.
        stream: where to; None is stdout.

    Attributes:
        num_dropped: lines that could not be written. None of them ends anything.
    """

    def __init__(
        self, names: list[str], *, with_routine: bool = False, stream: TextIO | None = None
    ) -> None:
        self.num_dropped = 0
        self._stream = stream or sys.stdout
        self._with_routine = with_routine
        self._width = max(map(len, names), default=0)
        self._colours = {
            name: _NAME_COLOURS[i % len(_NAME_COLOURS)] for i, name in enumerate(names)
        }
        self._in_colour = self._stream.isatty()
        self._lock = threading.Lock()

    def write(self, name: str, line: str) -> Line:
        """Write one line that a process printed, and return how it was read."""
        shown = read_line(line)
        if not shown.text or (shown.is_routine and not self._with_routine):
            return shown
        prefix = self._paint(f"{name:<{self._width}}", self._colours.get(name, 37))
        text = self._paint(shown.text, _LEVEL_COLOURS.get(shown.level))
        self.say(f"{shown.time} {prefix}  {text}")
        return shown

    def say(self, text: str) -> None:
        """Write text of our own, as it is."""
        with self._lock:
            try:
                self._stream.write(f"{text}\n")
                self._stream.flush()
            except (OSError, ValueError):  # a full disk, a reader that is gone, a closed stream
                self.num_dropped += 1

    def _paint(self, text: str, colour: int | None) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._in_colour and colour else text


def read_line(line: str) -> Line:
    """Read one line that a process printed: a JSON record, or any text."""
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    line = line.rstrip()
    try:
        record = json.loads(line) if line.startswith("{") else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or "event" not in record:
        return Line(line, "info", now)
    text = "  ".join(part for part in (str(record["event"]), _render_fields(record)) if part)
    if record.get("exception"):
        text = f"{text}\n{record['exception']}"
    status = record.get("status")
    return Line(
        text,
        level=str(record.get("level", "info")).lower(),
        time=_time_of(record) or now,
        event=str(record["event"]),
        is_routine=record["event"] == "request.answered"
        and isinstance(status, int)
        and status < HTTPStatus.BAD_REQUEST,
    )


def _render_fields(record: Mapping[str, object]) -> str:
    return " ".join(
        f"{key}={_render_value(value)}"
        for key, value in record.items()
        if key not in _HIDDEN_FIELDS and value is not None
    )


def _render_value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"  # noqa: PLR2004
    if isinstance(value, str):
        return json.dumps(value) if " " in value or not value else value
    return json.dumps(value, default=str)


def _time_of(record: Mapping[str, object]) -> str | None:
    try:
        moment = datetime.fromisoformat(str(record["timestamp"]))
    except (KeyError, ValueError):
        return None
    return moment.astimezone().strftime("%H:%M:%S")
