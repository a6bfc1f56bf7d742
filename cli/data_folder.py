"""The data folder of `clipbert up`: where it is, and its client.json.

That holds api_url and api_key for whoever uses the API from this machine, and is readable by its
owner only. What runs on the folder is in up.json: embedded.running_up.
"""

import json
import os
import shlex
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import CliError
from embedded.private_file import write_private

FOLDER_NAME = ".clipbert"

# What the command at hand was given as --data, if it needs it to find its folder.
_option_in_use: ContextVar[str | None] = ContextVar("_option_in_use", default=None)


def _note_option(context: typer.Context, value: Path | None) -> Path | None:
    source = context.get_parameter_source("data")
    is_given = value is not None and source is not None and source.name == "COMMANDLINE"
    found = find_data_folder(value)
    is_needed = is_given and (
        "CLIPBERT_DATA" in os.environ or found.resolve() != find_data_folder(None).resolve()
    )
    _option_in_use.set(f"--data {shlex.quote(str(found))}" if is_needed else None)
    return value


def data_option_in_use() -> str | None:
    """Return `--data FOLDER` as other commands need it to find the folder of this one, or None."""
    return _option_in_use.get()


DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="CLIPBERT_DATA",
        callback=_note_option,
        show_default=False,
        help="Data folder. Default: the nearest .clipbert here or above, else ~/.clipbert.",
    ),
]


@dataclass(frozen=True)
class ClientSettings:
    """Where the API is and the key to it."""

    api_url: str
    api_key: str


def find_data_folder(option: Path | None, *, start: Path | None = None) -> Path:
    """Return the data folder, absolute; it need not exist."""
    if option is not None:
        return option.expanduser().absolute()
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        candidate = folder / FOLDER_NAME
        if candidate.is_dir():
            return candidate
    return Path.home() / FOLDER_NAME


def cache_folder() -> Path:
    """Return the folder of what can be built again, such as the default model."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clipbert"


def make_data_folder(data: Path) -> None:
    """Make the data folder if it is not there; what is in it is for its owner only.

    Root's is passable for others, since root's PostgreSQL runs as an ordinary user.

    Raises:
        CliError: it cannot be made.
    """
    try:
        if not data.is_dir():
            data.mkdir(parents=True)
            data.chmod(0o700 if os.geteuid() else 0o711)
        (data / "blobs").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CliError(
            f"cannot make the data folder {data}: {error.strerror}", "choose another with --data"
        ) from error


def read_client(data: Path) -> ClientSettings:
    """Read the API's address and key; CLIPBERT_API_URL and CLIPBERT_API_KEY win over the file.

    Raises:
        CliError: neither the variables nor client.json say it.
    """
    url, key = os.environ.get("CLIPBERT_API_URL"), os.environ.get("CLIPBERT_API_KEY")
    if url and key:
        return ClientSettings(url.rstrip("/"), key)
    saved = read_client_file(data)
    if saved is None:
        raise CliError(
            f"no API address: {data / 'client.json'} does not exist",
            "start the service with `clipbert up`, or set CLIPBERT_API_URL and CLIPBERT_API_KEY",
        )
    return ClientSettings((url or saved.api_url).rstrip("/"), key or saved.api_key)


def read_client_file(data: Path) -> ClientSettings | None:
    """Read client.json; None if there is none.

    Raises:
        CliError: it is broken.
    """
    file = data / "client.json"
    try:
        saved = json.loads(file.read_text())
        return ClientSettings(str(saved["api_url"]), str(saved["api_key"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CliError(
            f"{file} cannot be read: {error}", "remove it and run `clipbert up` again"
        ) from error


def write_client(data: Path, settings: ClientSettings) -> None:
    """Write client.json, for its owner only."""
    write_private(data / "client.json", json.dumps(asdict(settings), indent=2) + "\n")
