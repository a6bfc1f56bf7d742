"""The Celery app: its settings only, each with its reason. `celery -A workers.app worker -Q ...`.

This module and all it imports run in the parent of the worker's processes, where torch must not be
imported: one CPU operation of torch in the parent makes the forked child's next one hang.
"""

import os
from typing import Any, Final

from celery import Celery
from celery.beat import Scheduler

from workers.broker import forget_what_was_lost
from workers.child.lifecycle import connect_signals
from workers.dispatch import (
    EMBED,
    INGEST,
    INTERACTIVE,
    KEY_PREFIX,
    LOOK_TASKS,
    MAINTENANCE,
    RECONCILE_TASK,
    SCHEDULES_TASK,
    SWEEP_TASK,
    TRIALS_TASK,
    celery_queues,
)
from workers.settings import WorkerSettings

# OpenMP's threads spin while they wait for one another. Where two processes compute on the same
# cores, a finetune beside an index, each waits for cores on which the other's threads spin
# (benchmarks/two_on_cpu.py). Set before torch is loaded; subprocesses inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A look ends after about half a minute, between two jobs or chunks; these are for those that hang.
# A finetune takes hours and has none: its lease ends when it does not get further. Its message is
# acknowledged before it begins, so that the visibility timeout need not be longer than it either.
HARD_LIMIT_SECONDS: Final = {
    LOOK_TASKS[INGEST]: 900,
    LOOK_TASKS[EMBED]: 1800,
    LOOK_TASKS[INTERACTIVE]: 600,
    RECONCILE_TASK: 120,
    SCHEDULES_TASK: 1800,  # a fire freezes its labels, and there may be millions
    SWEEP_TASK: 900,
    TRIALS_TASK: 120,
}
# Longer than the longest task: otherwise Redis hands a running task to a second worker. The rows
# would refuse it, but it would be noise. A killed worker's jobs come back by their leases instead.
VISIBILITY_TIMEOUT_SECONDS: Final = max(HARD_LIMIT_SECONDS.values()) + 900
RECONCILE_EVERY_SECONDS: Final = 5.0
SCHEDULES_EVERY_SECONDS: Final = 1.0
SWEEP_EVERY_SECONDS: Final = 900.0
TRIALS_EVERY_SECONDS: Final = 30.0


class RingScheduler(Scheduler):
    """Beat that keeps nothing on disk: it only rings, and what is due stands in PostgreSQL."""

    def setup_schedule(self) -> None:
        """Take the entries of the settings."""
        self.merge_inplace(self.app.conf.beat_schedule)


def make_app(settings: WorkerSettings) -> Celery:
    """Make the Celery app that `-A workers.app` runs."""
    forget_what_was_lost()
    app = Celery("workers", broker=settings.redis_url)
    app.conf.update(
        # Messages are doorbells: the job, its result and its retries are rows in PostgreSQL.
        task_ignore_result=True,
        result_backend=None,
        task_store_errors_even_if_ignored=False,
        # A pickle in a message would run as code.
        task_serializer="json",
        accept_content=["json"],
        # A misspelt queue is an error, not a queue that nobody reads.
        task_queues=celery_queues(),
        task_create_missing_queues=False,
        imports=[f"workers.tasks.{name}" for name in ("ingest", "embed", "interactive", "finetune")]
        + ["workers.tasks.maintenance"],
        # Late, so that a look that is cut short rings again; a message that kills its worker is
        # dropped, since the row counts the losses and the broker would repeat it for ever.
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_acks_on_failure_or_timeout=True,
        # A message waiting in a busy worker's memory is one that an idle worker does not see.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # Prefork's only: other pools ignore limits, which the start-up check refuses.
        worker_pool="prefork",
        task_annotations={
            name: {"time_limit": seconds} for name, seconds in HARD_LIMIT_SECONDS.items()
        },
        worker_proc_alive_timeout=60,  # a child of a loaded machine may start slowly
        # A warm stop waits for the chunk in hand; then the jobs are back in the queue.
        worker_soft_shutdown_timeout=60,
        worker_enable_soft_shutdown_on_idle=False,  # an idle worker has nothing to wait for
        worker_cancel_long_running_tasks_on_connection_loss=False,  # leases outlive a Redis restart
        worker_max_memory_per_child=12_000_000,  # KiB; a leak ends with its child
        worker_eta_task_limit=100,  # run_at stands in SQL; no message has an ETA
        worker_hijack_root_logger=False,  # our logging is set up in workers.child.lifecycle
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Redis may be away for long; its queues are rebuilt
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "global_keyprefix": KEY_PREFIX,
            # A half-open connection is noticed instead of leaving the worker deaf.
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
        visibility_timeout=VISIBILITY_TIMEOUT_SECONDS,
        beat_scheduler="workers.app:RingScheduler",
        beat_max_loop_interval=5,
        beat_schedule=_beat_schedule(),
    )
    connect_signals(settings, hard_limits=HARD_LIMIT_SECONDS)
    return app


def _beat_schedule() -> dict[str, dict[str, Any]]:
    return {
        "reconcile": {
            "task": RECONCILE_TASK,
            "schedule": RECONCILE_EVERY_SECONDS,
            # Rings that nobody answered do not pile up.
            "options": {"queue": MAINTENANCE, "expires": RECONCILE_EVERY_SECONDS * 2},
        },
        "schedules": {
            "task": SCHEDULES_TASK,
            "schedule": SCHEDULES_EVERY_SECONDS,
            "options": {"queue": MAINTENANCE, "expires": SCHEDULES_EVERY_SECONDS * 2},
        },
        "sweep": {
            "task": SWEEP_TASK,
            "schedule": SWEEP_EVERY_SECONDS,
            "options": {"queue": MAINTENANCE, "expires": SWEEP_EVERY_SECONDS},
        },
        "trials": {
            "task": TRIALS_TASK,
            "schedule": TRIALS_EVERY_SECONDS,
            "options": {"queue": MAINTENANCE, "expires": TRIALS_EVERY_SECONDS},
        },
    }


app = make_app(WorkerSettings())
