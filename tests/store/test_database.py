import os
import subprocess
import sys

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from cli.commands.doctor import check_database
from store.database import make_sessions, schema_is_current, upgrade_schema
from store.errors import SchemaTooNew
from store.idling import bear_idling


def test_a_schema_is_current_after_the_upgrade(empty_database_url):
    before = schema_is_current(empty_database_url)

    upgrade_schema(empty_database_url)

    assert (before, schema_is_current(empty_database_url)) == (False, True)


def test_processes_that_upgrade_at_once_wait_for_each_other(empty_database_url):
    environment = os.environ | {
        "STORE_DATABASE_URL": empty_database_url,
        "STORE_BLOB_URL": "file:///nowhere",
    }
    command = [sys.executable, "-m", "migrations"]
    processes = [subprocess.Popen(command, env=environment) for _ in range(3)]

    codes = [process.wait() for process in processes]

    assert codes == [0, 0, 0]
    assert schema_is_current(empty_database_url)


def test_a_schema_of_a_later_version_is_left_alone_and_said(
    empty_database_url, tmp_path, monkeypatch
):
    upgrade_schema(empty_database_url)
    sessions = make_sessions(empty_database_url)
    with sessions.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    sessions.kw["bind"].dispose()
    monkeypatch.setenv("STORE_DATABASE_URL", empty_database_url)
    monkeypatch.setenv("STORE_BLOB_URL", tmp_path.as_uri())

    with pytest.raises(SchemaTooNew, match="schema 9999 is of a later version"):
        upgrade_schema(empty_database_url)
    migrated = subprocess.run(
        [sys.executable, "-m", "cli.main", "migrate"], capture_output=True, text=True, check=False
    )

    assert migrated.returncode == 1
    assert "schema 9999 is of a later version" in migrated.stderr
    assert "Traceback" not in migrated.stderr
    assert check_database(tmp_path).cure == (
        "run that later version, or restore a backup from before the upgrade"
    )


def test_sessions_speak_utc_and_survive_a_restart_of_the_database(database_url, services):
    sessions = make_sessions(database_url)
    with sessions.begin() as session:
        zone = session.execute(text("SHOW timezone")).scalar_one()
    services.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname LIKE 'test_%' AND pid <> pg_backend_pid()"
    )

    with sessions.begin() as session:
        answer = session.execute(text("SELECT 1")).scalar_one()
    sessions.kw["bind"].dispose()

    assert (zone, answer) == ("UTC", 1)


@pytest.fixture
def impatient(database_url):
    """Sessions whose transactions may lie for a fifth of a second between two statements."""
    sessions = make_sessions(database_url, idle_seconds=0.2)
    yield sessions
    sessions.kw["bind"].dispose()


def test_who_froze_in_a_transaction_holds_no_rows_and_is_told_as_of_an_outage(impatient, sessions):
    with sessions.begin() as session:
        session.execute(text("CREATE TABLE held (id int)"))
        session.execute(text("INSERT INTO held VALUES (1)"))
    frozen = impatient()
    frozen.execute(text("UPDATE held SET id = 2"))

    with sessions.begin() as session:
        session.execute(text("SET LOCAL lock_timeout = '20s'"))
        session.execute(text("UPDATE held SET id = 3"))
    with pytest.raises(OperationalError, match="idle-in-transaction") as woken:
        frozen.execute(text("UPDATE held SET id = 4"))
    frozen.close()

    assert woken.value.connection_invalidated
    with impatient.begin() as session:  # by another connection
        assert session.scalar(text("SELECT id FROM held")) == 3


def test_a_transaction_lies_for_half_a_minute_unless_it_asks_for_more(sessions):
    shown = text("SHOW idle_in_transaction_session_timeout")
    with sessions.begin() as session:
        before = session.scalar(shown)
        bear_idling(session, seconds=90)
        asked = session.scalar(shown)
    with sessions.begin() as session:
        after = session.scalar(shown)

    assert (before, asked, after) == ("30s", "90s", "30s")
