import socket
import subprocess
import sys
import time

import pytest

from store.jobs.state import JobKind
from workers.dispatch import INTERACTIVE, MAX_RINGS, QUEUES, Doorbell, queue_of


@pytest.fixture
def doorbell(redis_url):
    doorbell = Doorbell(redis_url)
    yield doorbell
    doorbell.close()


def test_every_kind_of_job_has_a_queue():
    assert {queue_of(kind) for kind in JobKind} <= set(QUEUES)
    with pytest.raises(ValueError, match="no queue"):
        queue_of("laundry")


def test_a_ring_waits_in_its_queue(doorbell):
    assert doorbell.ring(JobKind.SEARCH, "some-id")

    assert doorbell.queue_length(INTERACTIVE) == 1
    assert doorbell.queue_length("ingest") == 0


def test_many_new_jobs_need_few_rings(doorbell):
    assert doorbell.ring_many(JobKind.INGEST, 100_000)

    assert doorbell.queue_length("ingest") == MAX_RINGS


def test_ringing_goes_on_after_redis_lost_everything(doorbell, redis_url):
    import redis

    doorbell.ring(JobKind.INGEST)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()

    assert doorbell.queue_length("ingest") == 0
    assert doorbell.ring(JobKind.INGEST)
    assert doorbell.queue_length("ingest") == 1


def test_a_redis_that_is_away_costs_no_error_and_little_time():
    doorbell = Doorbell("redis://127.0.0.1:1/0")
    begun = time.monotonic()

    assert doorbell.ring(JobKind.INGEST) is False
    assert doorbell.ring_many(JobKind.INGEST, 50) is False
    assert doorbell.queue_length("ingest") is None
    assert time.monotonic() - begun < 10


def test_a_redis_that_hangs_is_waited_for_briefly():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        doorbell = Doorbell(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        begun = time.monotonic()

        assert doorbell.ring(JobKind.INGEST) is False
        assert doorbell.ring_many(JobKind.INGEST, 50) is False
        assert time.monotonic() - begun < 20


def test_the_api_can_import_the_doorbell_without_torch():
    code = "import sys, workers.dispatch; print('torch' in sys.modules or 'av' in sys.modules)"

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "False"
