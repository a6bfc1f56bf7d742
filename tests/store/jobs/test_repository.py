"""What people do with jobs: enqueue, look, cancel, retry."""

import json
import re
import tracemalloc
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import event, text

from store.errors import IdempotencyConflict, IllegalMove, InvalidPageToken, JobNotFound
from store.jobs import sql as job_sql
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from store.videos.batches import BatchRepository

MINUTE = timedelta(minutes=1)


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def jobs(session):
    return JobRepository(session)


def search(**values):
    return NewJob(JobKind.SEARCH, {"text": "a parrot"}, **values)


def claim_one(jobs, kind=JobKind.SEARCH):
    return jobs.claim([kind], limit=1, owner="test", lease=MINUTE)[0]


def types_of(jobs, job_id):
    events = jobs.events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.type for event in events]


def test_a_job_is_queued_with_what_it_was_given(jobs):
    job = jobs.enqueue(search(priority=2))

    assert (job.kind, job.state, job.priority) == (JobKind.SEARCH, JobState.QUEUED, 2)
    assert job.input == {"text": "a parrot"}
    assert (job.attempt, job.worker_losses, job.lease_token) == (0, 0, 0)
    assert job.created_at.utcoffset() == timedelta()
    assert types_of(jobs, job.id) == ["queued"]


def test_the_same_idempotency_key_enqueues_once(jobs):
    first = jobs.enqueue(search(idempotency_key="k"))
    claim = claim_one(jobs)
    jobs.finish(claim, {})

    again = jobs.enqueue(search(idempotency_key="k"))

    assert again.id == first.id
    assert again.state == JobState.SUCCEEDED


def test_an_idempotency_key_with_another_content_is_refused(jobs):
    jobs.enqueue(search(idempotency_key="k"))

    with pytest.raises(IdempotencyConflict):
        jobs.enqueue(NewJob(JobKind.SEARCH, {"text": "a dog"}, idempotency_key="k"))


def test_an_idempotency_key_with_another_batch_is_refused(jobs, session):
    batch_id = BatchRepository(session).create().id
    made = jobs.enqueue(search(idempotency_key="k"))

    with pytest.raises(IdempotencyConflict):
        jobs.enqueue(search(idempotency_key="k", batch_id=batch_id))
    with pytest.raises(IdempotencyConflict):
        jobs.find_repeated(search(idempotency_key="k", batch_id=batch_id))
    assert jobs.find_repeated(search(idempotency_key="k")).id == made.id
    assert jobs.find_repeated(search(idempotency_key="new")) is None


def test_the_same_work_is_enqueued_once_while_it_is_not_over(jobs):
    first = jobs.enqueue(search(dedupe_key="d"))
    while_queued = jobs.enqueue(search(dedupe_key="d"))
    claim = claim_one(jobs)
    while_running = jobs.enqueue(search(dedupe_key="d"))
    jobs.fail(claim, code="c", message="m")
    afterwards = jobs.enqueue(search(dedupe_key="d"))

    assert while_queued.id == while_running.id == first.id
    assert afterwards.id != first.id


def test_jobs_without_keys_are_all_different(jobs):
    assert jobs.enqueue(search()).id != jobs.enqueue(search()).id


def test_many_jobs_are_inserted_in_order_and_known_ones_left_out(jobs):
    jobs.enqueue(search(idempotency_key="3"))
    claim_one(jobs)
    run_at = datetime(2020, 1, 1, tzinfo=UTC)

    count = jobs.enqueue_many(
        NewJob(JobKind.SEARCH, {"i": i}, idempotency_key=str(i), run_at=run_at) for i in range(2500)
    )

    assert count == 2499
    claims = jobs.claim([JobKind.SEARCH], limit=5, owner="test", lease=MINUTE)
    assert [claim.input["i"] for claim in claims] == [0, 1, 2, 4, 5]
    assert types_of(jobs, claims[0].id) == ["queued", "claimed"]


def test_enqueueing_many_needs_no_memory_for_them(jobs):
    jobs.enqueue_many(search() for _ in range(2000))
    tracemalloc.start()

    jobs.enqueue_many(search() for _ in range(10_000))

    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 << 20


def test_a_job_known_to_be_impossible_is_inserted_as_failed(jobs):
    impossible = search(error_code="outside_media_roots", error_message="no")

    one = jobs.enqueue(impossible)
    jobs.enqueue_many([impossible])

    assert one.state == JobState.FAILED
    assert one.finished_at is not None
    assert types_of(jobs, one.id) == ["failed"]
    assert jobs.counts() == {JobKind.SEARCH: {JobState.FAILED: 2}}
    assert jobs.claim([JobKind.SEARCH], limit=9, owner="test", lease=MINUTE) == []


def test_an_unknown_job_is_not_found(jobs):
    unknown = uuid4()
    for ask in (jobs.get, jobs.request_cancel, jobs.retry):
        with pytest.raises(JobNotFound, match=str(unknown)):
            ask(unknown)


def test_pages_show_every_job_once_the_newest_first(jobs):
    made = [jobs.enqueue(search()).id for _ in range(7)]

    seen, token = [], None
    while True:
        page = jobs.list(page_size=3, page_token=token)
        seen += [job.id for job in page.items]
        token = page.next_page_token
        if token is None:
            break

    assert seen == made[::-1]


def test_a_list_can_be_narrowed(jobs):
    search_job = jobs.enqueue(search())
    jobs.enqueue(NewJob(JobKind.EMBED, {}))
    cancelled = jobs.enqueue(search())
    jobs.request_cancel(cancelled.id)

    of_kind = jobs.list(kind=JobKind.SEARCH, state=JobState.QUEUED).items

    assert [job.id for job in of_kind] == [search_job.id]


def test_a_page_token_of_another_list_is_refused(jobs):
    with pytest.raises(InvalidPageToken):
        jobs.list(page_token="MQ")  # noqa: S106 - no password


def test_events_are_read_from_the_one_after_a_number(jobs):
    job = jobs.enqueue(search())
    claim = claim_one(jobs)
    jobs.release(claim)

    assert [event.type for event in jobs.events(job.id, after=1)] == ["claimed", "released"]


def test_a_queued_job_is_cancelled_at_once(jobs):
    job = jobs.request_cancel(jobs.enqueue(search()).id)

    assert job.state == JobState.CANCELLED
    assert job.finished_at is not None
    assert types_of(jobs, job.id) == ["queued", "cancelled"]
    assert jobs.claim([JobKind.SEARCH], limit=1, owner="test", lease=MINUTE) == []


def test_the_worker_of_a_running_job_is_asked_to_stop(jobs):
    jobs.enqueue(search())
    claim = claim_one(jobs)

    job = jobs.request_cancel(claim.id)
    again = jobs.request_cancel(claim.id)
    status = jobs.extend([(claim.id, claim.lease_token)], lease=MINUTE)[claim.id]
    jobs.mark_cancelled(claim)

    assert job.state == again.state == JobState.CANCELLING
    assert status.held
    assert status.cancel_requested
    assert jobs.get(job.id).state == JobState.CANCELLED


def test_what_is_over_cannot_be_cancelled(jobs):
    jobs.enqueue(search())
    claim = claim_one(jobs)
    jobs.finish(claim, {})

    with pytest.raises(IllegalMove, match="is succeeded and cannot become cancelled"):
        jobs.request_cancel(claim.id)


@pytest.mark.parametrize("end", ["fail", "cancel", "quarantine"])
def test_a_retried_job_starts_afresh(jobs, end):
    jobs.enqueue(search())
    claim = claim_one(jobs)
    jobs.report_progress(claim, done=3, total=4, stage="decode")
    if end == "fail":
        jobs.fail(claim, code="decode_failed", message="m", detail={"frame": 3})
    elif end == "cancel":
        jobs.request_cancel(claim.id)
        jobs.mark_cancelled(claim)
    else:
        jobs.extend([(claim.id, claim.lease_token)], lease=-MINUTE)
        jobs.return_lost(max_losses=1)

    job = jobs.retry(claim.id)

    assert job.state == JobState.QUEUED
    assert (job.attempt, job.worker_losses, job.progress_done) == (0, 0, 0)
    assert (job.stage, job.progress_total, job.finished_at) == (None, None, None)
    assert (job.error_code, job.error_message, job.error_detail) == (None, None, None)
    assert job.cancel_requested_at is None
    assert job.lease_token == 1  # never begins again: the old claim must stay without effect


@pytest.mark.parametrize("end", ["queued", "running", "succeeded"])
def test_what_goes_on_or_went_well_cannot_be_retried(jobs, end):
    job_id = jobs.enqueue(search()).id
    if end != "queued":
        claim = claim_one(jobs)
    if end == "succeeded":
        jobs.finish(claim, {})

    with pytest.raises(IllegalMove, match=f"is {end} and cannot become queued"):
        jobs.retry(job_id)


def test_a_job_that_was_replaced_cannot_be_retried(jobs):
    old = jobs.enqueue(search(dedupe_key="d"))
    jobs.request_cancel(old.id)
    new = jobs.enqueue(search(dedupe_key="d"))

    with pytest.raises(IllegalMove, match="another job does the same work"):
        jobs.retry(old.id)

    assert jobs.get(new.id).state == JobState.QUEUED  # the transaction is still good


def test_counts_are_by_kind_and_state(jobs):
    jobs.enqueue(search())
    jobs.enqueue(search(run_at=datetime.now(UTC) + MINUTE))
    jobs.enqueue(NewJob(JobKind.EMBED, {}))
    claim_one(jobs, JobKind.EMBED)

    assert jobs.due_counts() == {JobKind.SEARCH: 1}
    assert jobs.counts() == {
        JobKind.SEARCH: {JobState.QUEUED: 2},
        JobKind.EMBED: {JobState.RUNNING: 1},
    }


def test_claiming_reads_only_the_first_rows_of_a_long_queue(jobs, session):
    jobs.enqueue_many(NewJob(JobKind.INGEST, {}) for _ in range(20_000))
    session.execute(text("ANALYZE jobs"))
    due = (
        "SELECT id FROM jobs WHERE kind = 'ingest' AND state = 'queued' AND run_at <= now() "
        "ORDER BY priority, turn, run_at, id LIMIT 8 FOR NO KEY UPDATE SKIP LOCKED"
    )

    plan = session.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {due}")).scalar_one()

    assert "ix_jobs_due" in json.dumps(plan)
    assert "Sort" not in json.dumps(plan)
    assert plan[0]["Plan"]["Plans"][0]["Plans"][0]["Actual Rows"] == 8


@pytest.mark.parametrize("wanted", [{"kind": JobKind.SEARCH}, {"batch": True}, {}])
def test_a_page_of_jobs_reads_no_more_than_it_shows(jobs, session, wanted):
    batch_id = BatchRepository(session).create().id
    # The newest are like neither: reading backwards until some are found would read them all.
    jobs.enqueue_many(search() for _ in range(3000))
    for some in (batch_id, None):
        jobs.enqueue_many(NewJob(JobKind.INGEST, {}, batch_id=some) for _ in range(3000))
    session.execute(text("ANALYZE jobs"))
    conditions = {"batch_id": batch_id} if wanted.pop("batch", False) else wanted
    statements = []

    def note(_connection, cursor, statement, parameters, *_):
        statements.append((statement, parameters))

    event.listen(session.get_bind(), "before_cursor_execute", note)
    page = jobs.list(page_size=10, **conditions)
    event.remove(session.get_bind(), "before_cursor_execute", note)
    plan = session.connection().exec_driver_sql(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {statements[0][0]}", statements[0][1]
    )

    assert len(page.items) == 10
    found = json.dumps(plan.scalar_one())
    assert "Seq Scan" not in found
    assert "Sort" not in found
    assert set(re.findall(r'"Rows Removed by Filter": (\d+)', found)) <= {"0"}


@pytest.mark.parametrize("counts", [job_sql.DUE_UP_TO, job_sql.WAITING_FOR_LATER])
def test_counting_what_is_due_reads_no_more_than_it_counts(jobs, session, counts):
    jobs.enqueue_many(NewJob(JobKind.INGEST, {}) for _ in range(20_000))
    session.execute(text("ANALYZE jobs"))
    parameters = {"kinds": list(JobKind), "most": 16}

    plan = session.execute(text(f"EXPLAIN {counts}"), parameters).scalars().all()

    assert "Seq Scan" not in "".join(plan)


def test_input_and_result_keep_every_kind_of_json(jobs):
    value = {"text": "Ein weißer Papagei 🦜 'q\" \\", "n": None, "f": 0.1, "l": [1, {"a": True}]}
    jobs.enqueue_many([NewJob(JobKind.SEARCH, value)])
    claim = claim_one(jobs)
    jobs.finish(claim, value)

    assert claim.input == value
    assert jobs.get(claim.id).result == value
    assert isinstance(jobs.get(claim.id), Job)
