"""Ring a queue's doorbell: all that the API may import from the workers.

The row in PostgreSQL is the job; a message only says "look". So losing or duplicating a message, or
never sending it, is harmless: the reconciler rings again for every row that is due and held by
nobody.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import structlog
from celery import Celery
from kombu import Queue

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

INGEST: Final = "ingest"
EMBED: Final = "embed"
INTERACTIVE: Final = "interactive"
FINETUNE: Final = "finetune"
MAINTENANCE: Final = "maintenance"
QUEUES: Final = (INGEST, EMBED, INTERACTIVE, FINETUNE, MAINTENANCE)

_QUEUE_OF_KIND: Final = {
    "ingest": INGEST,
    "embed": EMBED,
    "search": INTERACTIVE,
    "question": INTERACTIVE,
    "finetune": FINETUNE,
    "trial": INTERACTIVE,
}

LOOK_TASKS: Final = {
    INGEST: "workers.tasks.ingest.look",
    EMBED: "workers.tasks.embed.look",
    INTERACTIVE: "workers.tasks.interactive.look",
    FINETUNE: "workers.tasks.finetune.look",
}
RECONCILE_TASK: Final = "workers.tasks.maintenance.reconcile"
SCHEDULES_TASK: Final = "workers.tasks.maintenance.schedules"
SWEEP_TASK: Final = "workers.tasks.maintenance.sweep"
TRIALS_TASK: Final = "workers.tasks.maintenance.trials"

MAX_RINGS: Final = 16  # one look works until nothing is due, so a bulk insert needs few of them
KEY_PREFIX: Final = "clipbert:"  # our keys in a Redis that others may use too

_CONNECT_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 1.0
_PAUSE_AFTER_FAILURE_SECONDS: Final = 2.0  # a Redis that hangs may not slow every request down


def queue_of(kind: str) -> str:
    """Name the queue that the jobs of a kind are rung on.

    Raises:
        ValueError: no such kind of job.
    """
    try:
        return _QUEUE_OF_KIND[kind]
    except KeyError:
        raise ValueError(f"no queue for jobs of kind {kind!r}") from None


def celery_queues() -> tuple[Queue, ...]:
    """Declare the queues; on Redis each is one list, sent to without an exchange's binding."""
    return tuple(Queue(name, routing_key=name) for name in QUEUES)


class Doorbell:
    """Sends "look" messages. Never raises and never blocks for more than about two seconds.

    Args:
        redis_url: where the workers' queues are, such as redis://localhost:6379/0.
    """

    def __init__(self, redis_url: str) -> None:
        self._app = Celery("workers.dispatch", broker=redis_url, set_as_current=False)
        self._app.conf.update(
            task_queues=celery_queues(),
            task_serializer="json",
            accept_content=["json"],
            task_ignore_result=True,
            task_create_missing_queues=False,
            task_publish_retry=False,  # the reconciler is the retry
            broker_pool_limit=64,  # more than the API has threads: none waits for another
            broker_connection_timeout=_CONNECT_SECONDS,
            broker_transport_options={
                "global_keyprefix": KEY_PREFIX,
                "socket_connect_timeout": _CONNECT_SECONDS,
                "socket_timeout": _ANSWER_SECONDS,
                "retry_on_timeout": False,
                "max_retries": 1,
                "interval_start": 0,
                "interval_step": 0,
                "interval_max": 0,
            },
        )
        self._lock = threading.Lock()
        self._silent_until = 0.0

    def ring(self, kind: str, job_id: object | None = None) -> bool:
        """Ring for the workers to look for due jobs of a kind.

        Args:
            kind: ingest, embed, search, question or finetune.
            job_id: the job that made somebody ring; for the logs only.

        Returns:
            Whether Redis took the message. False needs no action: the reconciler rings again.
        """
        return self.ring_queue(queue_of(kind), job_id)

    def ring_many(self, kind: str, count: int) -> bool:
        """Ring for `count` new jobs: at most MAX_RINGS messages, since a look takes many jobs."""
        queue = queue_of(kind)
        return all(self.ring_queue(queue) for _ in range(min(count, MAX_RINGS)))

    def ring_queue(self, queue: str, job_id: object | None = None) -> bool:
        """Ring a queue by its own name; see `ring`."""
        with self._lock:
            if time.monotonic() < self._silent_until:
                return False

        def send() -> bool:
            self._app.send_task(
                LOOK_TASKS[queue],
                kwargs={"job_id": None if job_id is None else str(job_id)},
                queue=queue,
                retry=False,
                ignore_result=True,
            )
            return True

        # If not, the row is safe: the reconciler sends it again.
        was_sent = _ask_redis(send, "doorbell.failed", queue=queue) is not None
        if not was_sent:
            with self._lock:
                self._silent_until = time.monotonic() + _PAUSE_AFTER_FAILURE_SECONDS
        return was_sent

    def queue_length(self, queue: str) -> int | None:
        """Count the messages waiting in a queue; None when Redis does not answer."""

        def count() -> int:
            with self._app.connection_for_write() as connection:
                channel: Any = connection.default_channel  # typed as of another transport
                # Not passive: that form asks kombu 5.7 for the key without its prefix. On Redis to
                # declare a queue again changes nothing.
                return int(channel.queue_declare(queue=queue).message_count)

        return _ask_redis(count, "queue.unreachable", queue=queue)

    def close(self) -> None:
        """Close the pooled connections."""
        self._app.close()


def _ask_redis(ask: Callable[[], Answer], event: str, *, queue: str) -> Answer | None:
    """Return what Redis answers; None if it does not, which is logged as an event."""
    try:
        return ask()
    except Exception as error:  # noqa: BLE001  the edge to Redis, and what Celery makes of it
        log.warning(event, queue=queue, error=repr(error))
        return None
