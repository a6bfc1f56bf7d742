import time
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import event

from store.database import make_sessions
from store.errors import LeaseLost
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from workers.errors import CancelRequested, HandedBack, JobError, JobLost, PauseRequested, Stopping
from workers.jobs.lease import LeaseKeeper, Outcome


def make_keeper(sessions, **settings):
    stopping = settings.pop("is_stopping", lambda: False)
    defaults = {"lease": timedelta(seconds=60), "heartbeat_seconds": 30, "stall_seconds": 60}
    return LeaseKeeper(sessions, owner="test", is_stopping=stopping, **defaults | settings)


@pytest.fixture
def keeper(sessions):
    keeper = make_keeper(sessions)
    yield keeper
    keeper.close()


@pytest.fixture
def enqueue(sessions):
    def enqueue(**fields):
        with sessions.begin() as session:
            new = NewJob(kind=JobKind.SEARCH, input={"text": "a parrot"}, **fields)
            return JobRepository(session).enqueue(new).id

    return enqueue


def read(sessions, job_id):
    with sessions.begin() as session:
        return JobRepository(session).get(job_id)


def claim_one(keeper):
    (running,) = keeper.claim([JobKind.SEARCH], limit=1)
    return running


def test_a_finished_job_has_its_result_and_effects_in_one_transaction(keeper, enqueue, sessions):
    job_id = enqueue()
    running = claim_one(keeper)

    def write(session):
        JobRepository(session).enqueue(NewJob(kind=JobKind.EMBED, input={}))
        return Outcome({"hits": []})

    keeper.finish(running, write)

    assert read(sessions, job_id).state == JobState.SUCCEEDED
    assert read(sessions, job_id).result == {"hits": []}
    with sessions.begin() as session:
        assert JobRepository(session).due_counts() == {JobKind.EMBED: 1}


def test_a_zombie_writes_nothing_after_another_worker_took_its_job(keeper, enqueue, sessions):
    job_id = enqueue()
    with closing(make_keeper(sessions, lease=timedelta(seconds=0))) as other:
        zombie = claim_one(other)
    with sessions.begin() as session:
        JobRepository(session).return_lost()
    successor = claim_one(keeper)

    def write(session):
        JobRepository(session).enqueue(NewJob(kind=JobKind.EMBED, input={}))
        return Outcome({"from": "zombie"})

    with pytest.raises(LeaseLost):
        keeper.finish(zombie, write)
    keeper.settle(zombie, JobError("bad", "the zombie says so"))
    keeper.finish(successor, lambda _: Outcome({"from": "successor"}))

    assert read(sessions, job_id).result == {"from": "successor"}
    with sessions.begin() as session:
        assert JobRepository(session).due_counts() == {}


def test_an_end_that_the_database_missed_is_written_when_it_is_back(keeper, enqueue, sessions):
    job_id = enqueue()
    running = claim_one(keeper)
    engine = sessions.kw["bind"]

    def refuse(*_):
        raise psycopg.OperationalError("connection refused")

    event.listen(engine, "do_connect", refuse)
    engine.dispose()
    keeper.settle(running, HandedBack("its process goes on without it"))
    event.remove(engine, "do_connect", refuse)
    keeper.beat()

    job = read(sessions, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)  # and not lost with its worker


def test_heartbeats_keep_a_job_that_advances(enqueue, sessions):
    enqueue()
    keeper = make_keeper(
        sessions, lease=timedelta(seconds=0.6), heartbeat_seconds=0.1, stall_seconds=0.5
    )
    running = claim_one(keeper)

    for _ in range(15):
        time.sleep(0.1)
        running.advance()

    with sessions.begin() as session:
        assert JobRepository(session).return_lost() == []
    keeper.close()


def test_a_hung_job_loses_its_lease_although_its_process_lives(enqueue, sessions):
    job_id = enqueue()
    keeper = make_keeper(
        sessions, lease=timedelta(seconds=0.4), heartbeat_seconds=0.1, stall_seconds=0.3
    )
    running = claim_one(keeper)

    time.sleep(1.2)

    with sessions.begin() as session:
        (lost,) = JobRepository(session).return_lost()
    assert lost.id == job_id
    running.touch()
    keeper.beat()
    with pytest.raises(JobLost):
        running.advance()
    keeper.close()


def test_a_cancel_request_reaches_the_work_with_a_heartbeat(keeper, enqueue, sessions):
    job_id = enqueue()
    running = claim_one(keeper)
    running.advance()
    with sessions.begin() as session:
        JobRepository(session).request_cancel(job_id)

    keeper.beat()

    with pytest.raises(CancelRequested) as caught:
        running.advance()
    keeper.settle(running, caught.value)
    assert read(sessions, job_id).state == JobState.CANCELLED


def test_a_pause_request_reaches_the_work_and_lets_the_job_stand_still(keeper, enqueue, sessions):
    with sessions.begin() as session:
        job_id = JobRepository(session).enqueue(NewJob(kind=JobKind.FINETUNE, input={})).id
    (running,) = keeper.claim([JobKind.FINETUNE], limit=1)
    with sessions.begin() as session:
        JobRepository(session).request_pause(job_id)

    keeper.beat()
    with pytest.raises(PauseRequested) as paused:
        running.check()
    keeper.settle(running, paused.value)

    job = read(sessions, job_id)
    assert (job.state, job.attempt, job.lease_owner) == (JobState.PAUSED, 0, None)


def test_a_job_may_have_its_own_patience(enqueue, sessions):
    keeper = make_keeper(sessions, heartbeat_seconds=60, stall_seconds=0.1)
    job_id = enqueue()
    running = claim_one(keeper)
    running.stall_seconds = 60
    before = read(sessions, job_id).lease_expires_at
    time.sleep(0.2)

    keeper.beat()

    assert read(sessions, job_id).lease_expires_at > before
    keeper.close()


def test_an_error_may_have_a_detail(keeper, enqueue, sessions):
    job_id = enqueue()
    running = claim_one(keeper)

    keeper.settle(running, JobError("trainer_lost", "it is gone", detail={"log": "last words"}))

    job = read(sessions, job_id)
    assert (job.error_code, job.error_detail) == ("trainer_lost", {"log": "last words"})


def test_events_of_a_lost_job_are_refused(keeper, enqueue, sessions):
    job_id = enqueue()
    running = claim_one(keeper)
    keeper.add_event(running, "metrics", {"loss": 1.0})
    with sessions.begin() as session:
        JobRepository(session).release(running.claim)

    with pytest.raises(JobLost):
        keeper.add_event(running, "metrics", {"loss": 0.5})

    with sessions.begin() as session:
        events = JobRepository(session).events(job_id)
    assert [event.data for event in events if event.type == "metrics"] == [{"loss": 1.0}]


def test_a_stop_gives_the_job_back_and_counts_no_attempt(enqueue, sessions):
    job_id = enqueue()
    stop = []
    keeper = make_keeper(sessions, is_stopping=lambda: bool(stop))
    running = claim_one(keeper)
    running.advance()
    stop.append("SIGTERM")

    with pytest.raises(Stopping) as caught:
        running.advance()
    keeper.settle(running, caught.value)

    job = read(sessions, job_id)
    assert (job.state, job.attempt, job.worker_losses) == (JobState.QUEUED, 0, 0)
    keeper.close()


def test_a_permanent_error_fails_the_job_with_its_code(keeper, enqueue, sessions):
    job_id = enqueue()

    keeper.settle(claim_one(keeper), JobError("no_qa_model", "no model answers"))

    job = read(sessions, job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "no_qa_model")
    assert job.error_message == "no model answers"


def test_a_transient_error_runs_the_job_again_later(keeper, enqueue, sessions):
    job_id = enqueue()

    keeper.settle(claim_one(keeper), OSError(5, "Input/output error"))

    job = read(sessions, job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 1)
    assert job.run_at >= job.created_at


def test_heartbeats_outlive_an_error(enqueue, sessions, caplog):
    class Broken:
        def begin(self):
            raise OSError("the network is gone")

    enqueue()
    keeper = make_keeper(sessions, heartbeat_seconds=0.05)
    running = claim_one(keeper)
    keeper._sessions = Broken()
    time.sleep(0.2)
    keeper._sessions = sessions
    with sessions.begin() as session:
        JobRepository(session).request_cancel(running.claim.id)
    give_up_at = time.monotonic() + 120  # the error is printed first, which may take its time
    while not running.cancel_requested and time.monotonic() < give_up_at:
        time.sleep(0.05)

    with pytest.raises(CancelRequested):
        running.advance()
    keeper.close()


def test_what_cannot_be_settled_without_the_database_is_let_go(sessions, enqueue, monkeypatch):
    keeper = make_keeper(sessions, lease=timedelta(seconds=1))
    job_id = enqueue()
    running = claim_one(keeper)
    url = sessions.kw["bind"].url.set(database="nowhere")
    away = make_sessions(url.render_as_string(hide_password=False))
    with monkeypatch.context() as patch:
        patch.setattr(keeper, "_sessions", away)
        keeper.settle(running, ValueError("the work failed"))
    time.sleep(1)
    keeper.beat()  # no longer extends it

    with sessions.begin() as session:
        JobRepository(session).return_lost(max_losses=3)
    assert read(sessions, job_id).state == JobState.QUEUED
    keeper.close()
    away.kw["bind"].dispose()
