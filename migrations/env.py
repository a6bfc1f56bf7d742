"""How Alembic runs: on the database it is given, in one transaction, one process at a time."""

import sqlalchemy
from alembic import context

from store.metadata import metadata
from store.settings import StoreSettings

# Any constant will do, as long as nothing else locks it: "clipbert" in ASCII.
MIGRATION_LOCK = 0x636C697062657274


def run() -> None:
    url = context.config.attributes.get("url")
    if url is None:  # Alembic's own command line, used to write a new migration
        url = StoreSettings().database_url
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection, target_metadata=metadata, compare_server_default=True
        )
        with context.begin_transaction():
            connection.execute(
                sqlalchemy.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK}
            )
            context.run_migrations()


run()
