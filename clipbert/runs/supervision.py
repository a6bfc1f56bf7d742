"""What ties a training process to whoever started it: a fence, a life line, files that tell.

Imports no torch: a process tells that it lives before that is loaded.

    progress.json   replaced every few seconds: stage, step, total_steps, updated_at
    error.json      why it failed: code, message
"""

import ctypes
import json
import os
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from traceback import print_exc
from types import FrameType, TracebackType
from typing import Any, Literal

from clipbert.errors import FenceLost, TrainingStopped
from clipbert.runs.contract import ERROR_FILE, RunExit
from clipbert.runs.failures import code_of
from clipbert.runs.whole_files import replace_file

Stage = Literal["starting", "reading", "training", "validating", "saving", "scoring", "done"]

_WRITE_SECONDS = 2.0
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


@dataclass(frozen=True)
class Fence:
    """A file with the number of the attempt that may write, and the number of this one.

    Attributes:
        path: of the file, a whole number in decimal.
        token: of this attempt.
    """

    path: Path
    token: int

    def check(self) -> None:
        """Raise FenceLost if the file has another number, or cannot be read."""
        try:
            found = self.path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise FenceLost(self.token, f"no fence: {error.strerror}") from error
        if found != str(self.token):
            raise FenceLost(self.token, found[:40])


class ProgressFile:
    """progress.json, replaced by a thread every two seconds and at each change of stage.

    Args:
        path: of the file; None writes nothing.
        fence: is looked at before each writing; who has lost it writes no more.
    """

    def __init__(self, path: Path | None, fence: Fence | None = None) -> None:
        self._path, self._fence = path, fence
        self._status: dict[str, Any] = {"stage": "starting", "step": 0, "total_steps": 0}
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="progress", daemon=True)

    def __enter__(self) -> "ProgressFile":
        if self._path is not None:
            self._write()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def enter(self, stage: Stage) -> None:
        """Note what is done from now on."""
        self._status = self._status | {"stage": stage}
        self._write()

    def move(self, step: int, total_steps: int) -> None:
        """Note how far it is; the thread writes it soon."""
        self._status = self._status | {"step": step, "total_steps": total_steps}

    def _keep_writing(self) -> None:
        while not self._ended.wait(_WRITE_SECONDS):
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            if self._fence is not None:
                self._fence.check()
            with self._lock:
                now = datetime.now(UTC).isoformat()
                replace_file(self._path, json.dumps(self._status | {"updated_at": now}))
        except (FenceLost, OSError):
            # Training notices by itself before it writes anything; a full disk fails it soon.
            return


class RunControl:
    """Held by a training run: asked before it writes, told how far it is.

    Args:
        fence: None: nobody else will write.
        progress: where it tells.
        is_watched: whether somebody waits to see how it goes.
    """

    def __init__(
        self,
        fence: Fence | None = None,
        progress: ProgressFile | None = None,
        *,
        is_watched: bool = False,
    ) -> None:
        self._fence, self._is_watched = fence, is_watched
        self.progress = progress or ProgressFile(None)
        self._is_wanted_to_stop = False
        self._waits = False

    def check_fence(self) -> None:
        """Raise FenceLost if another attempt may write now."""
        if self._fence is not None:
            self._fence.check()

    @property
    def is_watched(self) -> bool:
        """Whether somebody waits to see how it goes; the same in all processes of a run.

        What they do together depends on it, though only the main one writes progress.json.
        """
        return self._is_watched

    @property
    def is_wanted_to_stop(self) -> bool:
        """Whether SIGTERM came."""
        return self._is_wanted_to_stop

    def wait_for_step(self) -> None:
        """From now on SIGTERM waits for the end of a step; before, it ends the run at once.

        Raises:
            TrainingStopped: it came already.
        """
        self._waits = True
        if self._is_wanted_to_stop:
            raise TrainingStopped

    def stop_on_sigterm(self) -> None:
        """Catch SIGTERM in this process, not in those that it forks."""
        own = os.getpid()

        def stop(_number: int, _frame: FrameType | None) -> None:
            if os.getpid() != own:  # a process that loads data
                os._exit(RunExit.STOPPED)
            self._is_wanted_to_stop = True
            if not self._waits:
                raise TrainingStopped

        signal.signal(signal.SIGTERM, stop)


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the one that started it ends. Linux only.

    It is the end of the parent's thread that counts: start it from one that lives on.

    Args:
        parent: process id of whoever started it, as it was known before; None takes the parent
            that there is now.
    """
    parent = os.getppid() if parent is None else parent
    if sys.platform == "linux":
        library = ctypes.CDLL(None, use_errno=True)
        if library.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl failed")
    if os.getppid() != parent or parent == 1:  # it ended before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def add_supervision(parser: ArgumentParser) -> None:
    """Add the arguments of a supervised process to its command line."""
    parser.add_argument("--supervised", action="store_true", help="tied to its parent process")
    parser.add_argument("--fence", type=Path, help="file with the number of the attempt that holds")
    parser.add_argument("--token", type=int, default=0, help="number of this attempt")
    parser.add_argument("--memory-share", type=float, help="part of a GPU's memory to use at most")


def limit_memory(share: float | None) -> None:
    """Limit this process to a part of its GPU's memory; None sets no limit."""
    import torch  # noqa: PLC0415 (see the head of this module)

    if share is not None and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share, int(os.environ.get("LOCAL_RANK", "0")))


def write_error(folder: Path, *, code: str, message: str) -> None:
    """Write error.json; that it cannot be written is no further error.

    The first one stays: of several processes the others fail because one did.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / ERROR_FILE).exists():
            return
        replace_file(folder / ERROR_FILE, json.dumps({"code": code, "message": message}))
    except OSError:
        return


def run_supervised(
    work: Callable[[RunControl], None],
    *,
    progress_path: Path,
    error_folder: Path,
    fence: Fence | None,
    is_main: bool = True,
) -> int:
    """Do some work for a parent process, and turn what it raises into an exit status.

    Returns:
        A RunExit; after FAILED and OUT_OF_MEMORY error.json says why.
    """
    try:
        if fence is not None:
            fence.check()
        progress_path.parent.mkdir(parents=True, exist_ok=True)
        if is_main:
            (error_folder / ERROR_FILE).unlink(missing_ok=True)
        with ProgressFile(progress_path if is_main else None, fence) as progress:
            control = RunControl(fence, progress, is_watched=True)
            control.stop_on_sigterm()
            work(control)
            progress.enter("done")
    except FenceLost as error:
        sys.stderr.write(f"clipbert: {error}\n")
        return RunExit.FENCED
    except TrainingStopped as error:
        sys.stderr.write(f"clipbert: {error}\n")
        return RunExit.STOPPED
    except Exception as error:  # noqa: BLE001 (the edge of the process)
        code = code_of(error)
        write_error(error_folder, code=code, message=str(error) or type(error).__name__)
        if code == "internal_error":
            print_exc()
        sys.stderr.write(f"clipbert: {error}\n")
        return RunExit.OUT_OF_MEMORY if code == "out_of_memory" else RunExit.FAILED
    return RunExit.DONE
