"""Redis and PostgreSQL are killed in the middle of a batch, and come back where they were."""

import os
import signal

import pytest
import redis
from videos import write_counting_video

from embedded.account import choose_account
from embedded.servers import EmbeddedServices
from policy.registration import ensure_default
from store.blobs import open_blobs
from store.database import make_sessions, upgrade_schema
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.videos.batches import BatchRepository
from store.videos.records import ItemState
from tests.workers.library import add_video, write_long_video
from tests.workers.service import ONE_FRAME_PASSES, running_service, wait_for
from tests.workers.small_models import save_recall_model

pytestmark = pytest.mark.slow

SETTINGS = {"lease_seconds": "3", "heartbeat_seconds": "0.5", "look_seconds": "0.5"}
NUM_ITEMS = 12


@pytest.fixture
def own_servers(data_folder):
    """Servers that nothing else uses."""
    with EmbeddedServices.start(data_folder) as servers:
        upgrade_schema(servers.database_url)
        yield servers


@pytest.fixture
def own_service(own_servers, data_folder, media_folder):
    sessions = make_sessions(own_servers.database_url)
    with running_service(
        database_url=own_servers.database_url,
        redis_url=own_servers.redis_url,
        blobs=open_blobs((data_folder / "blobs").as_uri()),
        data_folder=data_folder,
        sessions=sessions,
        media_roots=(media_folder,),
    ) as service:
        yield service
    sessions.kw["bind"].dispose()


def make_batch(service, media_folder):
    """Enqueue a batch of distinct videos; gives its id."""
    with service.sessions.begin() as session:
        batch_id = BatchRepository(session).create().id
        for index in range(NUM_ITEMS):
            path = write_counting_video(media_folder / f"{index}.mp4", 20 + index, fps=10)
            new = NewJob(
                JobKind.INGEST, {"uri": path.as_uri()}, batch_id=batch_id, batch_index=index
            )
            JobRepository(session).enqueue(new)
    return batch_id


def num_succeeded(service, batch_id):
    with service.sessions.begin() as session:
        return BatchRepository(session).counts(batch_id)[ItemState.SUCCEEDED]


def kill_servers(servers):
    with redis.Redis.from_url(servers.redis_url) as client:
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
    cluster = choose_account(servers.data_folder).folder / "postgres" / "cluster"
    os.kill(int((cluster / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


def test_a_busy_worker_outlives_a_redis_that_stays_away(own_servers, own_service, media_folder):
    service = own_service
    ensure_default(
        service.sessions, service.blobs, mini_folder=save_recall_model(media_folder / "recall")
    )
    _, embed_id = add_video(service, write_long_video(media_folder))
    # One child is busy, so that a message is in hand; the other waits for the next one.
    worker = service.start_worker("interactive,embed", concurrency=2, **ONE_FRAME_PASSES)
    wait_for(lambda: service.job(embed_id).progress_done > 0)

    with redis.Redis.from_url(own_servers.redis_url) as client:
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
    wait_for(lambda: "Cannot connect to redis" in service.logs() or worker.poll() is not None)
    wait_for(lambda: {restart.name for restart in own_servers.restart_dead()})
    job = service.wait_for_state(embed_id, JobState.SUCCEEDED)

    assert worker.poll() is None
    assert (job.attempt, job.worker_losses) == (1, 0)


def test_a_batch_completes_although_the_servers_were_killed(
    own_servers, own_service, media_folder, tmp_path
):
    service = own_service
    ensure_default(
        service.sessions, service.blobs, mini_folder=save_recall_model(tmp_path / "recall")
    )
    batch_id = make_batch(service, media_folder)
    service.start_reconciler(**SETTINGS)
    service.start_worker("ingest", concurrency=2, **SETTINGS)
    service.start_worker("interactive,embed", **SETTINGS)
    wait_for(lambda: num_succeeded(service, batch_id) >= 2)

    kill_servers(own_servers)
    wait_for(lambda: {restart.name for restart in own_servers.restart_dead()})
    wait_for(lambda: not own_servers.restart_dead())

    wait_for(lambda: num_succeeded(service, batch_id) == NUM_ITEMS, every=0.2)
    assert {job.state for job in service.jobs()} == {JobState.SUCCEEDED}
