"""From the start of a worker to its end: logging, a child process's context, the graceful stop.

The parent forks the children and must stay clean: no torch, no database connection, no threads.
What a child owns is made on its first task, in `open_workplace`.
"""

import logging
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Final, Protocol

import structlog
from celery import Celery, signals
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

from store.settings import StoreSettings
from workers.child.context import WorkerContext
from workers.child.start_checks import find_faults
from workers.dispatch import LOOK_TASKS, Doorbell
from workers.jobs.owners import own_name
from workers.settings import WorkerSettings

log = structlog.get_logger(__name__)

# One byte that parent and children share: 1 once the worker was told to stop. A signal reaches the
# parent only, and its children work on, so this is how they hear of it between two chunks.
_stop_flag: Final = mmap.mmap(-1, 1)


class _CeleryWorker(Protocol):
    """What Celery's signals of the parent are sent by, as far as we read it."""

    app: Celery
    hostname: str
    pool_cls: str | type


class _Process:
    """The state of this process: its settings from the parent, its context once it has one."""

    settings: WorkerSettings | None = None
    context: WorkerContext | None = None
    is_busy = False


def open_context() -> WorkerContext:
    """Return this child process's context, made on the first call."""
    if _Process.context is None:
        _Process.context = WorkerContext.open(
            _Process.settings or WorkerSettings(),
            StoreSettings(),
            owner=own_name(),
            is_stopping=is_stopping,
            is_idle=lambda: not _Process.is_busy,
        )
    return _Process.context


def is_stopping() -> bool:
    """Return whether this worker was told to stop."""
    return _stop_flag[0] != 0


@contextmanager
def looking(queue: str, job_id: str | None) -> Iterator[WorkerContext]:
    """Surround a task: binds the log context, and lets a signal end the process between chunks."""
    structlog.contextvars.bind_contextvars(queue=queue, rung_for=job_id)
    _Process.is_busy = True
    try:
        yield open_context()
    finally:
        _Process.is_busy = False
        structlog.contextvars.clear_contextvars()


def work_until_idle(context: WorkerContext, work: Callable[[WorkerContext], int]) -> bool:
    """Call `work`, which claims and does some jobs, until none is due or the look is long enough.

    Returns:
        Whether there may be more: then the queue should be rung again.
    """
    ends_at = time.monotonic() + context.settings.look_seconds
    while not context.is_stopping():
        if work(context) == 0:
            return False
        if time.monotonic() > ends_at:
            return True
    return True


def connect_signals(settings: WorkerSettings, *, hard_limits: Mapping[str, float]) -> None:
    """Tie this module to Celery's life."""
    _Process.settings = settings

    def check_setup(sender: _CeleryWorker, **_: object) -> None:
        pool = sender.pool_cls if isinstance(sender.pool_cls, str) else sender.pool_cls.__module__
        faults = find_faults(
            sender.app,
            pool=pool,
            hard_limits=hard_limits,
            redis_url=settings.redis_url,
            device=settings.device,
        )
        if "torch" in sys.modules:
            faults.append("torch was imported before the fork: the children's models would hang")
        if faults:
            # Celery catches a handler's exceptions; it does not catch this one.
            raise SystemExit("the worker does not start: " + "; ".join(faults))

    signals.setup_logging.connect(_set_up_logging, weak=False)
    signals.worker_init.connect(check_setup, weak=False)
    signals.worker_ready.connect(_listen_in_parent, weak=False)
    signals.worker_process_init.connect(_start_child, weak=False)
    signals.worker_process_shutdown.connect(_end_child, weak=False)


def _listen_in_parent(sender: _CeleryWorker, **_: object) -> None:
    """Pass a stop on to the children, and look at once for what is due already."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, _set_flag_before(signal.getsignal(number)))
    log.info("worker.ready", worker=sender.hostname)
    doorbell = Doorbell((_Process.settings or WorkerSettings()).redis_url)
    for queue in sender.app.amqp.queues.consume_from:
        if queue in LOOK_TASKS:
            doorbell.ring_queue(queue)
    doorbell.close()


def _set_flag_before(celery_handler: object) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        _stop_flag[0] = 1
        if callable(celery_handler):
            celery_handler(number, frame)

    return handle


def _start_child(**_: object) -> None:
    # A supervisor may signal the whole group. A busy child then ends its chunk and gives its jobs
    # back; the parent, which got the signal too, waits for it.
    signal.signal(signal.SIGTERM, _stop_child)


def _stop_child(number: int, _frame: FrameType | None) -> None:
    _stop_flag[0] = 1
    if not _Process.is_busy:
        if _Process.context is not None:
            _Process.context.leases.hand_back()  # what it meant to go on with at the next look
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _end_child(**_: object) -> None:
    if _Process.context is not None:
        _Process.context.close()
        _Process.context = None


def _set_up_logging(logfile: str | None = None, **_: object) -> None:
    """Write every log line, ours and the libraries', as one JSON object.

    Celery's own -l is left out: its default would hide what becomes of jobs.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.FileHandler(logfile) if logfile else logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Without local variables: among them are URLs with passwords.
                structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel((_Process.settings or WorkerSettings()).log_level)
    # One line per look and per ring would bury the lines per job.
    for name in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
        logging.getLogger(name).setLevel(logging.WARNING)
