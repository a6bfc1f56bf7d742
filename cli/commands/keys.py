"""`clipbert keys`: API keys, made, listed and revoked where the database can be reached."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.data_folder import (
    ClientSettings,
    DataOption,
    find_data_folder,
    read_client_file,
    write_client,
)
from cli.deletion import YesOption
from cli.errors import CliError
from cli.hints import runnable
from cli.local_store import open_store
from cli.show.console import JsonOption, format_time, print_json, print_table
from clipbert.datasets.visible_text import has_visible_text

if TYPE_CHECKING:
    from store.api_keys import ApiKey, ApiKeyRepository
    from store.database import Sessions

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Make, list and revoke API keys (needs the database: a running `up`, or STORE_*)."""


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whom it is for.")],
    *,
    use: Annotated[
        bool, typer.Option("--use", help="Put it into client.json too: commands here use it.")
    ] = False,
    data: DataOption = None,
) -> None:
    """Make a key and print it; it is stored as a hash, so this is the only time it is shown."""
    from store.texts import can_be_stored

    if not (has_visible_text(name) and can_be_stored(name)):
        raise CliError(
            f"a key cannot be called {name!r}", "say whom it is for, in a name that can be read"
        )
    folder = find_data_folder(data)
    known = read_client_file(folder) if use else None
    if use and known is None:
        raise CliError(
            f"{folder / 'client.json'} does not exist", "`clipbert up` makes it, with a key"
        )
    with _stored_keys(folder) as keys:
        key = keys.create(name)
    if known is not None:
        write_client(folder, ClientSettings(known.api_url, key))
    print(key)


@app.command("list")
def list_keys(*, as_json: JsonOption = False, data: DataOption = None) -> None:
    """List all keys by name and beginning; what is behind it is shown by nobody."""
    with _stored_keys(find_data_folder(data)) as keys:
        found = [_fields(key) for key in keys.all()]
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "name", "begins with", "created", "state"],
        [
            (
                str(each["id"]),
                str(each["name"]),
                str(each["prefix"]),
                format_time(str(each["created_at"])),
                _state(each["expires_at"]),
            )
            for each in found
        ],
    )


@app.command("revoke")
def revoke_key(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Its id, its name, or what it begins with.")
    ],
    *,
    yes: YesOption = False,
    data: DataOption = None,
) -> None:
    """End a key: within seconds it opens nothing. What was begun with it, such as a batch, goes on.

    Streams and downloads that it began break off.
    """
    folder = find_data_folder(data)
    client = read_client_file(folder)
    with _stored_keys(folder) as keys:
        used = None if client is None else keys.verify(client.api_key)
        found = _find(keys.all(), key)
        is_used = used is not None and used.id == found.id
        has_ended = keys.revoke(found.id)
        called = f"{found.name} ({found.prefix}..., {found.id})"
    print(f"revoked {called}" if has_ended else f"{called} was over already")
    if is_used:
        print(
            f"{folder / 'client.json'} had this key; give it another with: "
            + runnable("clipbert keys create NAME --use")
        )


def ensure_client(data: Path, api_url: str, *, sessions: "Sessions") -> None:
    """Write client.json with a key that the database knows, making one the first time."""
    from store.api_keys import ApiKeyRepository

    known = read_client_file(data)
    with sessions.begin() as session:
        keys = ApiKeyRepository(session)
        if known is not None and keys.verify(known.api_key) is not None:
            key = known.api_key
        else:
            key = keys.create("clipbert up")
    write_client(data, ClientSettings(api_url, key))


@contextmanager
def _stored_keys(folder: Path) -> Iterator["ApiKeyRepository"]:
    """Yield the keys of the deployment, in a transaction."""
    from store.api_keys import ApiKeyRepository

    sessions, _ = open_store(folder)
    try:
        with sessions.begin() as session:
            yield ApiKeyRepository(session)
    finally:
        sessions.kw["bind"].dispose()


def _find(keys: Sequence["ApiKey"], wanted: str) -> "ApiKey":
    """Find a key by its id, its name, its beginning or all of it; one that is over gives way.

    Raises:
        CliError: none fits, or several do.
    """
    fitting = [
        key
        for key in keys
        if wanted in {str(key.id), key.name, key.prefix} or _is_whole(key, wanted)
    ]
    fitting = [key for key in fitting if _state(key.expires_at) == "valid"] or fitting
    if len(fitting) == 1:
        return fitting[0]
    # Not what was given: it may be a key.
    if not fitting:
        raise CliError("no key has this id, name or beginning", "`clipbert keys list` shows all")
    ids = ", ".join(str(key.id) for key in fitting)
    raise CliError(f"{len(fitting)} keys fit: {ids}", "give the id; `clipbert keys list` shows all")


def _is_whole(key: "ApiKey", wanted: str) -> bool:
    from store.api_keys import hash_of

    return key.sha256 == hash_of(wanted)


def _fields(key: "ApiKey") -> dict[str, object]:
    return {
        "id": str(key.id),
        "name": key.name,
        "prefix": key.prefix,
        "created_at": key.created_at.astimezone(UTC).isoformat(),
        "expires_at": None
        if key.expires_at is None
        else key.expires_at.astimezone(UTC).isoformat(),
    }


def _state(expires_at: object) -> str:
    """Say whether a key is valid, or since when it is not."""
    if expires_at is None:
        return "valid"
    end = datetime.fromisoformat(str(expires_at))
    return "valid" if end > datetime.now(UTC) else f"over since {format_time(end.isoformat())}"
