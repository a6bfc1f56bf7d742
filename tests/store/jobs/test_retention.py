from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text, update

from store.errors import JobNotFound
from store.jobs.repository import JobRepository, NewJob
from store.jobs.retention import prune_events, prune_jobs
from store.jobs.state import JobKind
from store.jobs.tables import Job, JobEvent
from store.results.questions import QuestionRepository
from store.results.searches import SearchRepository
from store.videos.batches import BatchRepository
from store.videos.locations import VideoLocations
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState

MONTH = timedelta(days=30)
MINUTE = timedelta(minutes=1)


def over(session, kind=JobKind.INGEST, *, days=100, uri=None, result=None, **columns):
    """Add a job that ended some days ago."""
    jobs = JobRepository(session)
    wanted = {"n": uuid4().hex} if uri is None else {"uri": uri}
    job = jobs.enqueue(NewJob(kind, wanted, **columns))
    session.execute(update(Job).where(Job.id == job.id).values(priority=-1))
    (claim,) = jobs.claim([kind], limit=1, owner="a", lease=MINUTE)
    jobs.finish(claim, result or {})
    session.execute(
        text("UPDATE jobs SET finished_at = now() - :ago WHERE id = :id"),
        {"id": job.id, "ago": timedelta(days=days)},
    )
    return job.id


def prune(step, sessions, kept_for=MONTH, **options):
    """Prune to the end, and count the steps."""
    for number in range(1, 100):
        with sessions.begin() as session:
            if step(session, kept_for=kept_for, **options).is_last:
                return number
    raise AssertionError


def left(sessions):
    with sessions.begin() as session:
        return set(session.scalars(select(Job.id)))


def with_events(sessions):
    with sessions.begin() as session:
        return set(session.scalars(select(JobEvent.job_id).distinct()))


def test_old_jobs_go_with_their_events_and_young_ones_stay(sessions):
    with sessions.begin() as session:
        over(session, days=31)
        over(session, JobKind.EMBED, days=31)
        young = over(session, days=29)

    prune(prune_jobs, sessions)

    assert left(sessions) == with_events(sessions) == {young}


def test_pruning_goes_in_steps_and_each_is_committed(sessions):
    with sessions.begin() as session:
        ids = [over(session, days=100 - n) for n in range(5)]

    with sessions.begin() as session:
        first = prune_jobs(session, kept_for=MONTH, limit=2)
    after_one = left(sessions)
    steps = prune(prune_jobs, sessions, limit=2)

    assert (first.num_deleted, first.is_last) == (2, False)
    assert after_one == set(ids[2:])  # the oldest went first
    assert (steps, left(sessions)) == (2, set())


def test_what_shows_a_result_stays(sessions):
    with sessions.begin() as session:
        search = over(session, JobKind.SEARCH)
        SearchRepository(session).create(JobRepository(session).get(search), text="a dog")
        question = over(session, JobKind.QUESTION)
        QuestionRepository(session).create(JobRepository(session).get(question), text="what?")
        finetune, trial = over(session, JobKind.FINETUNE), over(session, JobKind.TRIAL)

    prune(prune_jobs, sessions)

    assert left(sessions) == {search, question, finetune, trial}
    with sessions.begin() as session:
        assert SearchRepository(session).get(search)[1].id == search
        assert QuestionRepository(session).get(question)[1].id == question


def test_items_of_a_batch_that_is_at_work_stay_until_it_is_over(sessions):
    with sessions.begin() as session:
        batch = BatchRepository(session).create("b").id
        done = over(session, batch_id=batch, batch_index=0)
        waiting = JobRepository(session).enqueue(
            NewJob(JobKind.INGEST, {}, batch_id=batch, batch_index=1)
        )

    prune(prune_jobs, sessions)
    while_at_work = left(sessions)
    with sessions.begin() as session:
        JobRepository(session).request_cancel(waiting.id)
    prune(prune_jobs, sessions)  # the passage begins anew

    assert while_at_work == {done, waiting.id}
    assert left(sessions) == {waiting.id}  # it ended just now
    with sessions.begin() as session:
        assert BatchRepository(session).get(batch).name == "b"


def test_jobs_of_a_video_that_is_not_settled_stay(sessions):
    with sessions.begin() as session:
        video, _ = VideoRepository(session).create(uri="file:///a", sha256="a")
        job = over(session, video_id=video.id)

    prune(prune_jobs, sessions)
    with sessions.begin() as session:
        assert left(sessions) == {job}
        VideoRepository(session).mark_ready(video.id)
    prune(prune_jobs, sessions)

    assert left(sessions) == set()


def test_a_video_is_found_by_the_name_of_a_copy_for_ever(sessions):
    with sessions.begin() as session:
        videos = VideoRepository(session)
        video, _ = videos.create(uri="file:///a.mp4", sha256="a", filename="a.mp4")
        videos.mark_ready(video.id)
        over(session, video_id=video.id, result={"filename": "a.mp4"})
        copy = over(session, video_id=video.id, result={"filename": "holiday.mp4"})

    prune(prune_jobs, sessions)

    assert left(sessions) == {copy}
    with sessions.begin() as session:
        found = VideoRepository(session).list(name="holiday.mp4").items
        assert [each.id for each in found] == [video.id]


def test_of_each_place_of_a_copy_the_last_job_stays_and_no_other(sessions):
    with sessions.begin() as session:
        videos = VideoRepository(session)
        video, _ = videos.create(uri="file:///a/v.mp4", sha256="a", filename="v.mp4")
        videos.mark_ready(video.id)
        nights = [
            [
                over(
                    session, video_id=video.id, uri=f"file:///{name}", result={"filename": "v.mp4"}
                )
                for name in ("a/v.mp4", "backup/v.mp4", "other/v.mp4")
            ]
            for _ in range(3)
        ]

    prune(prune_jobs, sessions)

    assert left(sessions) == {*nights[-1][1:]}
    with sessions.begin() as session:
        copies = VideoLocations(session).copies_of(video.id, but="file:///a/v.mp4")
        assert copies == ["file:///other/v.mp4", "file:///backup/v.mp4"]


def test_a_job_that_was_removed_is_not_found_and_its_video_is(sessions):
    with sessions.begin() as session:
        video, _ = VideoRepository(session).create(uri="file:///a", sha256="a")
        VideoRepository(session).mark_ready(video.id)
        job = over(session, video_id=video.id)

    prune(prune_jobs, sessions)

    with sessions.begin() as session, pytest.raises(JobNotFound):
        JobRepository(session).get(job)
    with sessions.begin() as session:
        assert VideoRepository(session).get(video.id).state == VideoState.READY


def test_events_go_before_their_jobs_but_those_of_finetunes_and_of_work_stay(sessions):
    with sessions.begin() as session:
        old, young = over(session, days=31), over(session, days=29)
        search = over(session, JobKind.SEARCH, days=31)
        finetune = over(session, JobKind.FINETUNE, days=31)
        retried = over(session, JobKind.EMBED, days=31)
        session.execute(
            text("UPDATE jobs SET state = 'queued', finished_at = NULL WHERE id = :id"),
            {"id": retried},
        )

    prune(prune_events, sessions)

    assert left(sessions) == {old, young, search, finetune, retried}
    assert with_events(sessions) == {young, finetune, retried}


def test_events_that_are_gone_are_not_sought_again(sessions):
    with sessions.begin() as session:
        for n in range(5):
            over(session, days=100 - n)
    prune(prune_events, sessions, limit=2)

    with sessions.begin() as session:
        over(session, days=31)
    steps = prune(prune_events, sessions, limit=2)

    assert steps == 1
    with sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(JobEvent)) == 0
