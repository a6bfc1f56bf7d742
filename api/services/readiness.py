"""What /readyz answers with: checks that run in the background, once a second.

A probe then costs next to nothing, however often it comes, and a database that hangs hangs a thread
of its own: what was seen grows old, and old news is not an answer.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from store.database import SchemaCheck
from store.disk_space import DiskWatch
from workers.dispatch import INTERACTIVE, Doorbell

log = structlog.get_logger(__name__)

_CHECK_SECONDS: Final = 1.0
_OLD_SECONDS: Final = 4.0  # after which a check no longer says anything
_FIRST_CHECK_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True)
class Seen:
    """Whether the services behind the API answered, at the last check."""

    database: bool
    schema_current: bool
    redis: bool


class ReadinessWatch:
    """Checks the services behind the API, in threads of its own.

    Args:
        database_url: where the rows are; connected to by the first check.
        doorbell: where the queues are.
        disk: is checked as well; who needs its state reads it there.
    """

    def __init__(self, database_url: str, doorbell: Doorbell, *, disk: DiskWatch) -> None:
        self._database_url, self._doorbell, self._disk = database_url, doorbell, disk
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._schema_check: SchemaCheck | None = None
        self._schema: tuple[float, bool] | None = None  # when it answered, whether it is current
        self._redis: tuple[float, bool] | None = None
        self._database_failed_at: float | None = None

    def start(self) -> None:
        """Begin to check, also after a close: what was seen before no longer counts."""
        self._closed, self._threads = threading.Event(), []
        self._schema = self._redis = self._database_failed_at = None
        for check in (self._check_database, self._check_disk, self._check_redis):
            arguments = (check, self._closed)
            thread = threading.Thread(target=self._repeat, args=arguments, daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End the checks; one that hangs is left to the end of the process."""
        self._closed.set()
        for thread in self._threads:
            thread.join(timeout=1.0)

    async def seen(self) -> Seen:
        """Return what the last checks found; waits for the first ones of a process."""
        deadline = time.monotonic() + _FIRST_CHECK_SECONDS
        while not self._has_checked() and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        now = time.monotonic()
        schema, redis, failed_at = self._schema, self._redis, self._database_failed_at
        answers = schema is not None and now - schema[0] < _OLD_SECONDS
        if schema is not None and failed_at is not None and failed_at > schema[0]:
            answers = False
        return Seen(
            database=answers,
            schema_current=answers and schema is not None and schema[1],
            redis=redis is not None and redis[1] and now - redis[0] < _OLD_SECONDS,
        )

    def _has_checked(self) -> bool:
        has_database = self._schema is not None or self._database_failed_at is not None
        return has_database and self._redis is not None

    def _repeat(self, check: Callable[[], None], closed: threading.Event) -> None:
        while not closed.is_set():
            try:
                check()
            except Exception:
                # The edge of a thread: what it did not see grows old, and it is checked again.
                log.exception("readiness.check_failed")
            closed.wait(_CHECK_SECONDS)
        if check == self._check_database and self._schema_check is not None:
            self._schema_check.close()
            self._schema_check = None

    def _check_database(self) -> None:
        try:
            if self._schema_check is None:
                self._schema_check = SchemaCheck(self._database_url)
            is_current = self._schema_check.is_current()
        except SQLAlchemyError as error:
            if self._database_failed_at is None:
                log.warning("database.unreachable", error=type(error).__name__)
            self._database_failed_at = time.monotonic()
            return
        self._database_failed_at = None
        self._schema = (time.monotonic(), is_current)

    def _check_disk(self) -> None:
        had_room = self._disk.state.has_room
        state = self._disk.check()
        if state.has_room != had_room:
            event = "storage.has_room_again" if state.has_room else "storage.read_only"
            log.warning(event, free_bytes=state.free_bytes, reason=state.reason)

    def _check_redis(self) -> None:
        answers = self._doorbell.queue_length(INTERACTIVE) is not None
        self._redis = (time.monotonic(), answers)
