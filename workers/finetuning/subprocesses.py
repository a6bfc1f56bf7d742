"""Subprocesses that die with this process, and with which all of their own processes die."""

import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
import structlog

import clipbert
from clipbert.runs.fork_client import ForkClient
from workers.finetuning.folder import read_json, write_text
from workers.jobs.process_files import boot_id, start_ticks

log = structlog.get_logger(__name__)

_BOUND_PROCESS: Final = Path(__file__).parents[2] / "clipbert" / "runs" / "bound_process.py"
_MAX_LOG_BYTES: Final = 10_000_000
_KILL_SECONDS: Final = 5.0
_ENDED: Final = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)

# All that a trainer and a scorer load but themselves. Kept for what comes after the training, and
# for a trainer that is started again; in between nobody pays for its memory.
_FORKS: Final = ForkClient(
    ("clipbert.training.run", "clipbert.evaluation.scoring", "matplotlib.backends.backend_agg"),
    idle_seconds=60,
    # Whether there is a GPU is asked without CUDA, which no fork could use after that.
    environment={"PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
)


class Subprocess(ABC):
    """A process at work in a group of its own."""

    pid: int

    @abstractmethod
    def wait(self, seconds: float) -> int | None:
        """Wait for its end; return the exit status, or None if it still runs then."""

    def ask_to_stop(self) -> None:
        """Ask it to save what it has and to end."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it and all its processes at once; those it left behind, if it has ended itself."""
        _kill_tree(self.pid)
        ends_at = time.monotonic() + _KILL_SECONDS
        while self.wait(_KILL_SECONDS) is None:
            if time.monotonic() > ends_at:  # it hangs in a driver; the next one looks for it
                log.warning("trainer.not_dead", pid=self.pid)
                return

    def cpu_seconds(self) -> float:
        """Sum the processor time that it and its processes have had."""
        times = [member.info["cpu_times"] for member in _family(self.pid)]
        return float(sum(each.user + each.system for each in times if each is not None))


class BoundProcess(Subprocess):
    """A command at work. Started by a thread that outlives it.

    Args:
        argv: the command.
        folder: its current folder.
        log_file: gets what it says, after what is there.
        identity: gets which process it is, so that a later worker can end it; see `end_survivor`.
        environment: variables beside those of this process.
        niceness: how much lower than this process it runs in priority.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        folder: Path,
        log_file: Path,
        identity: Path,
        environment: Mapping[str, str],
        niceness: int,
    ) -> None:
        _bound_log(log_file)
        bound = (sys.executable, "-I", "-S", str(_BOUND_PROCESS), str(os.getpid()))
        with log_file.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  (our own command, no shell)
                [*bound, str(int(signal.SIGKILL)), str(niceness), *argv],
                cwd=folder,
                # The same code as this process has, wherever it was started.
                env={**os.environ, "PYTHONPATH": _python_path(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        _write_identity(identity, self.pid)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; return the exit status, or None if it still runs then."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


class ForkedProcess(Subprocess):
    """A module at work in a process that need not load what most of its time went into.

    Args:
        module: run as `python -m` runs it.
        arguments: of its command line.
        folder: its current folder.
        log_file: gets what it says, after what is there.
        identity: gets which process it is, so that a later worker can end it; see `end_survivor`.
        environment: variables beside those of this process.
        niceness: how much lower than this process it runs in priority.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        folder: Path,
        log_file: Path,
        identity: Path,
        environment: Mapping[str, str],
        niceness: int,
    ) -> None:
        _bound_log(log_file)
        self._fork = _FORKS.fork(
            module,
            arguments,
            folder=folder,
            log_file=log_file,
            environment=environment,
            niceness=niceness,
        )
        self._identity = identity
        self.pid = self._fork.pid  # of what loads, before it has forked
        _write_identity(identity, self.pid)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, or its beginning; return the exit status, or None if it runs then."""
        status = self._fork.wait(seconds)
        if self.pid != self._fork.pid:
            self.pid = self._fork.pid
            if status is None:
                _write_identity(self._identity, self.pid)
        return status


def works_on_of(process: Subprocess) -> Callable[[], bool]:
    """Make the question whether a process has computed anything since it was asked last."""
    seconds = 0.0

    def works_on() -> bool:
        nonlocal seconds
        before, seconds = seconds, process.cpu_seconds()
        return seconds > before

    return works_on


def end_survivor(identity: Path) -> None:
    """End the process of an earlier claim, if it still runs on this machine.

    Its parent was suspended or cut off and so could not end it. It could do no harm, since the
    fence keeps it from writing weights, but it would take the device.
    """
    known = read_json(identity)
    if known is None or known.get("boot") != boot_id():
        return
    pid = int(known["pid"])
    with suppress(OSError, IndexError):
        if start_ticks(pid) == known["start"]:
            log.warning("trainer.survivor_killed", pid=pid)
            _kill_tree(pid)


def _bound_log(log_file: Path) -> None:
    with suppress(FileNotFoundError):
        if log_file.stat().st_size > _MAX_LOG_BYTES:
            log_file.unlink()


def _write_identity(identity: Path, pid: int) -> None:
    try:
        known = {"pid": pid, "start": start_ticks(pid), "boot": boot_id()}
    except (FileNotFoundError, ProcessLookupError):  # it has ended already
        return
    write_text(identity, json.dumps(known))


def _python_path() -> str:
    ours = str(Path(clipbert.__file__).parents[1])
    others = os.environ.get("PYTHONPATH")
    return f"{ours}{os.pathsep}{others}" if others else ours


def _kill_tree(pid: int) -> None:
    """Kill a process, its descendants (those of torchrun have groups of their own), its group."""
    ends_at = time.monotonic() + _KILL_SECONDS
    killed: set[psutil.Process] = set()
    # Again, for what was being forked meanwhile. What has lost its parent is no longer in the
    # family, and may still hold a device.
    while alive := {*_family(pid), *filter(_is_alive, killed)}:
        for member in alive:
            with suppress(psutil.Error):
                member.kill()
        killed |= alive
        if time.monotonic() > ends_at:
            log.error("trainer.not_killed", pid=pid)
            return
        time.sleep(0.02)


def _family(pid: int) -> list[psutil.Process]:
    """List the living among a process, its descendants, and those left in its group."""
    processes = {
        process.pid: process for process in psutil.process_iter(["ppid", "status", "cpu_times"])
    }
    by_parent: dict[int, list[int]] = {}
    for child, process in processes.items():
        by_parent.setdefault(process.info["ppid"], []).append(child)
    family: set[int] = set()
    todo = [one for one in processes if one == pid or _group_of(one) == pid]
    while todo:
        member = todo.pop()
        if member not in family:
            family.add(member)
            todo += by_parent.get(member, [])
    return [processes[one] for one in family if processes[one].info["status"] not in _ENDED]


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() not in _ENDED
    return False


def _group_of(pid: int) -> int | None:
    with suppress(OSError):  # it ended meanwhile
        return os.getpgid(pid)
    return None
