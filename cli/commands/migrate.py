"""`clipbert migrate`: bring the database to the newest schema and give it the default model."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.data_folder import DataOption, find_data_folder
from cli.errors import CliError
from cli.local_store import store_environment
from cli.media_roots import describe_outside, outside_media_roots
from clipbert.model.config import CONFIG_FILE

NEWER_SCHEMA = "run that later version, or restore a backup from before the upgrade"


def migrate(
    *,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Model folder to register as the default if there is none yet.",
            envvar="CLIPBERT_MODEL",
            show_default=False,
        ),
    ] = None,
    write_client: Annotated[
        str | None,
        typer.Option(
            hidden=True, help="Address of the API for client.json, whose key is made if need be."
        ),
    ] = None,
    data: DataOption = None,
) -> None:
    """Bring the database to the newest schema; safe to run again, and by two at once."""
    if model is not None and not (model / CONFIG_FILE).is_file():
        raise CliError(f"no model in {model}", f"build one: clipbert weights mini {model}")
    from sqlalchemy.exc import OperationalError

    from store.blobs import open_blobs
    from store.database import make_sessions, upgrade_schema
    from store.errors import SchemaTooNew

    folder = find_data_folder(data)
    known = store_environment(folder)
    url = known["STORE_DATABASE_URL"]
    try:
        upgrade_schema(url)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        raise CliError(f"the database does not answer: {reason}") from error
    except SchemaTooNew as error:
        raise CliError(str(error), NEWER_SCHEMA) from error
    sessions = make_sessions(url)
    if write_client is not None:
        from cli.commands.keys import ensure_client

        ensure_client(folder, write_client, sessions=sessions)
        roots = [
            Path(root) for root in known.get("STORE_MEDIA_ROOTS", "").split(os.pathsep) if root
        ]
        outside = outside_media_roots(sessions, roots)
        if outside.paths:
            print(f"warning: {describe_outside(outside)}; name their folder with --media-root")
    if model is not None:
        import logging

        import structlog

        from clipbert.errors import ClipBertError
        from policy.registration import ensure_default
        from store.errors import InvalidModelFolder

        # Its log is for the services; here one line says it.
        quiet = structlog.make_filtering_bound_logger(logging.WARNING)
        structlog.configure(wrapper_class=quiet)
        try:
            ensure_default(sessions, open_blobs(known["STORE_BLOB_URL"]), mini_folder=model)
        except (ClipBertError, InvalidModelFolder, ValueError) as error:
            raise CliError(f"the model in {model} cannot be registered: {error}") from error
        print(f"schema is current, default model is {model.name}")
