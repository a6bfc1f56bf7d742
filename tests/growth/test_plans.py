"""No statement of a hot path or of maintenance reads a whole table that grows.

Every operation is done on a library of 20,000 videos and 50,000 jobs, and each statement that it
executes is explained with the same parameters. The plan is what is asserted, so nothing depends on
how fast the machine is; benchmarks/growth.py takes the times at a million.
"""

import pytest
from sqlalchemy import event

from benchmarks.growing.library import fill
from benchmarks.growing.operations import operations
from store.database import make_sessions
from tests.conftest import TEMPLATE, new_database

ROWS = 20_000  # videos, and 50,000 jobs

GROWING = {
    "batches",
    "clips",
    "job_events",
    "jobs",
    "label_revisions",
    "labels",
    "questions",
    "searches",
    "video_splits",
    "videos",
}
"""Not: models, serving, generations, promotions, finetunes, datasets, schedules and their fires,
vocabularies and keys, of which people make hundreds; counts, which has a row for each name; and
count_changes, which maintenance empties every five seconds."""

SMALL_INDEXES = {
    "ix_jobs_held",  # what workers have in hand
    "ix_jobs_leased",
    "ix_questions_trials",  # a setting bounds them
}
"""Partial indexes over so few rows of a large table that all of them may be read."""

LEFT_OUT = {
    "batches: cancel 100": "of so few embed jobs that wait all are read; the batch's videos lead",
    "clips: nearest": "so few clips are all compared, by decision",
    "clips: nearest, by the index": "400 clips of 20,000 videos are joined by reading the videos",
}
"""Operations whose plans at this size say nothing of a million rows, or are not led yet."""

OPERATIONS = {name: each for name, each in operations() if name not in LEFT_OUT}


@pytest.fixture(scope="module")
def large(services):
    """A database of its own for this file, and what is in it."""
    with new_database(services, TEMPLATE) as url:
        sessions = make_sessions(url)
        yield sessions, fill(sessions, ROWS, vectors=ROWS)
        sessions.kw["bind"].dispose()


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_statement_reads_a_whole_table_that_grows(large, name):
    sessions, library = large
    statements = []

    def note(connection, cursor, statement, parameters, *others):
        many = parameters[0] if isinstance(parameters, list) else parameters
        statements.append((statement, many))

    with sessions() as session:
        event.listen(session.bind, "before_cursor_execute", note)
        try:
            OPERATIONS[name](library, session)
        finally:
            event.remove(session.bind, "before_cursor_execute", note)
        cursor = session.connection().connection.cursor()
        found = [
            scan
            for statement, parameters in statements
            if explainable(statement)
            for scan in whole_scans(explain(cursor, statement, parameters))
        ]
        session.rollback()

    assert statements
    assert found == []


def explainable(statement):
    return statement.lstrip().split(maxsplit=1)[0].upper() in {
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "WITH",
    }


def explain(cursor, statement, parameters):
    cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
    return cursor.fetchone()[0][0]["Plan"]


def whole_scans(plan, *, bounded=False):
    """List the scans of growing tables that nothing leads, as text."""
    bounded = bounded or plan["Node Type"] == "Limit"
    table = plan.get("Relation Name")
    if table in GROWING:
        kind = plan["Node Type"]
        is_led = "Index Cond" in plan or plan.get("Index Name") in SMALL_INDEXES
        if kind == "Seq Scan" or (kind.startswith("Index") and not is_led and not bounded):
            yield f"{kind} on {table}: {plan.get('Filter') or plan.get('Index Name')}"
    for part in plan.get("Plans", ()):
        yield from whole_scans(part, bounded=bounded)


def test_a_scan_of_a_whole_table_is_found(large):
    sessions, _ = large

    with sessions() as session:
        cursor = session.connection().connection.cursor()
        plans = [
            explain(cursor, statement, None)
            for statement in (
                "SELECT count(*) FROM videos WHERE width = 3",
                "SELECT count(*) FROM videos",
                "SELECT * FROM videos WHERE sha256 = 'x'",
                "SELECT * FROM videos ORDER BY id DESC LIMIT 5",
            )
        ]

    assert [bool(list(whole_scans(plan))) for plan in plans] == [True, True, False, False]
