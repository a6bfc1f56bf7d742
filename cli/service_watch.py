"""Keeps the embedded PostgreSQL and Redis running for as long as `clipbert up` runs."""

import time
from typing import TYPE_CHECKING

from cli.process_log import ProcessLog

if TYPE_CHECKING:
    from store.embedded import EmbeddedServices

LOOK_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0  # between attempts to start what does not come up


class ServiceWatch:
    """Starts embedded servers again that died; the processes that use them find them back.

    Args:
        embedded: the servers; None if all are somebody else's.
        log: is told what died and whether it came up again.
    """

    def __init__(self, embedded: "EmbeddedServices | None", log: ProcessLog) -> None:
        self._embedded, self._log = embedded, log
        self._pause_seconds = LOOK_SECONDS
        self._next_look = 0.0

    def look(self) -> None:
        """Look whether a server died, unless it was looked a moment ago."""
        if self._embedded is None or time.monotonic() < self._next_look:
            return
        has_failed = False
        for restart in self._embedded.restart_dead():
            if restart.error is None:
                self._log.write("up", f"*** {restart.name} had died; it runs again")
            else:
                has_failed = True
                self._log.write("up", f"*** {restart.name} died: {restart.error}")
        longer = min(self._pause_seconds * 2, LONGEST_PAUSE_SECONDS)
        self._pause_seconds = longer if has_failed else LOOK_SECONDS
        self._next_look = time.monotonic() + self._pause_seconds
