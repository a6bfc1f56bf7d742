"""Starts processes, starts them again when they die, and stops them in order.

Our own rather than honcho: honcho stops everything when one process dies, never starts one again,
and leaves them running when it is killed itself.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, cast

# Run by its path: nothing of the library is imported here.
BOUND_PROCESS = Path(__file__).parents[1] / "clipbert" / "runs" / "bound_process.py"
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 1.0, 30.0
STEADY_SECONDS = 60.0  # a process that ran this long starts again with the first backoff
LONGEST_LINE = 2**16  # characters
TERM_SECONDS, QUIT_SECONDS = 8.0, 3.0  # patience with SIGTERM, then with SIGQUIT; then SIGKILL


@dataclass(frozen=True)
class ProcessSpec:
    """One process to keep running.

    Attributes:
        name: how the log calls it.
        argv: the command; the first word is found on PATH or is absolute.
        stop_stage: processes stop stage by stage, lowest first, those of one stage together.
        first_backoff_seconds: until it starts again after it died for the first time.
        variables: its own ones, beside those of all.
        pass_fds: open files, such as a listening socket, that it inherits under their numbers.
    """

    name: str
    argv: tuple[str, ...]
    stop_stage: int = 0
    first_backoff_seconds: float = FIRST_BACKOFF_SECONDS
    variables: Mapping[str, str] = field(default_factory=dict)
    pass_fds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Exit:
    """A process ended by itself."""

    name: str
    return_code: int
    restart_in_seconds: float


class Supervisor:
    """Keeps processes running from start() to stop().

    start() and restart_dead() must be called from one thread that outlives the processes: the
    kernel's "die with your parent" means the thread that made the process.

    Args:
        specs: what to run.
        environment: all variables of every process.
        folder: their current folder.
        on_line: called with the name and the line for every line that a process prints, from
            several threads.
        scratch: where each process gets a folder of its own for temporary files, which is emptied
            before it starts again; None: where the system has them.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        environment: Mapping[str, str],
        folder: Path,
        on_line: Callable[[str, str], None],
        scratch: Path | None = None,
    ) -> None:
        self._environment, self._folder = dict(environment), folder
        self._scratch = scratch
        self._on_line = on_line
        self._children = [_Child(spec) for spec in specs]

    def start(self) -> None:
        """Start every process."""
        for child in self._children:
            self._spawn(child)

    def restart_dead(self) -> list[Exit]:
        """Note processes that ended, and start those again whose backoff is over.

        Returns:
            The exits seen for the first time by this call.
        """
        exits = []
        now = time.monotonic()
        for child in self._children:
            if child.process is None:
                if now >= child.restart_at:
                    self._spawn_again(child)
                continue
            return_code = child.process.poll()
            if return_code is None:
                continue
            if now - child.started_at > STEADY_SECONDS:
                child.backoff_seconds = child.spec.first_backoff_seconds
            exits.append(Exit(child.spec.name, return_code, child.backoff_seconds))
            child.process = None
            child.wait_longer(now)
        return exits

    def pids(self) -> dict[str, int]:
        """Return the pid of each running process by name."""
        return {
            child.spec.name: child.process.pid
            for child in self._children
            if child.process is not None and child.process.poll() is None
        }

    def stop(self, *, term_seconds: float = TERM_SECONDS) -> None:
        """Stop every process, stage by stage: SIGTERM, then SIGQUIT, then SIGKILL.

        The patience is for all stages together, so that this returns within term_seconds and a few
        seconds more. Celery reads SIGTERM as "finish what you do", SIGQUIT as "stop now".
        """
        deadline = time.monotonic() + term_seconds
        for stage in sorted({child.spec.stop_stage for child in self._children}):
            members = [child for child in self._children if child.spec.stop_stage == stage]
            for child in members:
                child.signal(signal.SIGTERM)
            if _wait_for(members, until=deadline):
                continue
            for child in members:
                child.signal(signal.SIGQUIT)
            if _wait_for(members, until=time.monotonic() + QUIT_SECONDS):
                continue
            for child in members:
                child.kill_group()
            _wait_for(members, until=time.monotonic() + 1.0)
        for child in self._children:
            if child.reader is not None:
                child.reader.join(timeout=0.5)  # its last words; a grandchild may hold the pipe

    def _spawn_again(self, child: "_Child") -> None:
        try:
            self._spawn(child)
        except OSError as error:  # no memory, no process number: there may be later
            self._on_line(child.spec.name, f"*** cannot be started: {error}\n")
            child.wait_longer(time.monotonic())

    def _spawn(self, child: "_Child") -> None:
        child.process = subprocess.Popen(  # noqa: S603  (our own command, no shell)
            [
                *(sys.executable, "-I", "-S", str(BOUND_PROCESS)),
                *(str(os.getpid()), str(int(signal.SIGTERM)), "0"),
                *child.spec.argv,
            ],
            env={**self._environment, **self._scratch_of(child), **child.spec.variables},
            pass_fds=child.spec.pass_fds,
            # Not the user's: Python and Celery import from the current folder first, and somebody's
            # own api.py would be taken for ours.
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A group of its own: Ctrl-C reaches us alone, and we stop the others in order.
            start_new_session=True,
            text=True,
            errors="replace",
        )
        child.started_at = time.monotonic()
        child.reader = threading.Thread(
            target=self._read_lines,
            args=(child.spec.name, cast(TextIO, child.process.stdout)),
            daemon=True,
        )
        child.reader.start()

    def _scratch_of(self, child: "_Child") -> dict[str, str]:
        if self._scratch is None:
            return {}
        folder = self._scratch / child.spec.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        return {"TMPDIR": str(folder)}

    def _read_lines(self, name: str, output: TextIO) -> None:
        with output:
            # A line without an end is passed on in pieces.
            while line := output.readline(LONGEST_LINE):
                self._on_line(name, line)


class _Child:
    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[str] | None = None
        self.reader: threading.Thread | None = None
        self.started_at = 0.0
        self.restart_at = 0.0
        self.backoff_seconds = spec.first_backoff_seconds

    def wait_longer(self, now: float) -> None:
        """Note that it did not stay up, and when it is tried again."""
        self.restart_at = now + self.backoff_seconds
        self.backoff_seconds = min(self.backoff_seconds * 2, LONGEST_BACKOFF_SECONDS)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.is_running():
            self.process.send_signal(number)

    def kill_group(self) -> None:
        if self.process is not None and self.is_running():
            # Its own session, so its own group: a pool's children go with it.
            os.killpg(self.process.pid, signal.SIGKILL)


def _wait_for(children: Sequence[_Child], *, until: float) -> bool:
    """Wait until none of the children runs; False when the time came first."""
    while any(child.is_running() for child in children):
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
    return True
