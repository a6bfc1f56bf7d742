"""What `clipbert up` says on a data folder that one runs on already."""

import shlex
from collections.abc import Iterator

from cli.errors import CliError
from cli.hints import runnable
from cli.up_options import UpOptions
from embedded.running_up import RunningUp, read_running


def say_already_running(options: UpOptions) -> None:
    """Say where it runs.

    Raises:
        CliError: something was asked for that what runs was not started with.
    """
    running = read_running(options.data)
    where = f" at {running.api_url} (pid {running.pid})" if running else ""
    state = "" if running is None or running.ready else ", still starting"
    said = f"already running on {options.data}{where}{state}"
    others = [] if running is None else list(_differences(options, running))
    if others:
        raise CliError(
            f"{said}, with other options: {'; '.join(others)}", "stop it first: clipbert down"
        )
    print(runnable(f"{said}; stop it with: clipbert down"))


def _differences(options: UpOptions, running: RunningUp) -> Iterator[str]:
    """Describe each option that was given and is another one in what runs."""
    asked = options.as_strings()
    for name in sorted(options.given & running.options.keys() & asked.keys()):
        if name == "port" and options.port == 0:
            continue  # any will do
        wanted, runs = asked[name], running.options[name]
        if wanted != runs:
            yield f"--{name.replace('_', '-')} is {_shown(runs)}, not {_shown(wanted)}"


def _shown(values: list[str]) -> str:
    return " ".join(shlex.quote(value) for value in values) or "the default"
