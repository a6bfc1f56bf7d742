"""Engine and sessions, and the schema's version."""

import importlib.util
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

Sessions = sessionmaker[Session]

_VERSIONS = "SELECT version_num FROM alembic_version"


def create_engine(url: str, *, pool_size: int = 5, max_overflow: int = 10) -> Engine:
    """Make the engine of one process; it must not cross a fork.

    Args:
        url: `postgresql+psycopg://...`.
        pool_size: connections kept open.
        max_overflow: connections opened beyond those under load, and closed again.
    """
    return sqlalchemy.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_pre_ping=True,  # a database that restarted costs a reconnect, not an error
        connect_args={
            # Prepared statements may get a generic plan, which cannot use a partial index.
            "prepare_threshold": None,
            "connect_timeout": 10,
            "options": "-c timezone=UTC",
        },
    )


def make_sessions(url: str, *, pool_size: int = 5, max_overflow: int = 10) -> Sessions:
    """Make what opens sessions: `with sessions.begin() as session:` is one transaction.

    Rows stay readable after the commit.
    """
    engine = create_engine(url, pool_size=pool_size, max_overflow=max_overflow)
    return sessionmaker(engine, expire_on_commit=False)


def upgrade_schema(url: str) -> None:
    """Bring the schema to the newest migration; two processes at once are safe."""
    command.upgrade(alembic_config(url), "head")


def schema_is_current(url: str) -> bool:
    """Tell whether the database has exactly the newest migration."""
    wanted = set(ScriptDirectory.from_config(alembic_config(url)).get_heads())
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        return set(MigrationContext.configure(connection).get_current_heads()) == wanted


class SchemaLook:
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
        """Tell whether the database has exactly the newest migration.

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
