"""Real services for the tests: one PostgreSQL and one Redis for all of a run."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis
import sqlalchemy
import structlog
from hypothesis import HealthCheck, settings

from embedded.servers import EmbeddedServices
from store.blobs import BlobStore, open_blobs
from store.database import Sessions, make_sessions, upgrade_schema

# Several processes compute beside each other, small tensors: with a thread for each core they spend
# as much time in waiting for each other. Nothing has loaded torch yet; what is started inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says something about the machine, and nothing about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell has what it starts in the background ignore Ctrl-C, and what that starts in turn.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TEMPLATE = "clipbert_template"
_TESTS = Path(__file__).parent
# In memory a database is made in a seventh of the time, and nothing waits for a disk.
_MEMORY = Path("/dev/shm")  # noqa: S108
_MEMORY_BYTES = 8 << 30  # free there, for three processes with servers of their own
_DAY_SECONDS = 24 * 3600
_BEGUN_FIRST = {"workers": 0, "chaos": 1}
# Who asks for these has servers, and workers on them, or the default model, which is built first.
_FIXTURES_OF_SERVERS = frozenset({"services", "mini_folder"})
_FOLDERS_OF_SERVERS = frozenset({"chaos", "end_to_end", "embedded"})
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


# By itself structlog prints. What a thread of an earlier test still says would stand in the middle
# of what a command of another test prints: logging's handlers keep it apart.
structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what makes tests longer, and what leaves the long ones out."""
    help_text = "damaged files of each kind that clipbert/video/test_format_fuzz.py reads"
    parser.addoption("--fuzz-mutations", type=int, default=5, help=help_text)
    help_text = "leave out what has servers or workers, and what is marked slow"
    parser.addoption("--fast", action="store_true", help=help_text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, and leave out what needs a GPU where there is none."""
    # Begun last, a file of minutes would run alone at the end, with cores idle.
    items.sort(key=lambda item: _BEGUN_FIRST.get(item.path.relative_to(_TESTS).parts[0], 2))
    kept = [item for item in items if _is_wanted(item, fast=config.getoption("--fast"))]
    left_out = set(items) - set(kept)
    items[:] = kept
    config.hook.pytest_deselected(items=list(left_out))


def _is_wanted(item: pytest.Item, *, fast: bool) -> bool:
    if item.get_closest_marker("gpu") and not NVIDIA_DRIVER.exists():
        return False
    return not fast or not (
        item.get_closest_marker("slow")
        or item.path.relative_to(_TESTS).parts[0] in _FOLDERS_OF_SERVERS
        or _FIXTURES_OF_SERVERS & set(getattr(item, "fixturenames", ()))
    )


def can_mount() -> bool:
    """Whether a test may mount a small disk that nobody else sees."""
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


@dataclass(frozen=True)
class Services:
    """What the tests need to know of the running services."""

    database_url: str  # of the template, which nothing may be written to
    admin_url: str
    admin: psycopg.Connection
    redis_url: str

    def execute(self, statement: str) -> None:
        self.admin.execute(statement)


@contextmanager
def passable_folder() -> Iterator[Path]:
    """A temporary folder that other users can pass through, in memory where there is enough.

    As root the embedded servers run as another user; pytest's own folders are closed to it, and the
    servers would then leave their files in /var/lib/clipbert.
    """
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _MEMORY_BYTES
    parent = _MEMORY if in_memory else None
    folder = Path(tempfile.mkdtemp(prefix="clipbert-tests-", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_in_memory() -> None:
    """Remove what runs left that were killed."""
    for left in _MEMORY.glob("clipbert-tests-*"):
        with suppress(FileNotFoundError):  # of a test that has ended meanwhile
            if time.time() - left.stat().st_mtime > _DAY_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    remove_left_in_memory()
    with passable_folder() as folder, EmbeddedServices.start(folder) as embedded:
        url = sqlalchemy.make_url(embedded.database_url)
        admin_url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        template_url = url.set(database=TEMPLATE).render_as_string(hide_password=False)
        with psycopg.connect(admin_url, autocommit=True) as admin:
            running = Services(template_url, admin_url, admin, embedded.redis_url)
            running.execute(f"CREATE DATABASE {TEMPLATE}")
            upgrade_schema(template_url)
            yield running


@pytest.fixture
def empty_database_url(services: Services) -> Iterator[str]:
    """A database with no tables."""
    with new_database(services, "template1") as url:
        yield url


@pytest.fixture
def database_url(services: Services) -> Iterator[str]:
    """A database with the newest schema and no rows."""
    with new_database(services, TEMPLATE) as url:
        yield url


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    sessions = make_sessions(database_url)
    yield sessions
    sessions.kw["bind"].dispose()


@pytest.fixture
def redis_url(services: Services) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(services.redis_url) as client:
        client.flushall()
    return services.redis_url


@pytest.fixture
def data_folder() -> Iterator[Path]:
    with passable_folder() as folder:
        yield folder


@pytest.fixture
def blobs(data_folder: Path) -> BlobStore:
    return open_blobs((data_folder / "blobs").as_uri())


@contextmanager
def new_database(services: Services, template: str) -> Iterator[str]:
    """A database that is dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    # Files that are copied cost half the time of pages that are logged, twice a test.
    services.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    url = sqlalchemy.make_url(services.database_url).set(database=name)
    try:
        yield url.render_as_string(hide_password=False)
    finally:
        services.execute(f"DROP DATABASE {name} WITH (FORCE)")
