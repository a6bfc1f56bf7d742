"""Worker processes that start warm (tests/warm_forks.py).

Each is as `python -m celery` would be, in a session of its own, and is killed with this process. A
server of forks that such a worker starts is itself a fork of the worker.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.warm_forks import FORKS

_LOAD_SECONDS = 120


class WarmProcess:
    """As much of a subprocess.Popen as the tests use of one of Celery."""

    def __init__(
        self, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]
    ) -> None:
        self.returncode: int | None = None
        self._fork = FORKS.fork(
            "tests.workers.warm_celery",
            arguments,
            folder=Path(__file__).parents[2],
            log_file=log,
            environment=environment,
            niceness=0,
        )
        ends_at = time.monotonic() + _LOAD_SECONDS
        while not self._fork.has_begun:
            if self.poll(seconds=1.0) is not None or time.monotonic() > ends_at:
                raise AssertionError(f"no process came: {log.read_text()}")
        self.pid = self._fork.pid

    def poll(self, *, seconds: float = 0.0) -> int | None:
        if self.returncode is None:
            self.returncode = self._fork.wait(seconds)
        return self.returncode

    def wait(self, timeout: float = 3600.0) -> int:
        ends_at = time.monotonic() + timeout
        while (status := self.poll(seconds=max(0.0, ends_at - time.monotonic()))) is None:
            if time.monotonic() >= ends_at:
                raise subprocess.TimeoutExpired([str(self.pid)], timeout)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)
