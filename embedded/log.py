"""Where `clipbert up` writes: its terminal, or `up.log`, which only its owner reads.

Writing never fails. On a full disk lines are dropped and counted, and the count is written once
there is room: a log is not worth the service. The file is kept across starts and changed for a new
one when it is large; the last few are kept as up.log.1, up.log.2 and so on.
"""

import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_BYTES = 10 * 2**20
NUM_KEPT = 3
_RETRY_SECONDS = 60.0  # after a change of files that did not work
STDOUT, STDERR = 1, 2


def open_log(file: Path) -> int:
    """Open the log to be appended to, for its owner only.

    Raises:
        OSError: it cannot be opened, or is a link.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(file, flags, 0o600)
    os.fchmod(descriptor, 0o600)  # one of an earlier version could be read by all
    return descriptor


class UnfailingOutput(io.TextIOBase):
    """What stands in for sys.stdout and sys.stderr; safe to write to from several threads.

    Args:
        descriptor: where to write.
        file: the log that the descriptor is, to be changed when it is large; None: never.
        max_bytes: how large it may become.
        num_kept: how many old ones stay.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        file: Path | None = None,
        max_bytes: int = MAX_BYTES,
        num_kept: int = NUM_KEPT,
    ) -> None:
        super().__init__()
        self.num_dropped = 0
        self._descriptor, self._file = descriptor, file
        self._max_bytes, self._num_kept = max_bytes, num_kept
        self._lock = threading.Lock()
        self._reason = ""
        self._next_change = 0.0

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            self._change_file_if_large()
            if self.num_dropped:
                note = f"\n*** {self.num_dropped} lines could not be written: {self._reason}\n"
                if self._wrote(note):
                    self.num_dropped = 0
            if self.num_dropped or not self._wrote(text):
                self.num_dropped += text.count("\n") or 1
        return len(text)

    def _wrote(self, text: str) -> bool:
        waiting = memoryview(text.encode("utf-8", errors="replace"))
        try:
            while waiting:
                waiting = waiting[os.write(self._descriptor, waiting) :]
        except OSError as error:  # a full disk, a reader that is gone
            self._reason = error.strerror or repr(error)
            return False
        return True

    def _change_file_if_large(self) -> None:
        if self._file is None or time.monotonic() < self._next_change:
            return
        try:
            if os.fstat(self._descriptor).st_size >= self._max_bytes:
                change_log(self._file, num_kept=self._num_kept)
        except OSError:
            self._next_change = time.monotonic() + _RETRY_SECONDS


def change_log(file: Path, *, num_kept: int = NUM_KEPT) -> None:
    """Begin a new log, which everything that this process prints goes to from now on.

    Raises:
        OSError: there is no new one, and all stays as it was.
    """
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = open_log(fresh)
    try:
        for number in range(num_kept, 1, -1):
            older = file.with_name(f"{file.name}.{number - 1}")
            if older.exists():
                older.replace(file.with_name(f"{file.name}.{number}"))
        if num_kept and file.exists():
            file.replace(file.with_name(f"{file.name}.1"))
        fresh.replace(file)
        for standard in (STDOUT, STDERR):
            os.dup2(descriptor, standard)
    finally:
        os.close(descriptor)


@contextmanager
def unfailing_output(log_file: Path | None) -> Iterator[None]:
    """Keep what is printed while the block runs from ending the process.

    Args:
        log_file: the log that stdout and stderr are; None if they are something else.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        stream.flush()
    sys.stdout = UnfailingOutput(STDOUT, file=log_file)
    sys.stderr = UnfailingOutput(STDERR)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
