"""Workers that die, hang or wake up too late. Real processes, real signals."""

import os
import signal
import time
from functools import partial

import psutil
import pytest
from videos import write_counting_video

from store.job_state import JobState
from store.tables import VideoState
from tests.workers.library import read_clips, read_video
from tests.workers.models import save_recall_model
from tests.workers.service import ONE_FRAME_PASSES, child_of, wait_for
from workers.deployment import ensure_default
from workers.embedding import embed_next
from workers.reconciler import reconcile
from workers.settings import WorkerSettings

SHORT_LEASE = {"lease_seconds": "3", "heartbeat_seconds": "0.5"}


@pytest.fixture
def embed_id(service, tmp_path, long_video):
    ensure_default(service.sessions, service.blobs, save_recall_model(tmp_path / "recall"))
    return long_video()


def owner_pid(service, job_id, attempt):
    """Find the process that holds a job in its nth attempt; None if none does."""
    job = service.job(job_id)
    is_held = job.state == JobState.RUNNING and job.attempt == attempt
    return int(job.lease_owner.split(":")[1]) if is_held else None


@pytest.mark.slow
def test_a_killed_workers_job_runs_again_and_ends_once(service, embed_id):
    # The shipped lease and heartbeat. Small passes, so that the kill meets the job half done.
    doomed = service.start_worker("interactive,embed", **ONE_FRAME_PASSES)
    service.start_reconciler()
    wait_for(lambda: service.job(embed_id).progress_done > 0, seconds=60)

    child = child_of(doomed)
    killed_at = time.monotonic()
    service.kill(doomed)
    assert service.job(embed_id).state == JobState.RUNNING
    service.start_worker("interactive,embed")
    wait_for(lambda: service.job(embed_id).attempt == 2, seconds=90)
    seconds = time.monotonic() - killed_at
    job = service.wait_for_state(embed_id, JobState.SUCCEEDED)

    assert seconds < 90
    assert not child.is_running()  # the child died with its parent, so nothing ran beside the job
    assert (job.attempt, job.worker_losses) == (2, 1)
    clips = read_clips(service, job.video_id)
    assert [clip.index for clip in clips] == list(range(job.result["clips"]))
    assert read_video(service, job.video_id).state == VideoState.READY
    assert WorkerSettings().lease_seconds == 60


def test_a_worker_that_wakes_up_too_late_writes_nothing(service, workplace, embed_id):
    zombie = service.start_worker("interactive,embed", **ONE_FRAME_PASSES, **SHORT_LEASE)
    wait_for(lambda: service.job(embed_id).progress_done > 0, seconds=60)
    frozen = [psutil.Process(zombie.pid), child_of(zombie)]
    for process in frozen:
        process.suspend()

    wait_for(lambda: (reconcile(workplace), embed_next(workplace))[1], seconds=20)
    job = service.job(embed_id)
    for process in frozen:
        process.resume()
    wait_for(lambda: "job.lease_lost" in service.logs(), seconds=30)

    after = service.job(embed_id)
    assert (job.state, job.lease_token) == (JobState.SUCCEEDED, 2)
    assert (after.lease_token, after.finished_at) == (2, job.finished_at)
    assert len(read_clips(service, job.video_id)) == job.result["clips"]


def test_a_job_that_kills_three_workers_is_quarantined(service, media_folder):
    service.start_reconciler(**SHORT_LEASE)
    worker = service.start_worker("ingest", **SHORT_LEASE)
    job_id = service.enqueue_ingest(write_counting_video(media_folder / "poison.mp4", 3000))

    for attempt in (1, 2, 3):
        pid = wait_for(partial(owner_pid, service, job_id, attempt), seconds=30, every=0.01)
        os.kill(pid, signal.SIGKILL)
    job = service.wait_for_state(job_id, JobState.QUARANTINED)

    assert (job.attempt, job.worker_losses, job.error_code) == (3, 3, "worker_lost")
    assert worker.poll() is None  # Celery put a new child in place of each lost one
