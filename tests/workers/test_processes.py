"""Real Celery worker processes."""

import os
import signal
import time

import psutil

from store.job_state import JobState
from store.tables import VideoState
from store.videos import VideoRepository
from tests.workers.library import embed_all
from tests.workers.models import save_recall_model
from tests.workers.service import ONE_FRAME_PASSES, SAMPLES, child_of, wait_for
from workers.deployment import ensure_default


def loaded_libraries(pid):
    """List the shared libraries of a process that belong to torch."""
    return [m.path for m in psutil.Process(pid).memory_maps() if "torch" in m.path]


def test_samples_are_ingested_and_embedded_and_only_children_load_torch(service, tmp_path):
    ensure_default(service.sessions, service.blobs, save_recall_model(tmp_path / "recall"))
    names = ["cockatoo.mp4", "bicycle.avi", "city_night.mpg", "coin_and_pen.mov", "squirrel.mp4"]
    jobs = [service.enqueue_ingest(SAMPLES / name) for name in names]
    # No message was ever sent: a worker looks for what is due when it starts.
    ingest = service.start_worker("ingest", concurrency=2)
    gpu = service.start_worker("interactive,embed")

    ingested = [service.wait_for_state(job_id, JobState.SUCCEEDED) for job_id in jobs]
    embeds = [job.result["embed_job_id"] for job in ingested]
    for job_id in embeds:
        service.wait_for_state(job_id, JobState.SUCCEEDED)

    with service.sessions.begin() as session:
        videos = VideoRepository(session).list().items
    assert {video.filename for video in videos} == set(names)
    assert {video.state for video in videos} == {VideoState.READY}
    assert loaded_libraries(gpu.pid) == []
    assert loaded_libraries(child_of(gpu).pid) != []
    assert loaded_libraries(ingest.pid) == []


def test_a_stopped_worker_gives_its_job_back_and_the_next_one_ends_it(
    service, workplace, tmp_path, long_video
):
    ensure_default(service.sessions, service.blobs, save_recall_model(tmp_path / "recall"))
    embed_id = long_video()
    first = service.start_worker("interactive,embed", **ONE_FRAME_PASSES)
    wait_for(lambda: service.job(embed_id).progress_done > 0)

    stopping_since = time.monotonic()
    service.stop(first)

    job = service.job(embed_id)
    assert time.monotonic() - stopping_since < 20
    assert (job.state, job.attempt, job.worker_losses) == (JobState.QUEUED, 0, 0)
    assert "job.released" in service.logs()
    embed_all(workplace)
    assert service.job(embed_id).state == JobState.SUCCEEDED


def test_a_worker_with_another_pool_does_not_start(service):
    worker = service.start("worker", "-Q", "embed", "--pool", "threads")

    assert worker.wait(30) != 0
    assert "must be prefork" in service.logs()


def test_a_signal_to_the_whole_group_stops_an_idle_worker_at_once(service):
    worker = service.start_worker("ingest", concurrency=2)
    wait_for(lambda: "worker.ready" in service.logs())
    children = psutil.Process(worker.pid).children()

    for process in (worker.pid, *(child.pid for child in children)):
        os.kill(process, signal.SIGTERM)

    assert worker.wait(20) == 0
