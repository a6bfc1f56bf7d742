"""One tidy log of several processes: aligned coloured names, JSON lines made readable.

12:03:44 embed   job.succeeded  job_id=0198… clips=8 seconds=3.2

A line that is not JSON passes as it is.
"""

import json
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import TextIO

_NAME_COLOURS = (36, 33, 35, 32, 34, 96, 93)  # ANSI foregrounds, all readable on dark and on light
_LEVEL_COLOURS = {"warning": 33, "error": 31, "critical": 31}
_HIDDEN_FIELDS = frozenset({"event", "level", "timestamp", "logger", "exception"})


class ProcessLog:
    """Writes the lines of named processes to one stream; safe to call from several threads."""

    def __init__(self, names: list[str], *, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._width = max(map(len, names), default=0)
        self._colours = {
            name: _NAME_COLOURS[i % len(_NAME_COLOURS)] for i, name in enumerate(names)
        }
        self._in_colour = self._stream.isatty()
        self._lock = threading.Lock()

    def write(self, name: str, line: str) -> None:
        """Write one line that a process printed."""
        text, level, time = render_line(line)
        if not text:
            return
        prefix = self._paint(f"{name:<{self._width}}", self._colours.get(name, 37))
        text = self._paint(text, _LEVEL_COLOURS.get(level))
        with self._lock:
            self._stream.write(f"{time} {prefix}  {text}\n")
            self._stream.flush()

    def say(self, text: str) -> None:
        """Write text of our own, as it is."""
        with self._lock:
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def _paint(self, text: str, colour: int | None) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._in_colour and colour else text


def render_line(line: str) -> tuple[str, str, str]:
    """Turn one line of a process into (text, level, time of day); other text passes as it is."""
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    line = line.rstrip()
    if not line.startswith("{"):
        return line, "info", now
    try:
        record = json.loads(line)
    except ValueError:
        return line, "info", now
    if not isinstance(record, dict) or "event" not in record:
        return line, "info", now
    text = "  ".join(part for part in (str(record["event"]), _render_fields(record)) if part)
    if record.get("exception"):
        text = f"{text}\n{record['exception']}"
    return text, str(record.get("level", "info")).lower(), _time_of(record) or now


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
