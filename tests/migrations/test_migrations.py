import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from store.database import alembic_config, upgrade_schema
from store.tables import Table


def tables_of(url):
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    return set(sqlalchemy.inspect(engine).get_table_names()) - {"alembic_version"}


def test_the_schema_goes_up_and_down_and_up(empty_database_url):
    config = alembic_config(empty_database_url)

    command.upgrade(config, "head")
    after_up = tables_of(empty_database_url)
    command.downgrade(config, "base")
    after_down = tables_of(empty_database_url)
    command.upgrade(config, "head")

    assert after_up == tables_of(empty_database_url) == set(Table.metadata.tables)
    assert after_down == set()


def test_the_migrations_make_just_what_the_tables_say(empty_database_url):
    upgrade_schema(empty_database_url)

    engine = sqlalchemy.create_engine(empty_database_url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Table.metadata) == []
