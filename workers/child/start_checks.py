"""What a worker refuses to start with: set-ups that lose or double work, or hang."""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Final

import redis
import structlog
from celery import Celery
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from workers.child.visible_gpus import device_fault, usable_gpus
from workers.dispatch import EMBED, FINETUNE, INTERACTIVE

log = structlog.get_logger(__name__)

_TIMEOUT_MARGIN_SECONDS: Final = 300
_OLDEST_KOMBU: Final = (5, 7)
_MODEL_QUEUES: Final = frozenset({INTERACTIVE, EMBED, FINETUNE})


def find_faults(
    app: Celery,
    *,
    pool: str,
    hard_limits: Mapping[str, float],
    redis_url: str,
    device: str,
    num_gpus: Callable[[], int] = usable_gpus,
) -> list[str]:
    """List what is wrong with a worker's set-up, in sentences; empty if nothing is.

    Args:
        app: the configured Celery app.
        pool: module path or alias of the chosen pool.
        hard_limits: seconds by task; the longest one bounds the visibility timeout from below.
        redis_url: the broker.
        device: where models run.
        num_gpus: counts the GPUs, if one is wanted and the worker's queues are those of models.
    """
    faults = []
    if "prefork" not in pool:
        faults.append(
            f"the pool is {pool!r} but must be prefork: only its children can be killed when they "
            "hang, and only in a child may torch be loaded"
        )
    visibility = app.conf.broker_transport_options.get("visibility_timeout", 3600)
    longest = max(hard_limits.values())
    if visibility < longest + _TIMEOUT_MARGIN_SECONDS:
        faults.append(
            f"the broker's visibility_timeout of {visibility} s is not {_TIMEOUT_MARGIN_SECONDS} s "
            f"longer than the longest task limit of {longest} s: Redis would deliver running tasks "
            "a second time"
        )
    kombu = tuple(int(part) for part in version("kombu").split(".")[:2])
    if kombu < _OLDEST_KOMBU:
        faults.append(f"kombu {version('kombu')} stays deaf after a reconnect; 5.7 is needed")
    policy = _eviction_policy(redis_url)
    if policy not in (None, "noeviction"):
        faults.append(
            f"Redis has maxmemory-policy {policy!r} but needs noeviction: it would drop queues"
        )
    # Else it would claim jobs, and fail each.
    if not _MODEL_QUEUES.isdisjoint(app.amqp.queues.consume_from):
        fault = device_fault(device, num_gpus=num_gpus)
        if fault is not None:
            faults.append(f"WORKER_DEVICE={device}, but {fault}")
    return faults


def _eviction_policy(redis_url: str) -> str | None:
    """Ask Redis what it drops when full; None if it does not say."""
    try:
        with redis.Redis.from_url(
            redis_url, socket_connect_timeout=5, socket_timeout=5, decode_responses=True
        ) as client:
            return str(client.config_get("maxmemory-policy").get("maxmemory-policy"))
    except ResponseError as error:  # managed services often forbid CONFIG
        log.warning("redis.policy_unknown", error=str(error))
    except RedisConnectionError as error:  # Celery waits for it; the rows lose nothing meanwhile
        log.warning("redis.unreachable", error=str(error))
    except RedisError as error:
        log.warning("redis.policy_unknown", error=repr(error))
    return None
