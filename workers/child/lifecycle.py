"""From the start of a worker to its end: logging, what a child process owns, and the graceful stop.

The parent forks the children and must stay clean: no torch, no database connection, no threads.
What a child owns is made on its first task, in `open_workplace`.
"""

import logging
import mmap
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn, Protocol
from urllib.parse import unquote, urlsplit

import structlog
from billiard import current_process
from celery import Celery, signals
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

from store.blobs import BlobStore, open_blobs
from store.database import Sessions, make_sessions
from store.disk_space import DiskWatch, watch_disks
from store.settings import StoreSettings
from workers.child.start_checks import find_faults
from workers.dispatch import LOOK_TASKS, Doorbell
from workers.jobs.batching import CostLimit
from workers.jobs.lease import LeaseKeeper
from workers.jobs.owners import own_name
from workers.settings import WorkerSettings

if TYPE_CHECKING:
    from workers.answering.interactive import InteractiveDesk
    from workers.indexing.embedding import Embedder
    from workers.models.model_cache import ModelCache
    from workers.models.ready_models import ReadyModels
    from workers.models.token_cache import TokenCache

log = structlog.get_logger(__name__)

# What a pass may cost, and a first guess of what that takes; the passes themselves tell the rest.
_CPU_MEGAPIXELS: Final = 1.6  # 8 frames of 448 px
_CPU_SECONDS_PER_MEGAPIXEL: Final = 0.6  # of clipbert-mini on two cores
_GPU_MEGAPIXELS: Final = 50.0  # 250 frames of 448 px
_GPU_SECONDS_PER_MEGAPIXEL: Final = 0.005
_CPU_MATCH_CLIPS: Final = 256
_CPU_SECONDS_PER_MATCH_CLIP: Final = 0.008  # of clipbert-mini on two cores
_GPU_MATCH_CLIPS: Final = 4096
_GPU_SECONDS_PER_MATCH_CLIP: Final = 0.0001

# One byte that parent and children share: 1 once the worker was told to stop. A signal reaches the
# parent only, and its children work on, so this is how they hear of it between two chunks.
_stop_flag: Final = mmap.mmap(-1, 1)


@dataclass
class Workplace:
    """What one process works with. Made in the child; never crosses a fork."""

    settings: WorkerSettings
    media_roots: tuple[Path, ...]
    sessions: Sessions
    blobs: BlobStore
    doorbell: Doorbell
    leases: LeaseKeeper
    disk: DiskWatch
    is_stopping: Callable[[], bool]
    run_folder: Path
    """Where finetunes keep what they go on from."""
    mirrors_runs: bool
    """Whether other workers find it in the blobs only."""

    @classmethod
    def open(
        cls,
        settings: WorkerSettings,
        store: StoreSettings,
        *,
        owner: str,
        is_stopping: Callable[[], bool] = lambda: False,
        is_idle: Callable[[], bool] = lambda: False,
    ) -> "Workplace":
        """Connect to the store and begin to keep leases."""
        sessions = make_sessions(store.database_url)
        blobs = open_blobs(store.blob_url)
        run_folder = settings.run_folder or _default_run_folder(store.blob_url)
        disk = watch_disks(store, blobs.staging_folder(), run_folder)
        return cls(
            settings=settings,
            media_roots=store.media_roots,
            sessions=sessions,
            blobs=blobs,
            doorbell=Doorbell(settings.redis_url),
            leases=LeaseKeeper(
                sessions,
                owner=owner,
                lease=timedelta(seconds=settings.lease_seconds),
                heartbeat_seconds=settings.heartbeat_seconds,
                stall_seconds=settings.stall_seconds,
                is_stopping=is_stopping,
                is_idle=is_idle,
                has_room=lambda: disk.look().has_room,
            ),
            disk=disk,
            is_stopping=is_stopping,
            run_folder=run_folder,
            mirrors_runs=settings.run_folder is None and _blob_folder(store.blob_url) is None,
        )

    @cached_property
    def models(self) -> "ModelCache":
        """The models in memory. The first use imports torch, which the parent must never do."""
        from workers.child.device import take_device  # noqa: PLC0415
        from workers.models.model_cache import ModelCache  # noqa: PLC0415

        device = take_device(
            self.settings.device,
            child_index=child_index(),
            finetune_share=self.settings.finetune_memory_share,
        )
        log.info("device.taken", device=device, child=child_index())
        return ModelCache(
            self.blobs,
            device=device,
            capacity=self.settings.models_in_memory,
            folder=self.settings.model_cache,
        )

    @cached_property
    def ready_models(self) -> "ReadyModels":
        """Which models answer here, so that nobody waits for a load."""
        from workers.models.ready_models import ReadyModels  # noqa: PLC0415

        return ReadyModels(self.models)

    @cached_property
    def tokens(self) -> "TokenCache":
        """The visual tokens of recently asked videos. Imports torch, as `models` does."""
        from workers.models.token_cache import TokenCache  # noqa: PLC0415

        return TokenCache(self.blobs, capacity_bytes=self.settings.token_cache_bytes)

    @cached_property
    def forward_limit(self) -> CostLimit:
        """What one CNN forward may cost, in megapixels; lower once memory ran out."""
        is_cpu = self.models.device == "cpu"
        default = _CPU_MEGAPIXELS if is_cpu else _GPU_MEGAPIXELS
        return CostLimit(
            self.settings.forward_megapixels or default,
            seconds_per_cost=_CPU_SECONDS_PER_MEGAPIXEL if is_cpu else _GPU_SECONDS_PER_MEGAPIXEL,
        )

    @cached_property
    def match_limit(self) -> CostLimit:
        """How many (text, clip) pairs are scored in one go."""
        is_cpu = self.models.device == "cpu"
        default = _CPU_MATCH_CLIPS if is_cpu else _GPU_MATCH_CLIPS
        return CostLimit(
            self.settings.match_clips or default,
            seconds_per_cost=_CPU_SECONDS_PER_MATCH_CLIP if is_cpu else _GPU_SECONDS_PER_MATCH_CLIP,
        )

    @cached_property
    def desk(self) -> "InteractiveDesk":
        """The searches and questions that this process has begun. Imports torch."""
        from workers.answering.interactive import InteractiveDesk  # noqa: PLC0415

        return InteractiveDesk(self)

    @cached_property
    def embedder(self) -> "Embedder":
        """The videos that this process has begun to look at. Imports torch."""
        from workers.indexing.embedding import Embedder  # noqa: PLC0415

        return Embedder(self)

    def close(self) -> None:
        """Hand back what is held, stop the heartbeats and close the connections."""
        self.leases.hand_back()
        if "embedder" in self.__dict__:
            self.embedder.close()
        self.leases.close()
        self.doorbell.close()
        self.sessions.kw["bind"].dispose()


def _default_run_folder(blob_url: str) -> Path:
    # No key of a blob begins with this word, so that the one never meets the other.
    beside_blobs = _blob_folder(blob_url)
    return (beside_blobs or Path(tempfile.gettempdir()) / "clipbert") / "runs"


def _blob_folder(blob_url: str) -> Path | None:
    parts = urlsplit(blob_url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


class _CeleryWorker(Protocol):
    """What Celery's signals of the parent are sent by, as far as we read it."""

    app: Celery
    hostname: str
    pool_cls: str | type


class _Process:
    """The state of this process: its settings from the parent, its workplace once it has one."""

    settings: WorkerSettings | None = None
    workplace: Workplace | None = None
    is_busy = False


def open_workplace() -> Workplace:
    """Give this child process's workplace, made on the first call."""
    if _Process.workplace is None:
        _Process.workplace = Workplace.open(
            _Process.settings or WorkerSettings(),
            StoreSettings(),
            owner=own_name(),
            is_stopping=is_stopping,
            is_idle=lambda: not _Process.is_busy,
        )
    return _Process.workplace


def child_index() -> int:
    """Return this process's number in its pool, from 0; a child that died leaves its own."""
    return int(getattr(current_process(), "index", 0))


def is_stopping() -> bool:
    """Tell whether this worker was told to stop."""
    return _stop_flag[0] != 0


@contextmanager
def looking(queue: str, job_id: str | None) -> Iterator[Workplace]:
    """Surround a task: binds the log context, and lets a signal end the process between chunks."""
    structlog.contextvars.bind_contextvars(queue=queue, rung_for=job_id)
    _Process.is_busy = True
    try:
        yield open_workplace()
    finally:
        _Process.is_busy = False
        structlog.contextvars.clear_contextvars()


def work_until_idle(workplace: Workplace, work: Callable[[Workplace], int]) -> bool:
    """Call `work`, which claims and does some jobs, until none is due or the look is long enough.

    Returns:
        Whether there may be more: then the queue should be rung again.
    """
    ends_at = time.monotonic() + workplace.settings.look_seconds
    while not workplace.is_stopping():
        if work(workplace) == 0:
            return False
        if time.monotonic() > ends_at:
            return True
    return True


def leave_process(event: str, error: BaseException | None = None) -> NoReturn:
    """End this child at once, its jobs being settled; Celery starts a new one in its place."""
    log.critical(event, exc_info=error)
    logging.shutdown()
    os._exit(1)


def connect_signals(settings: WorkerSettings, *, hard_limits: Mapping[str, float]) -> None:
    """Tie this module to Celery's life."""
    _Process.settings = settings

    def check_setup(sender: _CeleryWorker, **_: object) -> None:
        pool = sender.pool_cls if isinstance(sender.pool_cls, str) else sender.pool_cls.__module__
        faults = find_faults(
            sender.app, pool=pool, hard_limits=hard_limits, redis_url=settings.redis_url
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
        if _Process.workplace is not None:
            _Process.workplace.leases.hand_back()  # what it meant to go on with at the next look
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _end_child(**_: object) -> None:
    if _Process.workplace is not None:
        _Process.workplace.close()
        _Process.workplace = None


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
