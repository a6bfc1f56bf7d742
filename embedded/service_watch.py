"""Keeps the embedded PostgreSQL and Redis running for as long as `clipbert up` runs.

On a full disk too: it gives up the room that was kept back for them, lets Redis do without its
file, and starts again what ended, sooner once there is room again.
"""

import threading
import time
from typing import TYPE_CHECKING, Final

from embedded.disk_reserve import DiskReserve
from embedded.process_log import ProcessLog
from store.disk_space import DiskState, DiskWatch

if TYPE_CHECKING:
    from embedded.servers import EmbeddedServices

LOOK_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0  # between attempts to start what does not come up
_CLOSE_SECONDS: Final = 5.0


class ServiceWatch:
    """Starts embedded servers again that died; the processes that use them find them back.

    Args:
        embedded: the servers; None if all are somebody else's.
        log: is told what died and whether it came up again, and when a disk becomes full.
        disk: the disks that the service writes to.
        reserve: room kept back for the servers.
    """

    def __init__(
        self,
        embedded: "EmbeddedServices | None",
        log: ProcessLog,
        *,
        disk: DiskWatch,
        reserve: DiskReserve | None,
    ) -> None:
        self._embedded, self._log, self._disk, self._reserve = embedded, log, disk, reserve
        self._had_room = True
        self._queues_are_kept = True
        self._pause_seconds = LOOK_SECONDS
        self._next_start = 0.0
        self._closed = threading.Event()
        # In a thread of its own: a server takes a minute to say that it does not start, and the
        # other processes should not wait for that.
        self._thread = threading.Thread(target=self._watch, daemon=True, name="services")

    def start(self) -> None:
        """Begin to look, once a second."""
        self._thread.start()

    def close(self) -> None:
        """Stop checking; what is being started is waited for a while."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_CLOSE_SECONDS)

    def check(self) -> None:
        """Check the disks and the servers once."""
        state = self._disk.check()
        if state.has_room != self._had_room:
            self._had_room = state.has_room
            self._next_start, self._pause_seconds = 0.0, LOOK_SECONDS
            self._say(state)
        if self._embedded is None:
            return
        self._use_reserve(state)
        if self._queues_are_kept != state.has_room and self._embedded.keep_queues_on_disk(
            state.has_room
        ):
            self._queues_are_kept = state.has_room
        if time.monotonic() >= self._next_start:
            self._start_dead(self._embedded)

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            try:
                self.check()
            except Exception as error:  # noqa: BLE001  the edge of a thread that must go on
                self._log.write("up", f"*** cannot look after the services: {error!r}")

    def _use_reserve(self, state: DiskState) -> None:
        if self._reserve is None:
            return
        if state.has_room:
            if state.spare_bytes is None or state.spare_bytes > self._reserve.size_bytes:
                self._reserve.hold()
        elif state.free_bytes is not None and state.free_bytes < self._reserve.size_bytes:
            self._reserve.release()

    def _start_dead(self, embedded: "EmbeddedServices") -> None:
        has_failed = False
        for restart in embedded.restart_dead():
            if restart.name == "Redis":
                self._queues_are_kept = True  # as its settings have it
            if restart.error is None:
                self._log.write("up", f"*** {restart.name} had died; it runs again")
            else:
                has_failed = True
                self._log.write("up", f"*** {restart.name} died: {restart.error}")
        longer = min(self._pause_seconds * 2, LONGEST_PAUSE_SECONDS)
        self._pause_seconds = longer if has_failed else LOOK_SECONDS
        self._next_start = time.monotonic() + (self._pause_seconds if has_failed else 0.0)

    def _say(self, state: DiskState) -> None:
        if state.has_room:
            self._log.write("up", "*** there is room again: new things are taken in")
        else:
            self._log.write(
                "up",
                f"*** nothing new is taken in while the disk is full: {state.reason}; it goes on "
                "by itself when there is room",
            )
