"""Engine and sessions, and the schema's version."""

import importlib.util
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import (
    DeadlockDetected,
    IdleInTransactionSessionTimeout,
    SerializationFailure,
)
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

# Every table is declared before the first session: a flush follows foreign keys between rooms.
import store.metadata  # noqa: F401
from store.errors import SchemaTooNew

Sessions = sessionmaker[Session]
Result = TypeVar("Result")

MAX_TRIES: Final = 5
"""How often a transaction is run that PostgreSQL rolled back for the sake of another one."""
_PAUSE_SECONDS: Final = 0.02
IDLE_SECONDS: Final = 30.0
"""How long a transaction may lie between two statements."""

_VERSIONS = "SELECT version_num FROM alembic_version"


def create_engine(
    url: str,
    *,
    pool_size: int = 5,
    max_overflow: int = 10,
    idle_seconds: float = IDLE_SECONDS,
) -> Engine:
    """Make the engine of one process; it must not cross a fork.

    Args:
        url: `postgresql+psycopg://...`.
        pool_size: connections kept open.
        max_overflow: connections opened beyond those under load, and closed again.
        idle_seconds: how long a transaction may lie between two statements. A process that freezes
            in one, or whose machine is cut off, holds its rows no longer: nobody else could take
            its jobs back. When it wakes, its next statement is an OperationalError.
    """
    engine = sqlalchemy.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_pre_ping=True,  # a database that restarted costs a reconnect, not an error
        connect_args={
            # Prepared statements may get a generic plan, which cannot use a partial index.
            "prepare_threshold": None,
            "connect_timeout": 10,
            "options": "-c timezone=UTC"
            f" -c idle_in_transaction_session_timeout={idle_seconds * 1000:.0f}",
        },
    )
    event.listen(engine, "handle_error", _call_it_an_outage)
    return engine


def _call_it_an_outage(context: ExceptionContext) -> None:
    """Have who waited too long see what any other loss of the connection is to him."""
    if isinstance(context.original_exception, IdleInTransactionSessionTimeout):
        raise OperationalError(
            context.statement,
            context.parameters,
            context.original_exception,
            connection_invalidated=True,
        )


def make_sessions(
    url: str,
    *,
    pool_size: int = 5,
    max_overflow: int = 10,
    idle_seconds: float = IDLE_SECONDS,
) -> Sessions:
    """Make what opens sessions: `with sessions.begin() as session:` is one transaction.

    Rows stay readable after the commit. The arguments are those of create_engine.
    """
    engine = create_engine(
        url, pool_size=pool_size, max_overflow=max_overflow, idle_seconds=idle_seconds
    )
    return sessionmaker(engine, expire_on_commit=False)


def run_in_transaction(sessions: Sessions, work: Callable[[Session], Result]) -> Result:
    """Run work in a transaction of its own, and again if it was the victim of a deadlock.

    Rows are locked in one order (see store/lock_order.py), so victims are rare.

    Args:
        sessions: where.
        work: does nothing but read and write rows, since it may be run several times, each time
            from the state that others left.

    Returns:
        What the work returned in the time that was committed.

    Raises:
        OperationalError: it was a victim MAX_TRIES times.
    """
    tries = 1
    while True:
        try:
            with sessions.begin() as session:
                return work(session)
        except DBAPIError as error:
            if not isinstance(error.orig, DeadlockDetected | SerializationFailure):
                raise
            if tries == MAX_TRIES:
                raise
        # Not all at once again.
        time.sleep(_PAUSE_SECONDS * 2**tries * random.random())  # noqa: S311  no secret
        tries += 1


def upgrade_schema(url: str) -> None:
    """Bring the schema to the newest migration; two processes at once are safe.

    Raises:
        SchemaTooNew: it has a migration that this version does not know.
    """
    schema_is_current(url)
    command.upgrade(alembic_config(url), "head")


def schema_is_current(url: str) -> bool:
    """Whether the database has exactly the newest migration.

    Raises:
        SchemaTooNew: it has a migration that this version does not know.
    """
    script = ScriptDirectory.from_config(alembic_config(url))
    known, wanted = {each.revision for each in script.walk_revisions()}, set(script.get_heads())
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        found = set(MigrationContext.configure(connection).get_current_heads())
    for revision in sorted(found - known):
        raise SchemaTooNew(revision, max(wanted))
    return found == wanted


class SchemaCheck:
    """Asks again and again whether the schema is current, at the price of one short query.

    The migrations are read once. Between two looks one connection stays open.

    Args:
        url: as of create_engine.
    """

    def __init__(self, url: str) -> None:
        self._wanted = set(ScriptDirectory.from_config(alembic_config(url)).get_heads())
        self._engine = sqlalchemy.create_engine(
            url,
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 3, "options": "-c statement_timeout=3000"},
        )

    def is_current(self) -> bool:
        """Whether the database has exactly the newest migration.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        with self._engine.connect() as connection:
            try:
                found = connection.scalars(sqlalchemy.text(_VERSIONS)).all()
            except ProgrammingError:  # a database without tables
                return False
        return set(found) == self._wanted

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()


def alembic_config(url: str) -> Config:
    """Make Alembic's configuration for one database; needs no ini file and no working folder."""
    # By name, not by import: migrations imports the store, never the other way.
    spec = importlib.util.find_spec("migrations")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the package `migrations` is not installed", name="migrations")
    config = Config()
    config.set_main_option(
        "script_location", str(Path(next(iter(spec.submodule_search_locations)))).replace("%", "%%")
    )
    config.attributes["url"] = url
    return config
