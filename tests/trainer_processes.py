"""Trainers as processes of their own, forked from one that has loaded what all of them need.

Each is as `python -m clipbert.training` would be. What torchrun starts is tested with finetunes.
"""

import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.warm_forks import FORKS


class TrainerProcess:
    """A trainer at work; killed when it is left."""

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        descriptor, log = tempfile.mkstemp(suffix=".log")
        os.close(descriptor)
        self._log = Path(log)
        self._fork = FORKS.fork(
            "clipbert.training",
            arguments,
            folder=Path.cwd(),
            log_file=self._log,
            environment=environment,
            niceness=0,
        )

    def __enter__(self) -> "TrainerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.wait(0) is None:
            self.send_signal(signal.SIGKILL)
            self.wait(120)
        self._log.unlink()

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; None if it has not come."""
        ends_at = time.monotonic() + seconds
        while (status := self._fork.wait(max(0.0, ends_at - time.monotonic()))) is None:
            if time.monotonic() >= ends_at:
                break
        return status

    def send_signal(self, number: int) -> None:
        """Send it one."""
        os.kill(self._fork.pid, number)

    def output(self) -> str:
        """Read what it has said."""
        return self._log.read_text()

    def wait_for(self, condition: Callable[[], object], *, seconds: float = 200.0) -> None:
        """Wait for something that it should bring about."""
        ends_at = time.monotonic() + seconds
        while not condition():
            if self.wait(0.05) is not None:
                pytest.fail(f"ended too early: {self.output()}")
            if time.monotonic() > ends_at:
                pytest.fail("waited in vain")


def start_trainer(*arguments: str) -> TrainerProcess:
    return TrainerProcess(arguments, {})


def start_ranks(number: int, *arguments: str) -> list[TrainerProcess]:
    """Start processes that train together, with the variables that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        TrainerProcess(arguments, {**together, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(number)
    ]
