import pytest
import redis

from workers.app import HARD_LIMIT_SECONDS, make_app
from workers.child.start_checks import find_faults
from workers.dispatch import QUEUES
from workers.settings import WorkerSettings


def faults(
    redis_url,
    *,
    pool="celery.concurrency.prefork",
    limits=HARD_LIMIT_SECONDS,
    device="cpu",
    num_gpus=0,
    queues=QUEUES,
):
    app = make_app(WorkerSettings(redis_url=redis_url))
    app.amqp.queues.select(queues)
    return find_faults(
        app,
        pool=pool,
        hard_limits=limits,
        redis_url=redis_url,
        device=device,
        num_gpus=lambda: num_gpus,
    )


def test_the_shipped_set_up_has_no_faults(redis_url):
    assert faults(redis_url) == []


@pytest.mark.parametrize("pool", ["celery.concurrency.solo", "threads", "gevent"])
def test_a_pool_without_killable_children_is_refused(redis_url, pool):
    (fault,) = faults(redis_url, pool=pool)

    assert "must be prefork" in fault


def test_a_task_longer_than_the_visibility_timeout_is_refused(redis_url):
    (fault,) = faults(redis_url, limits={"a task": 100_000})

    assert "visibility_timeout" in fault


def test_a_redis_that_evicts_is_refused(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        before = client.config_get("maxmemory-policy")
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            (fault,) = faults(redis_url)
        finally:
            client.config_set("maxmemory-policy", *before.values())

    assert "noeviction" in fault


@pytest.mark.parametrize(("device", "num_gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:7", 2)])
@pytest.mark.parametrize("queue", ["interactive", "embed", "finetune"])
def test_a_worker_of_models_without_its_gpu_does_not_start(redis_url, device, num_gpus, queue):
    (fault,) = faults(redis_url, device=device, num_gpus=num_gpus, queues=[queue])

    assert fault.startswith(f"WORKER_DEVICE={device}, but torch sees {num_gpus} GPUs here")


@pytest.mark.parametrize(
    ("device", "num_gpus", "queue"),
    [("cuda:1", 2, "embed"), ("cuda", 1, "embed"), ("auto", 0, "embed"), ("cuda", 0, "ingest")],
)
def test_a_worker_starts_with_its_gpu_or_where_it_needs_none(redis_url, device, num_gpus, queue):
    assert faults(redis_url, device=device, num_gpus=num_gpus, queues=[queue]) == []


def test_a_redis_that_is_away_is_no_fault_since_celery_waits_for_it():
    assert faults("redis://127.0.0.1:1/0") == []


def test_a_heartbeat_too_slow_for_the_lease_is_refused():
    with pytest.raises(ValueError, match="third"):
        WorkerSettings(lease_seconds=20, heartbeat_seconds=10)
