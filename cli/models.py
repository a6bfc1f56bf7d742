"""`clipbert models`: which models serve, and bringing in another."""

from pathlib import Path
from typing import Annotated

import typer

from cli.client import ApiClient
from cli.console import JsonOption, print_json, print_table
from cli.data_folder import DataOption, find_data_folder
from cli.errors import CliError
from cli.local_store import open_store

app = typer.Typer(help="List models; register a model folder.", no_args_is_help=True)


@app.command("list")
def list_models(*, as_json: JsonOption = False, data: DataOption = None) -> None:
    """List the registered models and what each serves."""
    with ApiClient.of_data_folder(find_data_folder(data)) as api:
        models = list(api.items("/v1/models", limit=500))
    if as_json:
        print_json(models)
        return
    print_table(
        ["id", "name", "version", "serves", "heads"],
        [
            (
                str(model["id"]),
                str(model["name"]),
                str(model["version"]),
                ", ".join(model.get("serves") or []) or "-",
                ", ".join(model.get("heads") or []),
            )
            for model in models
        ],
    )


@app.command("register")
def register_model(
    folder: Annotated[Path, typer.Argument(help="A model folder (config.json and weights).")],
    *,
    name: Annotated[str, typer.Option(help="What to call it.")],
    version: Annotated[str, typer.Option(help="Its version.")] = "1",
    promote: Annotated[
        bool, typer.Option("--promote", help="Let it serve every task it has a head for.")
    ] = False,
    data: DataOption = None,
) -> None:
    """Copy a model folder into the blob store and note it in the database."""
    if not (folder / "config.json").is_file():
        raise CliError(f"{folder} is no model folder: it has no config.json")
    sessions, blobs = open_store(find_data_folder(data))
    from clipbert.errors import ClipBertError
    from workers import deployment

    try:
        model_id = deployment.register_model(sessions, blobs, folder, name=name, version=version)
        if promote:
            deployment.promote(sessions, model_id)
    except (ClipBertError, ValueError) as error:
        raise CliError(str(error)) from error
    print(f"registered {name} {version} as {model_id}{', promoted' if promote else ''}")
