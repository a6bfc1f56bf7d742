"""Finetunes stand still when they are told to, and go on from where they were."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from store.errors import IllegalMove, JobNotFound, LeaseLost
from store.jobs.records import LeaseStatus
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job

MINUTE = timedelta(minutes=1)


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def jobs(session):
    return JobRepository(session)


def enqueue(jobs, **values):
    return jobs.enqueue(NewJob(JobKind.FINETUNE, {"task": "qa"}, **values))


def claim(jobs):
    claims = jobs.claim([JobKind.FINETUNE], limit=1, owner="test", lease=MINUTE)
    return claims[0] if claims else None


def status(jobs, claimed):
    return jobs.extend([(claimed.id, claimed.lease_token)], lease=MINUTE)[claimed.id]


def types_of(jobs, job_id):
    events = jobs.events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.type for event in events]


def test_a_waiting_job_is_paused_at_once(jobs):
    job = enqueue(jobs)

    paused = jobs.request_pause(job.id)

    assert paused.state == JobState.PAUSED
    assert claim(jobs) is None
    assert jobs.request_pause(job.id).state == JobState.PAUSED
    assert types_of(jobs, job.id) == ["queued", "paused"]


def test_the_worker_of_a_running_job_is_asked_to_pause_it(jobs):
    job = enqueue(jobs)
    claimed = claim(jobs)
    before = status(jobs, claimed)

    asked = jobs.request_pause(job.id)
    jobs.request_pause(job.id)
    during = status(jobs, claimed)
    jobs.mark_paused(claimed)

    assert before == LeaseStatus(held=True, cancel_requested=False, pause_requested=False)
    assert (asked.state, asked.pause_requested_at is None) == (JobState.RUNNING, False)
    assert during == LeaseStatus(held=True, cancel_requested=False, pause_requested=True)
    after = jobs.get(job.id)
    assert (after.state, after.pause_requested_at, after.attempt) == (JobState.PAUSED, None, 0)
    assert (after.lease_owner, after.finished_at) == (None, None)
    assert types_of(jobs, job.id) == ["queued", "claimed", "pause_requested", "paused"]
    assert not status(jobs, claimed).held


def test_a_resumed_job_is_claimed_again(jobs):
    job = enqueue(jobs)
    first = claim(jobs)
    jobs.request_pause(job.id)
    jobs.mark_paused(first)

    resumed = jobs.resume(job.id)
    second = claim(jobs)

    assert resumed.state == JobState.QUEUED
    assert second.lease_token > first.lease_token
    assert not status(jobs, second).pause_requested
    with pytest.raises(LeaseLost):
        jobs.mark_paused(first)


def test_a_paused_job_can_be_cancelled(jobs):
    job = enqueue(jobs)
    jobs.request_pause(job.id)

    assert jobs.request_cancel(job.id).state == JobState.CANCELLED


def test_a_cancellation_goes_before_a_pause(jobs):
    job = enqueue(jobs)
    claimed = claim(jobs)
    jobs.request_pause(job.id)
    jobs.request_cancel(job.id)

    during = status(jobs, claimed)
    jobs.mark_paused(claimed)

    assert during == LeaseStatus(held=True, cancel_requested=True, pause_requested=False)
    assert jobs.get(job.id).state == JobState.CANCELLED
    assert types_of(jobs, job.id)[-1] == "cancelled"


def test_a_job_that_is_given_back_while_it_should_pause_is_paused(jobs):
    job = enqueue(jobs)
    claimed = claim(jobs)
    jobs.request_pause(job.id)

    jobs.retry_later(claimed, run_at=datetime.now(UTC), code="c", message="m")

    assert jobs.get(job.id).state == JobState.PAUSED
    assert types_of(jobs, job.id)[-2:] == ["retry_scheduled", "paused"]


def test_a_job_that_lost_its_worker_while_it_should_pause_is_paused(jobs, session):
    job = enqueue(jobs)
    claim(jobs)
    jobs.request_pause(job.id)
    session.execute(text("UPDATE jobs SET lease_expires_at = now() - interval '1 second'"))

    [lost] = jobs.return_lost()

    assert lost.state == JobState.PAUSED
    assert jobs.get(job.id).pause_requested_at is None
    assert jobs.resume(job.id).state == JobState.QUEUED


def test_a_job_that_is_done_before_it_hears_of_the_pause_has_succeeded(jobs):
    job = enqueue(jobs)
    claimed = claim(jobs)
    jobs.request_pause(job.id)

    jobs.finish(claimed, {})

    done = jobs.get(job.id)
    assert (done.state, done.pause_requested_at) == (JobState.SUCCEEDED, None)


def test_only_finetunes_pause_and_only_paused_ones_resume(jobs):
    search = jobs.enqueue(NewJob(JobKind.SEARCH, {"text": "a parrot"}))
    job = enqueue(jobs)

    with pytest.raises(IllegalMove, match="only finetunes can pause"):
        jobs.request_pause(search.id)
    with pytest.raises(IllegalMove, match="only a paused job goes on"):
        jobs.resume(job.id)
    jobs.request_cancel(job.id)
    with pytest.raises(IllegalMove):
        jobs.request_pause(job.id)
    with pytest.raises(JobNotFound):
        jobs.request_pause(uuid4())
    with pytest.raises(JobNotFound):
        jobs.resume(uuid4())


def test_paused_jobs_are_cancelled_with_the_rest(jobs):
    first, second = enqueue(jobs), enqueue(jobs)
    jobs.request_pause(first.id)

    assert jobs.cancel_where(Job.kind == JobKind.FINETUNE) == 2
    assert {jobs.get(job.id).state for job in (first, second)} == {JobState.CANCELLED}


def test_events_of_a_job_at_work_carry_its_token(jobs):
    job = enqueue(jobs)
    claimed = claim(jobs)

    jobs.add_event(claimed, "metrics", {"step": 1, "loss": 0.5})

    assert jobs.events(job.id)[-1].data == {"step": 1, "loss": 0.5}
    assert types_of(jobs, job.id) == ["queued", "claimed", "metrics"]
    jobs.release(claimed)
    with pytest.raises(LeaseLost):
        jobs.add_event(claimed, "metrics", {})
    with pytest.raises(ValueError, match="JSON compliant"):
        jobs.add_event(claim(jobs), "metrics", {"loss": float("nan")})
