"""The processes of a deployment and their variables; docker-compose.yml runs the same ones."""

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from embedded.supervisor import ProcessSpec

# On one machine nobody needs to hear of the other workers: leaving that out saves a second a start.
_QUIET_START = ("--without-gossip", "--without-mingle")


# As worker_command() names them.
WORKERS = frozenset({"ingest", "interactive", "finetune", "maintenance"})
# Well below the patience of the supervisor: a trainer that is slower goes on from the checkpoint
# before.
FINETUNE_STOP_SECONDS = 4.0


@dataclass(frozen=True)
class Services:
    """Where the rows, the blobs and the queues are."""

    database_url: str
    redis_url: str
    blob_url: str


# An API process that died or was told to end is needed at once: requests wait in its socket.
API_BACKOFF_SECONDS = 0.1


def plan_processes(
    *,
    ingest_workers: int,
    model_workers: int = 1,
    api_processes: int = 1,
    listener: socket.socket | None = None,
    python: str = sys.executable,
) -> list[ProcessSpec]:
    """Return every process of a deployment.

    Those that bring work stop first (stage 0), those that do it after them (stage 1).

    Args:
        ingest_workers: how many videos are probed at once.
        model_workers: children that run models, one for each GPU.
        api_processes: that serve requests; several, so that one can end while others serve.
        listener: the socket that they listen on, which outlives each of them; None: their own.
        python: the interpreter of the environment that the project is installed in.
    """
    return [
        *_api_specs(api_processes, listener, python),
        ProcessSpec(
            "ingest", worker_command("ingest", ingest_workers, python=python), stop_stage=1
        ),
        ProcessSpec(
            "model", worker_command("interactive,embed", model_workers, python=python), stop_stage=1
        ),
        ProcessSpec("finetune", worker_command("finetune", 1, python=python), stop_stage=1),
        # Two: while one sweeps, which may take minutes, the other does what is urgent.
        ProcessSpec("maint", worker_command("maintenance", 2, python=python), stop_stage=1),
        ProcessSpec("beat", beat_command(python), stop_stage=0),
    ]


def _api_specs(count: int, listener: socket.socket | None, python: str) -> list[ProcessSpec]:
    descriptors = () if listener is None else (listener.fileno(),)
    variables = {} if listener is None else {"API_LISTEN_FD": str(listener.fileno())}
    return [
        ProcessSpec(
            "api" if count == 1 else f"api-{number}",
            (python, "-m", "api"),
            stop_stage=0,
            first_backoff_seconds=API_BACKOFF_SECONDS,
            variables=variables,
            pass_fds=descriptors,
        )
        for number in range(1, count + 1)
    ]


def worker_command(queues: str, concurrency: int, *, python: str) -> tuple[str, ...]:
    """Return the command of a worker: one pool of forked processes, listening to some queues."""
    name = queues.split(",", maxsplit=1)[0]
    return (
        *_celery(python),
        *("worker", "-Q", queues),
        *("-l", "INFO", "-c", str(concurrency), "-n", f"{name}@%h", *_QUIET_START),
    )


def beat_command(python: str) -> tuple[str, ...]:
    """Return the command of beat, which rings the maintenance queue every few seconds."""
    return (*_celery(python), "beat")


def service_environment(
    services: Services,
    *,
    media_roots: list[Path],
    watched_folders: list[Path],
    device: str,
    host: str,
    port: int,
) -> dict[str, str]:
    """Return the variables that the processes are configured with."""
    return {
        "STORE_DATABASE_URL": services.database_url,
        "STORE_BLOB_URL": services.blob_url,
        "STORE_MEDIA_ROOTS": os.pathsep.join(str(root) for root in media_roots),
        "STORE_WATCHED_FOLDERS": os.pathsep.join(str(folder) for folder in watched_folders),
        "WORKER_REDIS_URL": services.redis_url,
        "WORKER_DEVICE": device,
        "WORKER_FINETUNE_STOP_SECONDS": str(FINETUNE_STOP_SECONDS),
        "API_HOST": host,
        "API_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
    }


def _celery(python: str) -> tuple[str, ...]:
    # -q: no banners; the workers' own log says what there is to say.
    return (python, "-m", "celery", "-q", "-A", "workers.app:app")
