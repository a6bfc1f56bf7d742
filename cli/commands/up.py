"""`clipbert up` and `clipbert down`: the whole service on one machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from cli.already_running import say_already_running
from cli.data_folder import DataOption, find_data_folder, make_data_folder
from cli.errors import CliError
from cli.hints import runnable
from cli.media_roots import choose_media_roots, missing_folders, remember_media_roots
from cli.show.pace import ProgressLines, format_duration
from cli.up_options import UpOptions
from embedded.lock import is_locked
from embedded.log import open_log
from embedded.running_up import read_running, remove_running

DOWN_SECONDS = 25.0
_ENDING_SECONDS = 3.0  # of an interpreter; one whose parent never asks for it stays a zombie
BACKGROUND_START_SECONDS = 900.0  # the first start may have to build clipbert-mini


def up(
    context: typer.Context,
    *,
    data: DataOption = None,
    host: Annotated[str, typer.Option(help="Address the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0: a free one.")] = 8000,
    media_root: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder whose files can be indexed in place; repeatable. Default: those of the "
            "last start on the data folder, at first this folder.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where models run: auto, cpu, cuda, cuda:N.")
    ] = "auto",
    ingest_workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Videos probed at once. Default: by the cores.", show_default=False
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the default model. Default: clipbert-mini, built when missing.",
            show_default=False,
        ),
    ] = None,
    api_processes: Annotated[
        int,
        typer.Option(min=1, max=16, help="Processes of the API, which share its port."),
    ] = 1,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also log every request that was answered.")
    ] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Return when it is ready; stop with `down`.")
    ] = False,
    log_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the whole service here: database, queue, API and workers, until Ctrl-C."""
    folder = find_data_folder(data)
    given = frozenset(name for name in context.params if _is_given(context, name))
    options = UpOptions(
        data=folder,
        host=host,
        port=port,
        media_roots=choose_media_roots(folder, media_root),
        device=device,
        ingest_workers=ingest_workers or default_ingest_workers(),
        model=None if model is None else model.expanduser().absolute(),
        api_processes=api_processes,
        verbose=verbose,
        log_file=log_file,
        # Those of a start in the background are all given by us.
        given=given if log_file is None else frozenset(),
    )
    if is_locked(folder):
        say_already_running(options)
        return
    if log_file is None:
        _check_device(device)
        make_data_folder(folder)
        remember_media_roots(folder, options.media_roots)
        for missing in missing_folders(options.media_roots):
            print(f"note: the media root {missing} is not there now", file=sys.stderr)
    if background:
        start_in_background(options)
        return
    from cli.running_service import run_service

    run_service(options)


def down(data: DataOption = None) -> None:
    """Stop the `clipbert up` that runs on a data folder."""
    folder = find_data_folder(data)
    running = read_running(folder)
    if running is None or not is_locked(folder):
        if running is None:
            print(f"nothing is running on {folder}")
        else:  # only a killed `up` leaves up.json behind
            stopped = "; its PostgreSQL and Redis are stopped now" if _stop_orphans(folder) else ""
            print(f"`clipbert up` (pid {running.pid}) on {folder} was killed{stopped}")
        return
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while is_locked(folder):
        if time.monotonic() > deadline:
            raise CliError(
                f"`clipbert up` (pid {running.pid}) did not stop within {DOWN_SECONDS:.0f} s"
            )
        time.sleep(0.1)
    _wait_until_gone(running.pid)
    print(f"stopped what ran on {folder}")


def _wait_until_gone(pid: int) -> None:
    """Wait until a process that stopped all of its own has ended too; not for ever."""
    deadline = time.monotonic() + _ENDING_SECONDS
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


def default_ingest_workers() -> int:
    """Choose how many videos are probed at once: all cores but one, at most 8."""
    return max(1, min(8, (os.cpu_count() or 2) - 1))


def start_in_background(options: UpOptions, *, quiet: bool = False) -> None:
    """Start `up` detached from this terminal, its log in up.log, and wait until it is ready.

    Raises:
        CliError: it ended before it was ready; the end of its log is printed.
    """
    make_data_folder(options.data)
    log_file = options.data / "up.log"
    try:
        log = open_log(log_file)
    except OSError as error:
        raise CliError(f"cannot write {log_file}: {error.strerror}", "remove it") from error
    try:
        start_bytes = os.fstat(log).st_size
        process = subprocess.Popen(  # noqa: S603  (our own command, no shell)
            [
                *(sys.executable, "-m", "cli.main", "up", *_arguments(options)),
                *("--log-file", str(log_file)),
            ],
            cwd=options.data,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        os.close(log)
    started_at = time.monotonic()
    deadline = started_at + BACKGROUND_START_SECONDS
    lines = ProgressLines(sys.stdout)
    lines.show("starting")
    try:
        while time.monotonic() < deadline:
            lines.show(f"starting, {format_duration(time.monotonic() - started_at)} so far")
            running = read_running(options.data)
            if running is not None and running.ready and running.pid == process.pid:
                if not quiet:
                    print(f"ClipBERT runs in the background at {running.api_url}, log {log_file}")
                    print(runnable("stop it with: clipbert down"))
                return
            if process.poll() is not None:
                if process.returncode == 0:  # another one was quicker
                    say_already_running(options)
                    return
                tail = _tail(log_file, start_bytes)
                print(tail, end="", file=sys.stderr)
                raise CliError("`clipbert up` did not start; the end of its log is above")
            time.sleep(0.1)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    process.terminate()
    raise CliError(f"`clipbert up` was not ready in time; see {log_file}")


def _tail(log_file: Path, start_bytes: int) -> str:
    """Return the last lines of what was written since a start; the log keeps earlier ones too."""
    with log_file.open("rb") as log:
        log.seek(start_bytes)
        text = log.read().decode(errors="replace")
    return "".join(text.splitlines(keepends=True)[-15:])


def _stop_orphans(data: Path) -> bool:
    """Stop the embedded services that outlived a killed `up`; False when it had none."""
    has_services = (data / "services").is_dir()
    if has_services:
        from embedded.servers import EmbeddedServices

        EmbeddedServices.start(data).stop()  # finds what runs, and who started it is gone
    remove_running(data)
    return has_services


def _arguments(options: UpOptions) -> list[str]:
    arguments = ["--data", str(options.data), "--host", options.host, "--port", str(options.port)]
    for root in options.media_roots:
        arguments += ["--media-root", str(root)]
    arguments += ["--device", options.device, "--ingest-workers", str(options.ingest_workers)]
    arguments += ["--api-processes", str(options.api_processes)]
    if options.verbose:
        arguments.append("--verbose")
    if options.model is not None:
        arguments += ["--model", str(options.model)]
    return arguments


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name in {"COMMANDLINE", "ENVIRONMENT"}


def _check_device(device: str) -> None:
    """Refuse a device that is not there before anything starts; to look for a GPU takes seconds."""
    from workers.child.visible_gpus import device_fault

    fault = device_fault(device)
    if fault is not None:
        raise CliError(f"--device {device}: {fault}")
