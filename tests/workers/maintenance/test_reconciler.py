from datetime import timedelta

import pytest
import redis

from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import GenerationState
from store.table_base import Task
from store.videos.records import NewClip
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState
from workers.dispatch import MAX_RINGS, Doorbell
from workers.maintenance.reconciler import (
    reconcile,
    return_lost_jobs,
    ring_for_due_jobs,
    switch_generation,
)


@pytest.fixture
def generation_of(sessions):
    """Make a generation of a model that is only a row."""

    def make(version):
        with sessions.begin() as session:
            model = ModelRepository(session).register(
                name="m",
                version=version,
                heads=[],
                tasks=[Task.RECALL],
                folder_key=f"models/{version}",
                sha256=version,
                visual_sha256=version,
                config={},
            )
            return (
                GenerationRepository(session)
                .create(model_id=model.id, recall_model_id=model.id, plan={})
                .id
            )

    return make


def make_video(sessions, sha256):
    with sessions.begin() as session:
        return VideoRepository(session).create(uri=f"file:///{sha256}", sha256=sha256)[0].id


def add_clip(sessions, video_id, generation_id):
    clip = NewClip(0, 0.0, 1.0, [0.5], [1.0, 0.0], "tokens/a/b.safetensors")
    with sessions.begin() as session:
        VideoRepository(session).replace_clips(video_id, generation_id, clips=[clip])


def lose(sessions):
    """Claim the one due job as a worker that dies at once."""
    with sessions.begin() as session:
        JobRepository(session).claim(
            [JobKind.EMBED], limit=1, owner="dead", lease=timedelta(seconds=0)
        )


def test_a_lost_job_comes_back_and_the_third_loss_quarantines_it(context, sessions):
    video_id = make_video(sessions, "a")
    with sessions.begin() as session:
        new = NewJob(kind=JobKind.EMBED, input={}, video_id=video_id)
        job_id = JobRepository(session).enqueue(new).id
    states = []

    for _ in range(3):
        lose(sessions)
        return_lost_jobs(context)
        with sessions.begin() as session:
            states.append(JobRepository(session).get(job_id).state)

    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.QUARANTINED]
    with sessions.begin() as session:
        assert JobRepository(session).get(job_id).error_code == "worker_lost"
        video = VideoRepository(session).get(video_id)
    assert (video.state, video.error_code) == (VideoState.FAILED, "worker_lost")


def test_due_rows_without_messages_are_rung_for(context, sessions, redis_url):
    with sessions.begin() as session:
        JobRepository(session).enqueue_many(
            NewJob(kind=JobKind.INGEST, input={}) for _ in range(40)
        )
        JobRepository(session).enqueue(NewJob(kind=JobKind.QUESTION, input={}))

    ring_for_due_jobs(context)
    ring_for_due_jobs(context)

    assert context.doorbell.queue_length("ingest") == MAX_RINGS
    assert context.doorbell.queue_length("interactive") == 1
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    ring_for_due_jobs(context)
    assert context.doorbell.queue_length("ingest") == MAX_RINGS


def test_a_redis_that_is_away_stops_no_other_repair(context, sessions):
    context.doorbell = Doorbell("redis://127.0.0.1:1/0")
    with sessions.begin() as session:
        job_id = JobRepository(session).enqueue(NewJob(kind=JobKind.EMBED, input={})).id
    lose(sessions)

    reconcile(context)

    with sessions.begin() as session:
        assert JobRepository(session).get(job_id).state == JobState.QUEUED


def test_a_building_generation_is_searched_once_it_holds_every_video(
    context, sessions, generation_of
):
    first, second = (make_video(sessions, name) for name in ("a", "b"))
    old, new = generation_of("1"), generation_of("2")
    with sessions.begin() as session:
        GenerationRepository(session).activate(old)
    add_clip(sessions, first, new)

    switch_generation(context)
    with sessions.begin() as session:
        assert GenerationRepository(session).active().id == old

    add_clip(sessions, second, new)
    switch_generation(context)
    with sessions.begin() as session:
        generations = GenerationRepository(session)
        assert generations.active().id == new
        assert generations.get(old).state == GenerationState.RETIRED
        # They had no clips in the old generation, and now can be searched.
        assert VideoRepository(session).counts() == {VideoState.READY: 2}
