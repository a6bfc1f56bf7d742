"""Have modules run in forks of a process that has loaded what they need; see fork_server.py."""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from clipbert.runs.fork_server import ForkRequest

_CODE: Final = Path(__file__).parents[2]
_END_SECONDS: Final = 5.0


class ForkClient:
    """Starts a server of forks when one is wanted, and again when it has ended.

    It inherits the variables of this process, unless it shall know nothing of it. What libraries
    read of them when they are loaded is as it was then; a fork has those that are asked for.

    Args:
        modules: which the server imports.
        idle_seconds: how long it stays without work.
        environment: variables of the server beside those of this process.
        inherits: whether the server has those of this process too.
    """

    def __init__(
        self,
        modules: Sequence[str],
        *,
        idle_seconds: float,
        environment: Mapping[str, str] | None = None,
        inherits: bool = True,
    ) -> None:
        self._modules, self._idle_seconds = tuple(modules), idle_seconds
        self._environment, self._inherits = dict(environment or {}), inherits
        self._lock = threading.Lock()
        self._servers: dict[int, _Server] = {}  # by niceness, which cannot be taken back
        self._leaving: list[_Server] = []
        atexit.register(self.close)

    def fork(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        folder: Path,
        log_file: Path,
        environment: Mapping[str, str],
        niceness: int,
    ) -> "Fork":
        """Ask for a module to be run, as `python -m` runs it; its server may still be loading.

        Args:
            module: or a package, whose `__main__` is run.
            arguments: of its command line.
            folder: its current folder.
            log_file: gets what it says, after what is there.
            environment: variables beside those of this process.
            niceness: how much lower than this process it runs in priority.

        Raises:
            OSError: no process can be started.
        """
        variables = {**os.environ, **environment}
        with log_file.open("ab") as log:
            return self.fork_bare(
                module,
                arguments,
                folder=folder,
                files={1: log.fileno(), 2: log.fileno()},
                environment=variables,
                niceness=niceness,
            )

    def fork_bare(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        folder: Path,
        files: Mapping[int, int],
        environment: Mapping[str, str],
        niceness: int = 0,
    ) -> "Fork":
        """Ask for a module to be run with nothing of this process but what is named.

        Args:
            module: as of `fork`, as are the arguments, the folder and the niceness.
            arguments: of its command line.
            folder: its current folder.
            files: by the numbers that it has them by, with 2 among them, the descriptors of this
                process. A server that has to be started says by 2 why it cannot be.
            environment: all of its variables.
            niceness: how much lower than this process it runs in priority.

        Raises:
            OSError: no process can be started.
        """
        request = ForkRequest(module, list(arguments), str(folder), environment, list(files))
        reader, writer = os.pipe()
        try:
            sent = [writer, *files.values()]
            server = self._send(request, sent, output=files[2], niceness=niceness)
            return Fork(server, reader)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)

    def close(self) -> None:
        """End the servers, and with them all of their forks."""
        with self._lock:
            for server in (*self._servers.values(), *self._leaving):
                server.close()
            self._servers.clear()
            self._leaving.clear()

    def _send(
        self, request: ForkRequest, files: Sequence[int], *, output: int, niceness: int
    ) -> "_Server":
        with self._lock:
            server = self._servers.get(niceness)
            if server is not None:
                with suppress(OSError):
                    server.send(request, files)
                    return server
                self._leaving.append(server)  # once its forks have ended
            self._leaving = [each for each in self._leaving if not each.has_ended()]
            server = _Server(
                self._modules,
                self._idle_seconds,
                environment=self._variables(),
                niceness=niceness,
                output=output,
            )
            self._servers[niceness] = server
            server.send(request, files)
            return server

    def _variables(self) -> dict[str, str]:
        """Return all variables of a server; it has the code that this process has."""
        variables = {**(os.environ if self._inherits else {}), **self._environment}
        path = filter(None, [str(_CODE), variables.get("PYTHONPATH")])
        return {**variables, "PYTHONPATH": os.pathsep.join(path)}


class Fork:
    """A module that runs, or will as soon as its server has loaded all."""

    def __init__(self, server: "_Server", report: int) -> None:
        self._server = server
        self._report: int | None = report
        self._pid: int | None = None
        self._status: int | None = None
        self._told = b""
        self.is_orphan = False
        """Whether it ended because its server did."""

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Wait no more; if it has not begun yet, it never will."""
        if self._report is not None:
            os.close(self._report)
            self._report = None

    @property
    def pid(self) -> int:
        """Its process id; as long as its server loads that one's: there is no other process yet."""
        return self._server.pid if self._pid is None else self._pid

    @property
    def has_begun(self) -> bool:
        """Whether it is a process of its own."""
        return self._pid is not None

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, and for its beginning.

        Returns:
            The exit status, negative for a signal; None if it runs on, or has only begun.
        """
        if self._status is not None or self._report is None:
            return self._status
        poll = select.poll()  # select takes no descriptors above 1,023
        poll.register(self._report, select.POLLIN)
        if poll.poll(seconds * 1000):
            data = os.read(self._report, 1024)
            *lines, self._told = (self._told + data).split(b"\n")
            for line in lines:
                told: dict[str, Any] = json.loads(line)
                self._pid = told.get("pid", self._pid)
                self._status = told.get("status", self._status)
            if not data and self._status is None:
                # The server is gone, and the kernel has killed what it had forked.
                self.is_orphan = True
                self._status = -signal.SIGKILL if self.has_begun else self._server.status()
        return self._status


class _Server:
    """The process, and this end of the socket."""

    def __init__(
        self,
        modules: Sequence[str],
        idle_seconds: float,
        *,
        environment: Mapping[str, str],
        niceness: int,
        output: int,
    ) -> None:
        self._connection, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = (str(other_end.fileno()), str(niceness), str(idle_seconds))
        with other_end:
            self._process = subprocess.Popen(  # noqa: S603  (our own command, no shell)
                [sys.executable, "-P", "-m", ForkRequest.__module__, *options, *modules],
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[other_end.fileno()],
                start_new_session=True,
            )
        self.pid = self._process.pid

    def send(self, request: ForkRequest, files: Sequence[int]) -> None:
        """Ask for a fork; the first of the files is where its end is told.

        Raises:
            OSError: it has ended, or takes no more requests.
        """
        socket.send_fds(self._connection, [request.to_bytes()], files)

    def status(self) -> int:
        """Return how it ended, now that it has closed what it had."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_END_SECONDS)
        return -signal.SIGKILL

    def has_ended(self) -> bool:
        """Whether it is gone; its end of the socket then goes too."""
        if self._process.poll() is None:
            return False
        self._connection.close()
        return True

    def close(self) -> None:
        """End it; the kernel kills its forks."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
