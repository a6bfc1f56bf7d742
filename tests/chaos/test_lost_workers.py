"""Workers that die, hang or wake up too late. Real processes, real signals."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from sqlalchemy import make_url
from videos import write_counting_video

from policy.registration import ensure_default
from store.blobs import open_blobs
from store.database import make_sessions
from store.jobs.repository import JobRepository
from store.jobs.state import JobState
from store.videos.tables import VideoState
from tests.conftest import TEMPLATE, Services
from tests.workers.library import add_video, read_clips, read_video, write_long_video
from tests.workers.service import ONE_FRAME_PASSES, Service, child_of, running_service, wait_for
from tests.workers.small_models import save_recall_model
from workers.indexing.embedding import embed_next
from workers.maintenance.reconciler import reconcile
from workers.settings import WorkerSettings

SHORT_LEASE = {"lease_seconds": "3", "heartbeat_seconds": "0.5"}


@dataclass(frozen=True)
class Killed:
    """What is left of a worker that was killed in the middle of an embed job."""

    service: Service
    embed_id: UUID
    child: psutil.Process
    at: float


@pytest.fixture(scope="module", autouse=True)
def killed(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """Kill a worker first of all: the shipped lease takes a minute, in which the others run.

    It has the shipped lease and heartbeat, and a Redis database of its own.
    """
    name = f"killed_{os.getpid()}"
    services.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    url = make_url(services.database_url).set(database=name).render_as_string(hide_password=False)
    folder = tmp_path_factory.mktemp("killed")
    sessions = make_sessions(url)
    try:
        with running_service(
            database_url=url,
            redis_url=services.redis_url.removesuffix("/0") + "/1",
            blobs=open_blobs((folder / "blobs").as_uri()),
            data_folder=folder,
            sessions=sessions,
            media_roots=(folder,),
        ) as service:
            yield kill_in_the_middle(service, folder)
    finally:
        sessions.kw["bind"].dispose()
        services.execute(f"DROP DATABASE {name} WITH (FORCE)")


def kill_in_the_middle(service: Service, folder: Path) -> Killed:
    ensure_default(
        service.sessions, service.blobs, mini_folder=save_recall_model(folder / "recall")
    )
    embed_id = add_video(service, write_long_video(folder))[1]
    doomed = service.start_worker("interactive,embed", **ONE_FRAME_PASSES)
    service.start_reconciler()
    wait_for(lambda: service.job(embed_id).progress_done > 0)
    child = child_of(doomed)
    service.kill(doomed)
    service.start_worker("interactive,embed")
    return Killed(service, embed_id, child, time.monotonic())


@pytest.fixture
def embed_id(service, tmp_path, long_video):
    ensure_default(
        service.sessions, service.blobs, mini_folder=save_recall_model(tmp_path / "recall")
    )
    return long_video()


def test_a_worker_that_wakes_up_too_late_writes_nothing(service, context, embed_id):
    zombie = service.start_worker("interactive,embed", **ONE_FRAME_PASSES, **SHORT_LEASE)
    wait_for(lambda: service.job(embed_id).progress_done > 0)
    frozen = [psutil.Process(zombie.pid), child_of(zombie)]
    for process in frozen:
        process.suspend()

    wait_for(lambda: (reconcile(context), embed_next(context))[1])
    job = service.job(embed_id)
    for process in frozen:
        process.resume()
    wait_for(lambda: "job.lease_lost" in service.logs())

    after = service.job(embed_id)
    assert (job.state, job.lease_token) == (JobState.SUCCEEDED, 2)
    assert (after.lease_token, after.finished_at) == (2, job.finished_at)
    assert len(read_clips(service, job.video_id)) == job.result["clips"]


def test_a_job_that_kills_three_workers_is_quarantined(service, context, media_folder):
    worker = service.start_worker("ingest", **SHORT_LEASE)
    job_id = service.enqueue_ingest(write_counting_video(media_folder / "poison.mp4", 3000))

    def held_by(attempt):
        """Find the process that holds the job in this attempt; None if none does yet."""
        reconcile(context)
        job = service.job(job_id)
        is_held = job.state == JobState.RUNNING and job.attempt == attempt
        return int(job.lease_owner.split(":")[1]) if is_held else None

    for attempt in (1, 2, 3):
        os.kill(wait_for(partial(held_by, attempt), every=0.02), signal.SIGKILL)
    wait_for(lambda: reconcile(context) or service.job(job_id).state == JobState.QUARANTINED)

    job = service.job(job_id)
    assert (job.attempt, job.worker_losses, job.error_code) == (3, 3, "worker_lost")
    assert worker.poll() is None  # Celery put a new child in place of each lost one


@pytest.mark.slow
def test_a_killed_workers_job_runs_again_and_ends_once(killed):
    service = killed.service
    wait_for(lambda: service.job(killed.embed_id).attempt == 2, seconds=90)
    job = service.wait_for_state(killed.embed_id, JobState.SUCCEEDED)

    with service.sessions.begin() as session:
        events = JobRepository(session).events(killed.embed_id)
    (lost,) = [event for event in events if event.type == "lost"]
    _, second = [event for event in events if event.type == "claimed"]
    killed_at = datetime.now(UTC) - timedelta(seconds=time.monotonic() - killed.at)
    assert second.created_at > lost.created_at
    assert second.created_at - killed_at < timedelta(seconds=90)
    # Somebody on its machine saw that it is gone, long before its lease ended.
    assert lost.created_at - killed_at < timedelta(seconds=WorkerSettings().lease_seconds / 2)
    assert not killed.child.is_running()  # it died with its parent, so nothing ran beside the job
    # It got further than it was when it was lost, so that its losses are counted anew.
    assert (job.attempt, job.worker_losses, lost.data["losses"]) == (2, 0, 1)
    clips = read_clips(service, job.video_id)
    assert [clip.index for clip in clips] == list(range(256))
    assert read_video(service, job.video_id).state == VideoState.READY
    assert WorkerSettings().lease_seconds == 60
