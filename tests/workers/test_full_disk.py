"""What workers do while a disk is full: nothing of a job is lost or spent."""

import errno
from datetime import UTC, datetime, timedelta

import pytest

from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from workers.errors import JobError, NoRoom, StorageFull
from workers.jobs.lease import LeaseKeeper
from workers.jobs.retry import GiveUp, StandBack, decide

FULL = OSError(errno.ENOSPC, "No space left on device")


class Disk:
    """A disk that is full or not, as the test says."""

    has_room = True


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def keeper(sessions, disk):
    keeper = LeaseKeeper(
        sessions,
        owner="test",
        lease=timedelta(seconds=60),
        heartbeat_seconds=600,
        stall_seconds=600,
        is_stopping=lambda: False,
        has_room=lambda: disk.has_room,
    )
    yield keeper
    keeper.close()


def enqueue(sessions, kind):
    with sessions.begin() as session:
        return JobRepository(session).enqueue(NewJob(kind, {})).id


def job_of(sessions, job_id):
    with sessions() as session:
        return JobRepository(session).get(job_id)


@pytest.mark.parametrize("error", [FULL, StorageFull("the trainer ended")])
@pytest.mark.parametrize("attempt", [1, 100])
def test_a_full_disk_is_no_reason_to_give_a_job_up_however_often(error, attempt):
    decision = decide(error, attempt=attempt)

    assert isinstance(decision, StandBack)
    assert timedelta(seconds=5) < decision.delay < timedelta(minutes=1)


def test_a_job_s_own_fault_stays_one_whatever_its_file_is_called():
    decision = decide(JobError("not_a_video", "'No space left on device.mp4'"), attempt=1)

    assert isinstance(decision, GiveUp)


def test_a_job_that_met_a_full_disk_waits_with_no_attempt_spent(keeper, sessions):
    job_id = enqueue(sessions, JobKind.INGEST)
    (running,) = keeper.claim([JobKind.INGEST], limit=1)

    keeper.settle(running, FULL)

    job = job_of(sessions, job_id)
    assert (job.state, job.attempt, job.error_code) == (JobState.QUEUED, 0, None)
    assert job.run_at > datetime.now(UTC)


def test_only_what_takes_no_room_is_claimed_while_a_disk_is_full(keeper, sessions, disk):
    kinds = [JobKind.INGEST, JobKind.EMBED, JobKind.FINETUNE, JobKind.SEARCH]
    for kind in kinds:
        enqueue(sessions, kind)
    disk.has_room = False

    held = [running.claim.kind for running in keeper.claim(kinds, limit=10)]
    disk.has_room = True
    later = {running.claim.kind for running in keeper.claim(kinds, limit=10)}

    assert held == [JobKind.SEARCH]
    assert later == {JobKind.INGEST, JobKind.EMBED, JobKind.FINETUNE}


def test_a_finetune_under_way_is_given_back_before_its_checkpoints_fill_the_disk(
    keeper, sessions, disk
):
    finetune_id = enqueue(sessions, JobKind.FINETUNE)
    enqueue(sessions, JobKind.EMBED)
    (finetune,) = keeper.claim([JobKind.FINETUNE], limit=1)
    (embed,) = keeper.claim([JobKind.EMBED], limit=1)
    disk.has_room = False

    keeper.beat()

    embed.check()  # little is missing, and it ends sooner
    with pytest.raises(NoRoom) as raised:
        finetune.check()
    keeper.settle(finetune, raised.value)
    job = job_of(sessions, finetune_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
