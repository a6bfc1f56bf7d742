"""The PostgreSQL and Redis that `clipbert up` starts in a data folder.

    <data>/services/lock          held while services are started or stopped
                    state.json    passwords, Redis's port, who started them (mode 0600)
                    postgres/ redis/     the servers' own folders (mode 0700)

The servers outlive whoever started them, if that one was killed: the next start finds them, and,
as nobody else will, stops them when it is done.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from embedded.account import ServiceAccount, choose_account
from embedded.errors import EmbeddedServicesError
from embedded.postgres import EmbeddedPostgres
from embedded.private_file import write_private
from embedded.process import identity_of
from embedded.redis import EmbeddedRedis, free_port

START_ATTEMPTS = 5  # another program may take Redis's port between the look and the start


@dataclass(frozen=True)
class _State:
    postgres_password: str
    redis_password: str
    redis_port: int | None = None
    owner_pid: int | None = None
    owner_identity: str | None = None

    def owner_lives(self) -> bool:
        if self.owner_pid is None:
            return False
        return identity_of(self.owner_pid) == self.owner_identity


@dataclass(frozen=True)
class Restart:
    """A server that had died.

    Attributes:
        name: PostgreSQL or Redis.
        error: why it does not come up again; None if it did.
    """

    name: str
    error: EmbeddedServicesError | None


class EmbeddedServices:
    """The servers of one data folder, as one process sees them.

        with EmbeddedServices.start(Path(".clipbert")) as services:
            upgrade_schema(services.database_url)

    Attributes:
        data_folder: absolute.
        started_here: whether this object started something, and so `stop` stops it.
    """

    def __init__(self, data_folder: Path, *, postgres: bool, redis: bool) -> None:
        self.data_folder = data_folder
        self.started_here = False
        self._wants_postgres, self._wants_redis = postgres, redis
        self._database_url: str | None = None
        self._redis_url: str | None = None
        self._postgres: EmbeddedPostgres | None = None
        self._sockets: Path | None = None
        self._redis: EmbeddedRedis | None = None
        # What `stop` stops: started by this object, or left running by a process that was killed.
        self._own_postgres: EmbeddedPostgres | None = None
        self._own_redis: EmbeddedRedis | None = None

    @classmethod
    def start(cls, data_folder: Path) -> Self:
        """Start PostgreSQL and Redis, or find them running.

        Two processes may do so at once: one starts, the other waits and finds.

        Args:
            data_folder: made if it is not there; any length.

        Raises:
            EmbeddedServicesError: a server does not come up.
        """
        return cls(_made(data_folder), postgres=True, redis=True)._start()

    @classmethod
    def start_postgres_only(cls, data_folder: Path) -> Self:
        """Start PostgreSQL alone, for who has a Redis already; otherwise as `start`."""
        return cls(_made(data_folder), postgres=True, redis=False)._start()

    @classmethod
    def start_redis_only(cls, data_folder: Path) -> Self:
        """Start Redis alone, for who has a PostgreSQL already; otherwise as `start`."""
        return cls(_made(data_folder), postgres=False, redis=True)._start()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL, with the password in it."""
        if self._database_url is None:
            raise EmbeddedServicesError("the embedded PostgreSQL was not started")
        return self._database_url

    @property
    def redis_url(self) -> str:
        """The URL for redis-py and for Celery, with the password in it."""
        if self._redis_url is None:
            raise EmbeddedServicesError("the embedded Redis was not started")
        return self._redis_url

    def restart_dead(self) -> list[Restart]:
        """Start again what has died, at the same addresses: whoever uses them need not be told.

        Returns:
            What was dead, and why it still is if it does not come up.
        """
        if not (self.data_folder / "services").exists() or not any(self._dead()):
            return []
        restarts = []
        with self._locked():
            for server in self._dead():
                try:
                    self._restart(server)
                except EmbeddedServicesError as error:
                    restarts.append(Restart(server.name, error))
                except OSError as error:  # such as a disk that is full
                    reason = EmbeddedServicesError(f"{server.name} did not start: {error}")
                    restarts.append(Restart(server.name, reason))
                else:
                    restarts.append(Restart(server.name, None))
        return restarts

    @property
    def folder(self) -> Path:
        """Where the servers' files lie; beside the data folder if their user cannot reach it."""
        return choose_account(self.data_folder).folder

    def keep_queues_on_disk(self, keeps: bool) -> bool:
        """Make Redis write its file, or do without for a while.

        A Redis that cannot write its file refuses every message, and the workers with it. What it
        holds are rings only, so that a full disk is better outlived without the file.

        Returns:
            Whether Redis does so now; true if there is none of ours.
        """
        return self._redis is None or self._redis.keep_on_disk(keeps)

    def stop(self) -> None:
        """Stop what this object started, and nothing else; a second call does nothing.

        Raises:
            EmbeddedServicesError: a server does not stop.
        """
        if not self.started_here:
            return
        if not (self.data_folder / "services").exists():
            # Somebody removed the files below us. PostgreSQL ends by itself when it sees that.
            self._stop_own()
            return
        with self._locked():
            self._stop_own()
            state = self._read_state()
            if state.owner_pid == os.getpid():
                self._write_state(replace(state, owner_pid=None, owner_identity=None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self) -> Self:
        with self._locked():
            try:
                self._start_wanted()
            except BaseException:
                # One without the other is of no use, and nobody else would stop it.
                with suppress(EmbeddedServicesError):
                    self._stop_own()
                raise
        return self

    def _start_wanted(self) -> None:
        state, account = self._read_state(), choose_account(self.data_folder)
        # What a killed process left running is ours to stop.
        is_orphan = not state.owner_lives()
        if self._wants_postgres:
            postgres = EmbeddedPostgres(account, state.postgres_password)
            if is_orphan or not postgres.is_running():
                self._own_postgres = postgres
            postgres.start()
            self._database_url = postgres.url()
            self._postgres, self._sockets = postgres, postgres.socket_folder()
        if self._wants_redis:
            state = self._start_redis(state, account, is_orphan=is_orphan)
        self.started_here = self._own_postgres is not None or self._own_redis is not None
        if is_orphan:
            pid = os.getpid()
            state = replace(state, owner_pid=pid, owner_identity=identity_of(pid))
            self._write_state(state)

    def _dead(self) -> Iterator[EmbeddedPostgres | EmbeddedRedis]:
        for server in (self._redis, self._postgres):
            if server is not None and not server.is_running():
                yield server

    def _restart(self, server: EmbeddedPostgres | EmbeddedRedis) -> None:
        if isinstance(server, EmbeddedPostgres):
            self._own_postgres = server
            server.start(sockets_in=self._sockets)
        else:
            self._own_redis = server
            server.start()
        self.started_here = True

    def _stop_own(self) -> None:
        if self._own_redis is not None:
            self._own_redis.stop()
        if self._own_postgres is not None:
            self._own_postgres.stop()
        self.started_here, self._own_redis, self._own_postgres = False, None, None
        self._redis, self._postgres = None, None

    def _start_redis(self, state: _State, account: ServiceAccount, *, is_orphan: bool) -> _State:
        if state.redis_port is not None:
            found = EmbeddedRedis(account, state.redis_password, state.redis_port)
            if found.pid() is not None:
                self._redis, self._redis_url = found, found.url
                self._own_redis = found if is_orphan else None
                return state
        for attempt in range(1, START_ATTEMPTS + 1):
            state = replace(state, redis_port=free_port(state.redis_port))
            # Written before the start: a process killed right after it leaves a server to be found.
            self._write_state(state)
            redis = EmbeddedRedis(account, state.redis_password, state.redis_port or 0)
            self._own_redis = redis
            try:
                redis.start()
            except EmbeddedServicesError:
                if attempt == START_ATTEMPTS:
                    raise
                state = replace(state, redis_port=None)
                continue
            self._redis, self._redis_url = redis, redis.url
            break
        return state

    @contextmanager
    def _locked(self) -> Iterator[None]:
        services = self.data_folder / "services"
        try:
            services.mkdir(mode=0o700 if os.geteuid() else 0o755, exist_ok=True)
            descriptor = os.open(services / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise EmbeddedServicesError(
                f"{services} belongs to another user: choose another data folder"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read_state(self) -> _State:
        path = self.data_folder / "services" / "state.json"
        try:
            return _State(**json.loads(path.read_text()))
        except FileNotFoundError:
            state = _State(secrets.token_urlsafe(24), secrets.token_urlsafe(24))
            self._write_state(state)
            return state

    def _write_state(self, state: _State) -> None:
        path = self.data_folder / "services" / "state.json"
        write_private(path, json.dumps(asdict(state), indent=2) + "\n")


def _made(data_folder: Path) -> Path:
    data_folder.mkdir(parents=True, exist_ok=True)
    return data_folder.resolve()
