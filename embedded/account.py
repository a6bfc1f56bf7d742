"""Whom the embedded servers run as, and where their files lie.

PostgreSQL refuses to run as root, so root's servers run as an ordinary user that is already there,
in a folder which that user can reach. Only folders of our own are given an owner or a mode.
"""

import hashlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedded.errors import EmbeddedServicesError
from embedded.private_file import write_private

ACCOUNT_NAMES = ("postgres", "nobody")
SOCKET_PREFIX = "clipbert-"
ROOTS_FOLDER = Path("/var/lib/clipbert")
"""Where root's servers live when the data folder is out of their user's reach, as in /root."""

MAX_SOCKET_FOLDER_CHARACTERS = 60
"""A unix socket's path may have 107 bytes, 103 on macOS; ours ends in `/.s.PGSQL.5432`."""


@dataclass(frozen=True)
class ServiceAccount:
    """The user of the servers.

    Attributes:
        uid: user id to change to; None if the servers run as whoever starts them.
        gid: group id to change to; None likewise.
        folder: where the servers' own folders lie; the user can pass through it.
    """

    uid: int | None
    gid: int | None
    folder: Path

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        cwd: Path = Path("/"),
        timeout_seconds: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this user, with nothing of our environment, and wait for its end."""
        return subprocess.run(  # noqa: S603 - the programs are our own constants
            [str(argument) for argument in arguments],
            cwd=cwd,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
            umask=0o077,
        )

    def can_read(self, path: Path) -> bool:
        """Whether the user reaches and reads a path, by the kernel's word, not by the modes."""
        return (
            self.run(["/usr/bin/env", "test", "-r", path, "-a", "-x", path.parent]).returncode == 0
        )

    def own_folder(self, path: Path) -> Path:
        """Make a folder only this user can enter."""
        path.mkdir(mode=0o700, exist_ok=True)
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)
        return path

    def own_file(self, path: Path, content: str) -> Path:
        """Write a file only this user can read."""
        write_private(path, content)
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)
        return path

    def short_folder(self, wanted: Path | None = None) -> Path:
        """Make a private folder whose path is short enough for a unix socket.

        Args:
            wanted: an earlier one, to be made anew; None for a new one.

        Raises:
            EmbeddedServicesError: somebody else has the wanted one, or no folder will do.
        """
        if wanted is not None:
            shutil.rmtree(wanted, ignore_errors=True)
            try:
                wanted.mkdir(mode=0o700)  # fails if another user was quicker
            except OSError as error:
                raise EmbeddedServicesError(f"cannot make {wanted} anew: {error}") from error
            return self.own_folder(wanted)
        candidates = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 - mkdtemp is private
        for parent in candidates:
            if len(parent) > MAX_SOCKET_FOLDER_CHARACTERS - len(f"/{SOCKET_PREFIX}12345678"):
                continue
            folder = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir=parent))
            self.own_folder(folder)
            if self.uid is None or self.run(["/usr/bin/env", "test", "-x", folder]).returncode == 0:
                return folder
            folder.rmdir()
        raise EmbeddedServicesError("no temporary folder is short enough for a unix socket")

    def reachable_copy(self, packages: Path, parts: Sequence[str], *, probe: str) -> Path:
        """Return where this user can reach installed programs: as they are, or as a copy.

        Args:
            packages: the folder that packages are installed in.
            parts: what the programs need of it; they find each other by their places in it.
            probe: a file of the parts, to try.

        Returns:
            The folder that has the parts in their places.
        """
        if self.uid is None or self.can_read(packages / probe):
            return packages
        stat = (packages / probe).stat()
        facts = f"{packages} {sorted(parts)} {stat.st_size} {stat.st_mtime_ns}"
        name = f"programs-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
        copy = _roots_folder() / name
        if copy.exists():
            return copy
        staging = Path(tempfile.mkdtemp(prefix="copy-", dir=copy.parent))
        for part in parts:
            if (packages / part).exists():  # the libraries lie elsewhere on some systems
                shutil.copytree(packages / part, staging / part, symlinks=True)
        for folder in (staging, *staging.rglob("*")):
            if folder.is_dir() and not folder.is_symlink():
                folder.chmod(0o755)
        try:
            staging.rename(copy)
        except OSError:
            # Another data folder's start has put its copy there first: it is the same.
            shutil.rmtree(staging)
        return copy


def choose_account(data_folder: Path) -> ServiceAccount:
    """Decide whom the servers of a data folder run as, and where.

    Args:
        data_folder: absolute; must exist.

    Raises:
        EmbeddedServicesError: we are root and there is no ordinary user to run as.
    """
    services = data_folder / "services"
    if os.geteuid() != 0:
        services.mkdir(mode=0o700, exist_ok=True)
        return ServiceAccount(None, None, services)
    for name in ACCOUNT_NAMES:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        services.mkdir(exist_ok=True)
        services.chmod(0o755)
        account = ServiceAccount(user.pw_uid, user.pw_gid, services)
        if account.run(["/usr/bin/env", "test", "-x", services]).returncode == 0:
            return account
        folder = _roots_folder() / _own_name(services)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        return ServiceAccount(user.pw_uid, user.pw_gid, folder)
    raise EmbeddedServicesError(
        "PostgreSQL does not run as root, and there is no user "
        + " or ".join(ACCOUNT_NAMES)
        + " to run it as: start as an ordinary user, or set STORE_DATABASE_URL"
    )


def _own_name(services: Path) -> str:
    """Return the name of one data folder's folder.

    By chance, not by path: a data folder that was removed and made again has other passwords.
    """
    file = services / "place"
    if not file.is_file():
        write_private(file, secrets.token_hex(8))
    return file.read_text()


def _roots_folder() -> Path:
    if not ROOTS_FOLDER.exists():
        ROOTS_FOLDER.mkdir()
        ROOTS_FOLDER.chmod(0o755)
    return ROOTS_FOLDER
