"""What warm workers have loaded; imported by the process that they are forked from alone.

Here a worker's server of forks is a fork of the worker, which has loaded all of its modules.
"""

import atexit
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from clipbert.runs import fork_client, fork_server
from workers.child import lifecycle

# All but workers.app and the tasks, which read the settings when they are loaded.
for _name in (
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.worker.consumer",
    "clipbert.evaluation.scoring",
    "clipbert.training.run",
    "kombu.transport.redis",
    "matplotlib.backends.backend_agg",
    "policy.registration",
):
    importlib.import_module(_name)


class _Process:
    """As much of a subprocess.Popen as a server's holder uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if ended else None
        return self._status

    def wait(self, timeout: float = 3600.0) -> int:
        ends_at = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > ends_at:
                raise subprocess.TimeoutExpired([str(self.pid)], timeout)
            time.sleep(0.01)
        return status

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


_ColdServer = fork_client._Server


class _ForkedServer(_ColdServer):
    def __init__(
        self,
        modules: Sequence[str],
        idle_seconds: float,
        *,
        environment: Mapping[str, str],
        niceness: int,
        output: int,
    ) -> None:
        if "clipbert.training.run" not in modules:  # one that shall know nothing of the worker
            super().__init__(
                modules, idle_seconds, environment=environment, niceness=niceness, output=output
            )
            return
        self._connection, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other_end:
            if (pid := os.fork()) == 0:
                try:
                    os.environ.update(environment)
                    arguments = (str(other_end.fileno()), str(niceness), str(idle_seconds))
                    _serve(output, arguments, modules)
                finally:
                    os._exit(1)
        self._process = _Process(pid)  # type: ignore[assignment]
        self.pid = pid


def _serve(output: int, arguments: Sequence[str], modules: Sequence[str]) -> None:
    """Be what `python -m clipbert.runs.fork_server` is, with nothing of the worker's."""
    gc.freeze()  # what is closed below is never closed again by what holds it
    atexit._clear()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, wanted in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, wanted)
    kept = int(arguments[0])
    os.closerange(3, kept)
    os.closerange(kept + 1, 65536)
    sys.argv = [fork_server.__name__, *arguments, *modules]
    fork_server.main()
    os._exit(0)


class _SysWithoutModules:
    modules: Mapping[str, object] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(sys, name)


fork_client._Server = _ForkedServer  # type: ignore[misc]
# A worker refuses to start with torch. Imported it does no harm; computing with it would.
lifecycle.sys = _SysWithoutModules()  # type: ignore[assignment]
