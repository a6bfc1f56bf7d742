"""Redis loses everything, or goes away, in the middle of a batch."""

import shutil

import redis
from videos import write_counting_video

from policy.registration import ensure_default
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.videos.batches import BatchRepository
from store.videos.records import ItemState
from tests.workers.service import wait_for
from tests.workers.small_models import save_recall_model

NUM_ITEMS = 40
NUM_CONTENTS = 8


def make_batch(service, media_folder):
    """Enqueue a batch in which each content comes several times; gives its id."""
    originals = [
        write_counting_video(media_folder / f"{index}.mp4", 20 + 5 * index, fps=10)
        for index in range(NUM_CONTENTS)
    ]
    paths = [
        shutil.copy(originals[index % NUM_CONTENTS], media_folder / f"copy-{index}.mp4")
        for index in range(NUM_ITEMS)
    ]
    with service.sessions.begin() as session:
        batch_id = BatchRepository(session).create().id
        JobRepository(session).enqueue_many(
            NewJob(
                kind=JobKind.INGEST,
                input={"uri": path.as_uri()},
                batch_id=batch_id,
                batch_index=index,
            )
            for index, path in enumerate(paths)
        )
    return batch_id


def counts(service, batch_id):
    with service.sessions.begin() as session:
        return BatchRepository(session).counts(batch_id)


def test_a_batch_completes_although_redis_lost_everything(service, tmp_path, media_folder):
    ensure_default(
        service.sessions, service.blobs, mini_folder=save_recall_model(tmp_path / "recall")
    )
    batch_id = make_batch(service, media_folder)
    service.start_reconciler()
    service.start_worker("ingest", concurrency=2, look_seconds="0.5")
    service.start_worker("interactive,embed", look_seconds="0.5")

    with redis.Redis.from_url(service.redis_url) as client:
        for done in (1, NUM_ITEMS // 4, NUM_ITEMS // 2):
            wait_for(
                lambda done=done: counts(service, batch_id)[ItemState.SUCCEEDED] >= done,
            )
            client.flushall()
    wait_for(lambda: counts(service, batch_id)[ItemState.SUCCEEDED] == NUM_ITEMS, every=0.2)

    embeds = service.jobs(JobKind.EMBED)
    assert len(embeds) == NUM_CONTENTS  # the same content was computed once
    assert {job.state for job in embeds} == {JobState.SUCCEEDED}
    assert all(job.worker_losses == 0 for job in service.jobs())
