"""`clipbert keys`: API keys, made where the database can be reached."""

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
from cli.local_store import open_store

if TYPE_CHECKING:
    from store.database import Sessions

app = typer.Typer(help="Make API keys.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Make API keys (needs the database: a running `up`, or STORE_DATABASE_URL)."""


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whom it is for.")], *, data: DataOption = None
) -> None:
    """Make a key and print it; it is stored as a hash, so this is the only time it is shown."""
    from store.api_keys import ApiKeyRepository

    sessions, _ = open_store(find_data_folder(data))
    with sessions.begin() as session:
        key = ApiKeyRepository(session).create(name)
    print(key)


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
