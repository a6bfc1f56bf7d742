"""A process that has loaded what its forks need, so that none of them has to.

    python -P -m clipbert.runs.fork_server SOCKET NICENESS IDLE_SECONDS MODULE...

To load torch and transformers costs ten seconds of a core, more than a small finetune itself, and
to load a decoder ten times what it costs to probe a short clip. This process imports the modules
once; for each request that comes by the socket it forks, and the fork runs a module as `python -m`
would, in a session of its own, killed when this process ends. This process ends when the other end
of the socket is closed (its holder may have died), or when nothing was wanted for IDLE_SECONDS.

What is imported must neither compute nor touch a GPU: threads and a CUDA context do not survive a
fork. See fork_client.py for the other end.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from clipbert.runs.supervision import die_with_parent

MAX_REQUEST_BYTES = 1 << 18
"""Of one message; the kernel takes no larger ones by default."""
MAX_FILES = 16
"""That come with a message."""


@dataclass(frozen=True)
class ForkRequest:
    """What a fork shall do.

    Attributes:
        module: run as `python -m` runs it.
        arguments: of its command line.
        folder: its current folder.
        environment: all of its variables.
        descriptors: the numbers that it has the files by which are sent with this; it has no
            others, and nothing to read from.
    """

    module: str
    arguments: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    descriptors: Sequence[int]

    def to_bytes(self) -> bytes:
        """Return the message."""
        return json.dumps(asdict(self)).encode()


def main() -> None:
    """Serve; in a fork, run what was asked for."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    os.nice(int(sys.argv[2]))
    idle_seconds, modules = float(sys.argv[3]), sys.argv[4:]
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # a collection in a fork would touch, and so copy, all pages
    request = _serve(connection, idle_seconds)
    if request is not None:
        _run(request)


def _run(request: ForkRequest) -> NoReturn:
    """Run a module and end, without taking apart all that was loaded, which costs a second."""
    sys.argv = [request.module, *request.arguments]
    status = 0
    try:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = _status_of(end)
    except BaseException:  # noqa: BLE001  (the edge of the process)
        traceback.print_exc()
        status = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _status_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    sys.stderr.write(f"{end.code}\n")
    return 1


def _serve(connection: socket.socket, idle_seconds: float) -> ForkRequest | None:
    """Fork for each request; return it in the fork, and None in this process when it is over."""
    server = os.getpid()
    reports: dict[int, int] = {}  # process id -> where its end is told
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select(None if reports else idle_seconds)]
            if woken in ready:
                os.read(woken, 1024)
                _tell_ends(reports)
                continue
            if not ready:
                # Who asks from now on is refused, and starts another server.
                connection.shutdown(socket.SHUT_RD)
            if (received := _receive(connection)) is None:
                return None
            request, files, report = received
            pid = None if _is_abandoned(report) else os.fork()
            if pid == 0:
                break
            for file in files:
                os.close(file)
            if pid is None:
                os.close(report)
            else:
                reports[pid] = report
                _tell(report, pid=pid)
    # The fork has nothing of what this process does; whoever waits for reports sees them end.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.close()
    for descriptor in (woken, wakes, report, *reports.values()):
        os.close(descriptor)
    _become(request, files, server=server)
    return request


def _receive(connection: socket.socket) -> tuple[ForkRequest, list[int], int] | None:
    """Take a request; None when there is none, or nobody any more who would look after its fork."""
    poll = select.poll()
    poll.register(connection, 0)
    if poll.poll(0):  # the other end is closed, whatever was sent before
        return None
    data, descriptors, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, MAX_FILES)
    if not data:
        return None
    report, *files = descriptors
    return ForkRequest(**json.loads(data)), files, report


def _is_abandoned(report: int) -> bool:
    """Whether nobody waits any more for what was asked for, perhaps while this was loading."""
    poll = select.poll()
    poll.register(report, 0)
    return bool(poll.poll(0))


def _become(request: ForkRequest, files: Sequence[int], *, server: int) -> None:
    os.setsid()
    die_with_parent(server)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # Out of the way first: one may have the number that another one is to get.
    aside = [fcntl.fcntl(file, fcntl.F_DUPFD, max(request.descriptors) + 1) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(aside, request.descriptors, strict=True):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)


def _tell_ends(reports: dict[int, int]) -> None:
    for pid in list(reports):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            report = reports.pop(pid)
            _tell(report, status=os.waitstatus_to_exitcode(status))
            os.close(report)


def _tell(report: int, **what: int) -> None:
    with suppress(BrokenPipeError):
        os.write(report, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
