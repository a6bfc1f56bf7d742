"""Who is next: equal turns for each API key and batch, and lost jobs first."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.videos.batches import BatchRepository

MINUTE = timedelta(minutes=1)


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def jobs(session):
    return JobRepository(session)


@pytest.fixture
def put(session, jobs):
    """Enqueue a batch of a name, or single files."""
    batches = {}

    def put(name, count, *, key=None, **fields):
        batch_id = None
        if name is not None:
            if name not in batches:
                batches[name] = BatchRepository(session).create(name).id
            batch_id = batches[name]
        jobs.enqueue_many(
            NewJob(
                JobKind.INGEST,
                {"of": name or str(key)},
                batch_id=batch_id,
                api_key_id=key,
                **fields,
            )
            for _ in range(count)
        )

    return put


def claim(jobs, limit=1, *, kinds=(JobKind.INGEST,), owner=None):
    return jobs.claim(kinds, limit=limit, owner=owner or f"p{uuid4()}", lease=MINUTE)


def served(jobs, count):
    """Claim one after another; say whose they were."""
    return [claim(jobs)[0].input["of"] for _ in range(count)]


def let_expire(jobs, *claims):
    jobs.extend([(c.id, c.lease_token) for c in claims], lease=-MINUTE)


def test_two_batches_have_equal_turns_however_long_the_first_one_is(jobs, put):
    put("long", 2500)
    served(jobs, 10)
    put("short", 5)

    seen = served(jobs, 10)

    assert Counter(seen) == {"long": 5, "short": 5}
    assert all(set(seen[i : i + 2]) == {"long", "short"} for i in range(0, 10, 2))
    assert served(jobs, 3) == ["long"] * 3


def test_a_batch_in_many_chunks_gets_no_more_turns_than_one_that_came_after(jobs, put):
    put("long", 1500)
    put("other", 1500)  # both are longer than a chunk of an insert
    put("long", 100)

    seen = served(jobs, 40)

    assert Counter(seen) == {"long": 20, "other": 20}


def test_keys_have_equal_turns_without_batches_too(jobs, put):
    busy, other = uuid4(), uuid4()
    put(None, 50, key=busy)
    put(None, 2, key=other)

    assert Counter(served(jobs, 4)) == {str(busy): 2, str(other): 2}


def test_who_was_served_much_and_has_nothing_waiting_begins_with_the_others(jobs, put):
    put("early", 30)
    served(jobs, 30)
    put("late", 6)
    served(jobs, 2)
    put("early", 6)

    assert Counter(served(jobs, 8)) == {"early": 4, "late": 4}


def test_who_comes_late_gets_no_turns_for_the_time_before(jobs, put):
    put("early", 200)
    served(jobs, 100)
    put("late", 100)

    assert Counter(served(jobs, 20)) == {"early": 10, "late": 10}


def test_a_higher_priority_goes_before_all_turns(jobs, put):
    put("bulk", 3000, priority=5)
    put("single", 1, priority=4)

    assert served(jobs, 2) == ["single", "bulk"]


def test_kinds_that_are_claimed_together_take_turns(jobs):
    for kind, count in ((JobKind.QUESTION, 20), (JobKind.SEARCH, 3)):
        for _ in range(count):
            jobs.enqueue(NewJob(kind, {}))

    kinds = (JobKind.SEARCH, JobKind.QUESTION)
    seen = [claimed.kind for claimed in claim(jobs, 6, kinds=kinds)]

    assert Counter(seen) == {JobKind.SEARCH: 3, JobKind.QUESTION: 3}


@pytest.mark.parametrize("give_back", ["lost", "released", "snoozed"])
def test_a_returned_job_is_the_first_of_its_priority(jobs, put, give_back):
    put("long", 1200)
    put("other", 40)
    (held,) = claim(jobs)
    served(jobs, 60)
    match give_back:
        case "lost":
            let_expire(jobs, held)
            jobs.return_lost()
        case "released":
            jobs.release(held)
        case "snoozed":
            jobs.snooze(held, datetime.now(UTC) - MINUTE)

    assert claim(jobs)[0].id == held.id


def test_a_returned_job_gives_nobody_else_turns_of_the_past(jobs, put):
    put("long", 300)
    (held,) = claim(jobs)
    served(jobs, 100)
    jobs.release(held)
    put("late", 100)

    assert Counter(served(jobs, 21)[1:]) == {"long": 10, "late": 10}


def test_a_job_that_waits_for_later_gives_nobody_turns_of_the_past(jobs, put):
    put("long", 300)
    (held,) = claim(jobs)
    jobs.snooze(held, datetime.now(UTC) + MINUTE)
    served(jobs, 100)
    put("late", 100)

    assert Counter(served(jobs, 20)) == {"long": 10, "late": 10}


def test_who_comes_while_all_others_wait_for_later_begins_behind_them(jobs, put):
    put("early", 3)
    for held in claim(jobs, 3):
        jobs.snooze(held, datetime.now(UTC) + MINUTE)
    put("late", 2)

    assert served(jobs, 2) == ["late"] * 2
    put("early", 1)
    put("late", 1)
    assert Counter(served(jobs, 2)) == {"early": 1, "late": 1}


def test_a_retry_with_backoff_does_not_jump(jobs, put):
    put("long", 5)
    (held,) = claim(jobs)
    past = datetime.now(UTC) - MINUTE
    jobs.retry_later(held, run_at=past, code="io_error", message="m")

    order = [claim(jobs)[0].id for _ in range(5)]

    assert order[-1] == held.id


def test_jobs_that_are_sent_round_again_take_turns_with_the_others(jobs, put):
    put("failed", 30)
    for held in claim(jobs, 30):
        jobs.fail(held, code="c", message="m")
    put("fresh", 30)
    served(jobs, 10)
    jobs.retry_where(text("true"))

    assert Counter(served(jobs, 20)) == {"failed": 10, "fresh": 10}


def test_many_workers_at_once_serve_every_queue_and_every_job_once(sessions):
    with sessions.begin() as session:
        for _ in range(3):
            batch_id = BatchRepository(session).create().id
            JobRepository(session).enqueue_many(
                NewJob(JobKind.INGEST, {}, batch_id=batch_id) for _ in range(20)
            )
    seen = []
    with sessions.begin() as one, sessions.begin() as other:
        for session in (one, other, one, other, one, other):
            seen += claim(JobRepository(session), 5)

    assert len({held.id for held in seen}) == 30
    assert set(Counter(held.batch_id for held in seen).values()) == {10}


def test_a_suspect_is_claimed_alone_and_the_others_together(jobs, put):
    put("files", 8)
    group = claim(jobs, 3)
    let_expire(jobs, *group)
    jobs.return_lost()

    claims = [claim(jobs, 5) for _ in range(4)]

    assert [len(each) for each in claims] == [1, 1, 1, 5]
    assert {each[0].id for each in claims[:3]} == {held.id for held in group}
    assert all(each[0].is_suspect for each in claims[:3])
    assert not any(held.is_suspect for held in claims[3])


def test_one_poisonous_job_among_forty_is_quarantined_alone(jobs, put):
    put("files", 40)
    poison = claim(jobs, 1)[0]
    jobs.release(poison)
    states = Counter()
    for _ in range(100):
        held = claim(jobs, 8)
        if not held:
            break
        if poison.id in {each.id for each in held}:  # it takes all of its process along
            let_expire(jobs, *held)
            jobs.return_lost(max_losses=3)
            continue
        for each in held:
            jobs.finish(each, {})

    states = jobs.counts()[JobKind.INGEST]
    assert states == {JobState.SUCCEEDED: 39, JobState.QUARANTINED: 1}
    assert jobs.get(poison.id).state == JobState.QUARANTINED


def test_a_process_with_a_suspect_gets_nothing_else_until_that_gets_further(jobs, put):
    put("files", 3)
    (suspect,) = claim(jobs)
    jobs.report_progress(suspect, done=2, total=4, stage="s")
    let_expire(jobs, suspect)
    jobs.return_lost()
    (suspect,) = claim(jobs, owner="a")
    seen = []

    for done in (1, 2, 3):
        jobs.report_progress(suspect, done=done, total=4, stage="s")
        seen.append(len(claim(jobs, owner="a")))

    assert seen == [0, 0, 1]
    assert len(claim(jobs, owner="b")) == 1


def test_a_process_that_holds_others_gets_a_suspect_only_when_nobody_else_took_it(
    session, jobs, put
):
    put("files", 4)
    (suspect,) = claim(jobs)
    claim(jobs, owner="busy")
    let_expire(jobs, suspect)
    jobs.return_lost()

    (beside,) = claim(jobs, owner="busy")
    session.execute(
        text("UPDATE jobs SET run_at = run_at - interval '30 seconds' WHERE id = :id"),
        {"id": suspect.id},
    )
    taken = claim(jobs, 3, owner="busy")

    assert beside.id != suspect.id
    assert [held.id for held in taken] == [suspect.id]
    assert claim(jobs, owner="busy") == []


def test_the_loss_of_a_process_with_a_suspect_counts_for_that_alone(session, jobs, put):
    put("files", 4)
    (suspect,) = claim(jobs)
    (innocent,) = claim(jobs, owner="busy")
    let_expire(jobs, suspect)
    jobs.return_lost()
    session.execute(text("UPDATE jobs SET run_at = run_at - interval '30 seconds'"))
    (again,) = claim(jobs, owner="busy")
    let_expire(jobs, innocent)  # a little before the other, which was claimed later
    jobs.return_lost()
    let_expire(jobs, again)
    jobs.return_lost()

    losses = {job.id: job.worker_losses for job in jobs.list().items}
    assert (losses[suspect.id], losses[innocent.id]) == (2, 0)


def test_a_job_that_gets_further_each_time_is_never_quarantined(jobs):
    job_id = jobs.enqueue(NewJob(JobKind.FINETUNE, {})).id

    for done in range(100, 800, 100):  # preempted each time; it goes on from a checkpoint before
        (held,) = claim(jobs, kinds=[JobKind.FINETUNE])
        jobs.report_progress(held, done=done - 150 if done > 150 else 0, total=999, stage="s")
        jobs.report_progress(held, done=done, total=999, stage="s")
        let_expire(jobs, held)
        jobs.return_lost(max_losses=3)

    job = jobs.get(job_id)
    assert (job.state, job.worker_losses) == (JobState.QUEUED, 1)


@pytest.mark.parametrize("reports", [(), (0,), (1, 2, 3)])
def test_a_job_that_gets_no_further_than_before_is_quarantined(jobs, reports):
    job_id = jobs.enqueue(NewJob(JobKind.SEARCH, {})).id

    for _ in range(3):
        (held,) = claim(jobs, kinds=[JobKind.SEARCH])
        for done in reports:
            jobs.report_progress(held, done=done, total=9, stage="s")
        let_expire(jobs, held)
        jobs.return_lost(max_losses=3)

    job = jobs.get(job_id)
    assert (job.state, job.worker_losses) == (JobState.QUARANTINED, 3)


def test_the_end_of_a_queue_is_found_without_reading_it_also_without_statistics(session):
    batch_id = BatchRepository(session).create().id
    session.execute(
        text("""
            INSERT INTO jobs (id, kind, state, priority, input, batch_id, batch_index, turn)
            SELECT gen_random_uuid(), 'ingest', 'queued', 8, '{}', :batch_id, n, n
            FROM generate_series(1, 1000) AS n
        """),
        {"batch_id": batch_id},
    )

    before = num_read(session)
    new = [NewJob(JobKind.INGEST, {}, priority=8, batch_id=batch_id) for _ in range(2)]
    JobRepository(session).enqueue_many(new)
    after = num_read(session)

    turns = "SELECT turn FROM jobs WHERE batch_id = :id ORDER BY turn DESC LIMIT 3"
    assert list(session.scalars(text(turns), {"id": batch_id})) == [1002, 1001, 1000]
    assert after - before < 100


def num_read(session):
    """How many rows of jobs this transaction has read."""
    query = """
        SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
        WHERE relname = 'jobs'
    """
    return session.scalar(text(query))
