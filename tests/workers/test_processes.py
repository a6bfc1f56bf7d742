"""Real Celery worker processes."""

import os
import signal
import time

import psutil
import pytest
import sqlalchemy

from policy.registration import ensure_default
from store.jobs.state import JobState
from tests.workers.library import embed_all
from tests.workers.service import ONE_FRAME_PASSES, wait_for
from tests.workers.small_models import save_recall_model


@pytest.fixture(autouse=True)
def cold(service):
    service.starts_cold = True


def test_a_stopped_worker_gives_its_job_back_and_the_next_one_ends_it(
    service, context, tmp_path, long_video
):
    ensure_default(
        service.sessions, service.blobs, mini_folder=save_recall_model(tmp_path / "recall")
    )
    embed_id = long_video()
    first = service.start_worker("interactive,embed", **ONE_FRAME_PASSES)
    wait_for(lambda: service.job(embed_id).progress_done > 0)

    stopping_since = time.monotonic()
    service.stop(first)

    job = service.job(embed_id)
    assert time.monotonic() - stopping_since < 20
    assert (job.state, job.attempt, job.worker_losses) == (JobState.QUEUED, 0, 0)
    assert "job.released" in service.logs()
    embed_all(context)
    assert service.job(embed_id).state == JobState.SUCCEEDED


def test_a_worker_with_another_pool_does_not_start(service):
    worker = service.start("worker", "-Q", "embed", "--pool", "threads")

    assert worker.wait(120) != 0
    assert "must be prefork" in service.logs()


def test_a_signal_to_the_whole_group_stops_an_idle_worker_at_once(service):
    worker = service.start_worker("ingest", concurrency=2)
    wait_for(lambda: "worker.ready" in service.logs())
    children = psutil.Process(worker.pid).children()

    for process in (worker.pid, *(child.pid for child in children)):
        os.kill(process, signal.SIGTERM)

    assert worker.wait(120) == 0


def test_a_worker_that_cannot_reach_the_database_logs_no_password(service):
    url = sqlalchemy.make_url(service.database_url).set(database="nowhere")
    service.database_url = url.render_as_string(hide_password=False)

    service.start_worker("ingest")
    wait_for(lambda: "OperationalError" in service.logs())

    assert '"exception": [{' in service.logs()
    assert url.password not in service.logs()
