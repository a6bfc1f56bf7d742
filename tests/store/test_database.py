import os
import subprocess
import sys

from sqlalchemy import text

from store.database import make_sessions, schema_is_current, upgrade_schema


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
