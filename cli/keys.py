"""`clipbert keys`: API keys, made where the database can be reached."""

from typing import Annotated

import typer

from cli.data_folder import DataOption, find_data_folder
from cli.local_store import open_store

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
