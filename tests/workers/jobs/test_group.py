"""Jobs that share a process: each has its own outcome, whatever becomes of the others."""

import time
from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from store.errors import VideoNotFound
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from workers.errors import JobError
from workers.jobs.group import JobGroup
from workers.jobs.lease import LeaseKeeper, Outcome

DEVICE_LOST = RuntimeError("CUDA error: device-side assert triggered")


class Left(BaseException):
    """The process would have ended."""


def leave(event, error):
    raise Left(event)


@pytest.fixture
def keeper(sessions):
    keeper = LeaseKeeper(
        sessions,
        owner="test",
        lease=timedelta(seconds=60),
        heartbeat_seconds=30,
        stall_seconds=0.3,
        is_stopping=lambda: False,
    )
    yield keeper
    keeper.close()


@pytest.fixture
def claim(keeper, sessions):
    def claim(number):
        with sessions.begin() as session:
            jobs = JobRepository(session)
            for _ in range(number):
                jobs.enqueue(NewJob(kind=JobKind.SEARCH, input={"text": "a parrot"}))
        return keeper.claim([JobKind.SEARCH], limit=number)

    return claim


@pytest.fixture
def group_of(keeper):
    def group_of(jobs, **settings):
        group = JobGroup(keeper, leave=leave, **settings)
        group.add(jobs)
        return group

    return group_of


def read(sessions, job):
    with sessions.begin() as session:
        return JobRepository(session).get(job.claim.id)


def raising(error):
    def raise_it(*_):
        raise error

    return raise_it


def test_what_a_step_of_one_job_raises_is_the_outcome_of_that_job_alone(claim, group_of, sessions):
    bad, good = claim(2)
    group = group_of([bad, good])

    group.attempt(raising(JobError("broken", "it is broken")), bad)
    group.finish(good, lambda _: Outcome({"fine": True}))

    assert read(sessions, bad).error_code == "broken"
    assert read(sessions, good).result == {"fine": True}


def test_a_job_is_settled_once(claim, group_of, sessions):
    (job,) = claim(1)
    group = group_of([job])

    group.settle(job, JobError("first", "the first word"))
    group.settle(job, JobError("second", "a later word"))
    group.attempt(raising(JobError("third", "the last word")), job)

    assert read(sessions, job).error_code == "first"
    assert not group.finish(job, lambda _: Outcome({}))


@pytest.mark.parametrize(
    "error", [OperationalError("UPDATE", {}, Exception("gone")), PoolTimeout("no connection")]
)
def test_a_database_outage_at_the_end_of_one_job_is_that_jobs_alone(
    claim, group_of, sessions, error
):
    unlucky, lucky = claim(2)
    group = group_of([unlucky, lucky])

    assert not group.finish(unlucky, raising(error))
    assert group.finish(lucky, lambda _: Outcome({"fine": True}))

    assert read(sessions, unlucky).state in (JobState.QUEUED, JobState.FAILED)
    assert read(sessions, lucky).state == JobState.SUCCEEDED


def test_an_outcome_that_cannot_be_written_is_let_go(claim, group_of, keeper, monkeypatch):
    unlucky, lucky = claim(2)
    group = group_of([unlucky, lucky])

    with monkeypatch.context() as patch:
        patch.setattr(keeper, "settle", raising(PoolTimeout("no connection")))
        group.settle(unlucky, JobError("broken", "it is broken"))

    assert not group.is_open(unlucky)
    assert group.advance(lucky)


def test_a_job_that_waits_for_its_turn_keeps_its_lease(claim, keeper, sessions):
    waiting, advancing = claim(2)
    before = read(sessions, waiting).lease_expires_at
    time.sleep(0.4)

    advancing.advance()
    keeper.beat()  # within the patience of 0.3 s

    assert read(sessions, waiting).lease_expires_at > before


def test_to_be_looked_after_is_not_to_advance(claim, group_of):
    (job,) = claim(1)
    group = group_of([job])
    advanced_at = job.advanced_at

    assert group.check(job)

    assert job.advanced_at == advanced_at
    job.cancel_requested = True
    assert not group.check(job)


def test_a_process_in_which_nothing_advances_loses_its_leases(claim, keeper, sessions):
    waiting, _ = claim(2)
    before = read(sessions, waiting).lease_expires_at
    time.sleep(0.4)

    keeper.beat()

    assert read(sessions, waiting).lease_expires_at == before


def test_a_lost_device_charges_those_in_the_pass_and_hands_back_the_others(
    claim, group_of, keeper, sessions
):
    in_pass, waiting, of_another_group = claim(3)
    group = group_of([in_pass, waiting])
    group_of([of_another_group])

    with pytest.raises(Left, match=r"device\.lost"):
        group.attempt(raising(DEVICE_LOST), in_pass)

    charged = read(sessions, in_pass)
    assert (charged.state, charged.attempt, charged.error_code) == ("queued", 1, "device_lost")
    for job in (waiting, of_another_group):
        handed_back = read(sessions, job)
        assert (handed_back.state, handed_back.attempt, handed_back.error_code) == (
            "queued",
            0,
            None,
        )


def test_what_can_be_gone_on_from_is_kept_before_the_process_ends(claim, group_of, sessions):
    hung, other = claim(2)
    kept = []
    group = group_of([hung, other], keep=lambda: kept.append(read(sessions, other).state))

    with pytest.raises(Left):
        group.leave("decode.stuck", JobError("decode_failed", "decoding took too long"), hung)

    assert kept == [JobState.RUNNING]
    assert read(sessions, hung).state == JobState.FAILED
    assert (read(sessions, other).state, read(sessions, other).attempt) == (JobState.QUEUED, 0)


def test_jobs_that_are_released_were_never_started(claim, group_of, sessions):
    jobs = claim(2)
    group = group_of(jobs)

    group.release(jobs)

    assert [(read(sessions, job).state, read(sessions, job).attempt) for job in jobs] == [
        ("queued", 0)
    ] * 2
    assert not any(group.is_open(job) for job in jobs)


def test_a_deleted_video_or_a_cancellation_settles_its_job_alone(claim, group_of, keeper, sessions):
    deleted, cancelled, other = claim(3)
    group = group_of([deleted, cancelled, other])
    with sessions.begin() as session:
        JobRepository(session).request_cancel(cancelled.claim.id)
    other.touch()  # on a slow machine the patience of this keeper is over by now
    keeper.beat()

    group.attempt(raising(VideoNotFound(deleted.claim.id)), deleted)

    assert [group.advance(job) for job in (deleted, cancelled, other)] == [False, False, True]
    assert read(sessions, cancelled).state == JobState.CANCELLED


def test_an_idle_process_does_not_sit_on_jobs(sessions, claim):
    claim(1)
    keeper = LeaseKeeper(
        sessions,
        owner="idle",
        lease=timedelta(seconds=0.6),
        heartbeat_seconds=30,
        stall_seconds=60,
        is_stopping=lambda: False,
        is_idle=lambda: True,
    )
    with sessions.begin() as session:
        JobRepository(session).enqueue(NewJob(kind=JobKind.EMBED, input={}))
    (job,) = keeper.claim([JobKind.EMBED], limit=1)
    time.sleep(0.4)

    keeper.beat()

    assert (read(sessions, job).state, read(sessions, job).attempt) == (JobState.QUEUED, 0)
    keeper.close()
