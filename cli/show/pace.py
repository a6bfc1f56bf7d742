"""How long and how fast, as people say it; and a line now and then where no terminal is."""

import time
from typing import TextIO

LINE_SECONDS = 5.0  # between two lines about the same
_MINUTE, _HOUR = 60.0, 3600.0


def format_duration(seconds: float) -> str:
    """Format a span of time: 0:07, 1:20, 2:03:04."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_rate(per_second: float, unit: str = "") -> str:
    """Format a speed in numbers that people can read: 12/s, 4.1/s, 24/min, 1.5 clips/min, 6/h."""
    amount, per = per_second, "s"
    if round(per_second, 2) < 1:
        amount, per = per_second * _MINUTE, "min"
        if 0 < round(amount, 2) < 1:
            amount, per = per_second * _HOUR, "h"
    digits = 0 if amount >= 10 or round(amount, 1) == round(amount) else 1  # noqa: PLR2004
    return f"{amount:.{digits}f}{f' {unit}' if unit else ''}/{per}"


class ProgressLines:
    """Prints a line when something changes, and every few seconds while it goes on."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._said, self._said_at, self._about = "", 0.0, ""

    def show(self, line: str, *, about: str = "") -> None:
        """Print the line if it is about something else than the last, or that was a while ago."""
        now = time.monotonic()
        if self._said and about == self._about and now - self._said_at < LINE_SECONDS:
            return
        print(line, file=self._output, flush=True)
        self._said, self._said_at, self._about = line, now, about

    def end(self, line: str) -> None:
        """Print how it ended, unless that was the last thing said."""
        if line != self._said:
            print(line, file=self._output, flush=True)
            self._said = line
