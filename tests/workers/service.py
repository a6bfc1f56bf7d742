"""Real worker processes for the tests, and what they work on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import psutil

from store.blobs import BlobStore
from store.database import Sessions
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from store.settings import StoreSettings
from tests.warm_forks import FORKS
from tests.workers.warm import WarmProcess
from workers.child.context import WorkerContext
from workers.finetuning import subprocesses
from workers.settings import WorkerSettings

subprocesses._FORKS = FORKS  # type: ignore[misc]  # of finetunes in the tests' own process
REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY / "samples"
Value = TypeVar("Value")
WorkerProcess = subprocess.Popen[bytes] | WarmProcess
PATIENCE_SECONDS = 150  # for machines that do much else; by itself nothing here takes half a minute
ONE_FRAME_PASSES = {"forward_megapixels": "0.001"}


def wait_for(
    look: Callable[[], Value], *, seconds: float = PATIENCE_SECONDS, every: float = 0.15
) -> Value:
    """Call `look` until it gives something true, and return that; first soon, then as often."""
    ends_at = time.monotonic() + seconds
    pause = 0.02
    while not (value := look()):
        assert time.monotonic() < ends_at, f"nothing came within {seconds} s"
        time.sleep(pause)
        pause = min(pause * 1.3, every)
    return value


@dataclass
class Service:
    """A database, a Redis, blobs, and the worker processes started on them."""

    database_url: str
    redis_url: str
    blobs: BlobStore
    blob_folder: Path
    sessions: Sessions
    media_roots: tuple[Path, ...]
    log_folder: Path
    starts_cold: bool = False  # as users start workers, which takes seconds of a core for each
    processes: list[WorkerProcess] = field(default_factory=list)

    def environment(self, **settings: str) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
            "STORE_DATABASE_URL": self.database_url,
            "STORE_BLOB_URL": self.blob_folder.as_uri(),
            "STORE_MEDIA_ROOTS": os.pathsep.join(map(str, self.media_roots)),
            "WORKER_REDIS_URL": self.redis_url,
            "WORKER_DEVICE": "cpu",
            "WORKER_SETTLE_SECONDS": "0",  # tests index what they have just written
            "WORKER_FINETUNE_NICENESS": "0",  # and have nobody to stand back behind
            **{f"WORKER_{name.upper()}": value for name, value in settings.items()},
        }

    def start(self, *arguments: str, **settings: str) -> WorkerProcess:
        """Start a Celery process, such as `worker -Q ingest -c 1` or `beat`."""
        log = self.log_folder / f"celery-{len(self.processes)}-{arguments[0]}.log"
        celery = ("-A", "workers.app:app", *arguments)
        environment = self.environment(**settings)
        process: WorkerProcess
        if self.starts_cold:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "celery", *celery],
                    cwd=REPOSITORY,
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        else:
            process = WarmProcess(celery, log=log, environment=environment)
        self.processes.append(process)
        return process

    def start_worker(self, queues: str, *, concurrency: int = 1, **settings: str) -> WorkerProcess:
        name = f"{queues.replace(',', '-')}-{len(self.processes)}@test"
        arguments = ("-Q", queues, "-c", str(concurrency), "-n", name)
        return self.start("worker", *arguments, "--without-gossip", "--without-mingle", **settings)

    def start_reconciler(self, **settings: str) -> None:
        self.start_worker("maintenance", **settings)
        self.start("beat", **settings)

    def stop(self, process: WorkerProcess, *, seconds: float = 90) -> int:
        """Ask a process to stop and wait for it; kill it and its children if it does not."""
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill(process)
            raise

    def kill(self, process: WorkerProcess) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            self.stop(process)

    def context(self, **settings: object) -> WorkerContext:
        """Do the work in the test's own process."""
        return WorkerContext.open(
            WorkerSettings(
                redis_url=self.redis_url,
                **{"device": "cpu", "settle_seconds": 0, "finetune_niceness": 0, **settings},
            ),
            StoreSettings(
                database_url=self.database_url,
                blob_url=self.blob_folder.as_uri(),
                media_roots=self.media_roots,
            ),
            owner=f"test:{os.getpid()}",
        )

    def enqueue(self, kind: JobKind, **wanted: object) -> UUID:
        with self.sessions.begin() as session:
            return JobRepository(session).enqueue(NewJob(kind=kind, input=wanted)).id

    def enqueue_ingest(self, path: Path) -> UUID:
        return self.enqueue(JobKind.INGEST, uri=path.as_uri())

    def job(self, job_id: UUID | str) -> Job:
        with self.sessions.begin() as session:
            return JobRepository(session).get(UUID(str(job_id)))

    def jobs(self, kind: JobKind | None = None) -> list[Job]:
        with self.sessions.begin() as session:
            return list(JobRepository(session).list(kind=kind, page_size=500).items)

    def wait_for_state(
        self, job_id: UUID | str, *states: JobState, seconds: float = PATIENCE_SECONDS
    ) -> Job:
        return wait_for(
            lambda: job if (job := self.job(job_id)).state in states else None, seconds=seconds
        )

    def logs(self) -> str:
        paths = sorted(self.log_folder.glob("celery-*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in paths)


@contextmanager
def running_service(
    *,
    database_url: str,
    redis_url: str,
    blobs: BlobStore,
    data_folder: Path,
    sessions: Sessions,
    media_roots: tuple[Path, ...],
) -> Iterator[Service]:
    """Give a service, and leave no process of it behind."""
    service = Service(
        database_url=database_url,
        redis_url=redis_url,
        blobs=blobs,
        blob_folder=data_folder / "blobs",
        sessions=sessions,
        media_roots=media_roots,
        log_folder=data_folder,
    )
    try:
        yield service
    finally:
        print(service.logs())  # noqa: T201  shown by pytest with a failure
        service.stop_all()


def child_of(process: WorkerProcess) -> psutil.Process:
    """Find the one pool child of a worker with `-c 1`."""
    return wait_for(lambda: psutil.Process(process.pid).children())[0]
