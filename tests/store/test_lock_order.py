"""Transactions that meet at the same rows: none of them fails."""

import threading
import time
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from store.database import MAX_TRIES, run_in_transaction
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.lock_order import lock_videos
from store.results.questions import QuestionRepository
from store.videos.batches import BatchRepository
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState

MINUTE = timedelta(minutes=1)


@pytest.fixture
def embed(sessions):
    """A video whose embed job is held."""
    with sessions.begin() as session:
        video, _ = VideoRepository(session).create(uri="file:///v.mp4", sha256="0" * 64)
        batch_id = BatchRepository(session).create().id
        jobs = JobRepository(session)
        jobs.enqueue(NewJob(JobKind.EMBED, {}, video_id=video.id, batch_id=batch_id))
        (held,) = jobs.claim([JobKind.EMBED], limit=1, owner="w", lease=MINUTE)
    return held


def in_thread(sessions, work, errors):
    """Begin work in a transaction of another thread; give it time to reach its first lock."""

    def run():
        try:
            with sessions.begin() as session:
                work(session)
        except Exception as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    return thread


WORKER_WRITES = {
    "fails": lambda jobs, held: jobs.fail(held, code="c", message="m"),
    "is cancelled": lambda jobs, held: jobs.mark_cancelled(held),
    "is released": lambda jobs, held: jobs.release(held),
}


@pytest.mark.parametrize("name", WORKER_WRITES)
def test_a_video_is_deleted_while_its_embed_job_ends(sessions, embed, name):
    errors = []
    with sessions.begin() as session:
        lock_videos(session, [embed.video_id])
        # The worker waits for the video, and holds nothing that the deletion needs.
        worker = in_thread(
            sessions, lambda other: WORKER_WRITES[name](JobRepository(other), embed), errors
        )
        VideoRepository(session).delete(embed.video_id)
    worker.join(120)

    assert errors == []
    with sessions.begin() as session:
        job = JobRepository(session).get(embed.id)
    assert job.state in (JobState.FAILED, JobState.CANCELLED)


def test_a_batch_is_cancelled_while_an_embed_job_of_it_fails(sessions, embed):
    errors = []
    with sessions.begin() as session:
        lock_videos(session, [embed.video_id])
        cancel = in_thread(
            sessions, lambda other: BatchRepository(other).cancel(embed.batch_id), errors
        )
        JobRepository(session).fail(embed, code="c", message="m")
    cancel.join(120)

    assert errors == []


def test_a_video_is_deleted_while_a_question_about_it_is_answered(sessions, embed):
    with sessions.begin() as session:
        jobs = JobRepository(session)
        job = jobs.enqueue(NewJob(JobKind.QUESTION, {}, video_id=embed.video_id))
        QuestionRepository(session).create(job, text="what is it?")
        (held,) = jobs.claim([JobKind.QUESTION], limit=1, owner="w", lease=MINUTE)
    errors = []
    with sessions.begin() as session:
        QuestionRepository(session).complete(held.id, {})
        deletion = in_thread(
            sessions, lambda other: VideoRepository(other).delete(embed.video_id), errors
        )
        JobRepository(session).finish(held, {})
    deletion.join(120)

    assert errors == []


def test_lost_jobs_of_a_video_that_is_being_deleted_are_left_for_the_next_time(sessions, embed):
    with sessions.begin() as session:
        JobRepository(session).extend([(embed.id, embed.lease_token)], lease=-MINUTE)
    with sessions.begin() as session:
        lock_videos(session, [embed.video_id])
        with sessions.begin() as reconciler:
            reconciler.execute(text("SET LOCAL lock_timeout = '2s'"))
            during = JobRepository(reconciler).return_lost()
    with sessions.begin() as session:
        after = JobRepository(session).return_lost(max_losses=1)
        video = VideoRepository(session).get(embed.video_id)

    assert (during, len(after)) == ([], 1)
    assert video.state == VideoState.FAILED


def test_heartbeats_and_cancellations_lock_jobs_in_one_order(sessions):
    with sessions.begin() as session:
        jobs = JobRepository(session)
        batch_id = BatchRepository(session).create().id
        jobs.enqueue_many(NewJob(JobKind.INGEST, {}, batch_id=batch_id) for _ in range(200))
        held = jobs.claim([JobKind.INGEST], limit=200, owner="w", lease=MINUTE)
    errors, stop = [], time.monotonic() + 1.5

    def beat(claims):
        while time.monotonic() < stop and not errors:
            with sessions.begin() as session:
                JobRepository(session).extend(claims, lease=MINUTE)

    claims = [(each.id, each.lease_token) for each in held]
    threads = [
        in_thread(sessions, lambda _, some=some: beat(some), errors)
        for some in (claims, claims[::-1])
    ]
    with sessions.begin() as session:
        BatchRepository(session).cancel(batch_id)
    for thread in threads:
        thread.join(120)

    assert errors == []


def make_videos(sessions, count):
    with sessions.begin() as session:
        videos = VideoRepository(session)
        return [videos.create(uri=f"file:///{i}", sha256=uuid4().hex)[0].id for i in range(count)]


def test_the_victim_of_a_deadlock_is_run_again(sessions):
    """Two that lock two rows in contrary orders, so that PostgreSQL ends one of them."""
    first, second = make_videos(sessions, 2)
    meet = threading.Barrier(2, timeout=120)
    tries, errors = [], []

    def work(order):
        mine = []

        def lock_both(session):
            mine.append(order)
            tries.append(order)
            lock_videos(session, [order[0]])
            if len(mine) == 1:
                meet.wait()
            lock_videos(session, [order[1]])

        try:
            run_in_transaction(sessions, lock_both)
        except Exception as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(order,)) for order in ((first, second), (second, first))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert errors == []
    assert len(tries) == 3


def test_who_is_a_victim_again_and_again_is_told_so(sessions):
    tries = []

    def fail(session):
        tries.append(1)
        session.execute(text("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"))

    with pytest.raises(OperationalError):
        run_in_transaction(sessions, fail)

    assert len(tries) == MAX_TRIES


def test_other_errors_are_not_tried_again(sessions):
    tries = []

    def fail(session):
        tries.append(1)
        session.execute(text("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$"))

    with pytest.raises(OperationalError):
        run_in_transaction(sessions, fail)

    assert len(tries) == 1
