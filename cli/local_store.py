"""For commands that work on the store itself: which one, and what they open it with."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CliError
from embedded.running_up import read_running

if TYPE_CHECKING:
    from store.blobs import BlobStore
    from store.database import Sessions

VARIABLES = ("STORE_DATABASE_URL", "STORE_BLOB_URL", "STORE_MEDIA_ROOTS", "WORKER_REDIS_URL")


def store_environment(data: Path) -> Mapping[str, str]:
    """Return the variables of the deployment: the environment's own, else the running `up`'s.

    Raises:
        CliError: neither says where the database and the blobs are.
    """
    running = read_running(data)
    known = dict(running.environment) if running is not None else {}
    known.update({name: os.environ[name] for name in VARIABLES if os.environ.get(name)})
    if "STORE_DATABASE_URL" not in known or "STORE_BLOB_URL" not in known:
        raise CliError(
            f"no service runs on {data}, and STORE_DATABASE_URL and STORE_BLOB_URL are not set",
            "start one with `clipbert up`, or set STORE_DATABASE_URL and STORE_BLOB_URL",
        )
    return known


def open_store(data: Path) -> tuple["Sessions", "BlobStore"]:
    """Open the database and the blobs of the deployment."""
    from store.blobs import open_blobs
    from store.database import make_sessions

    known = store_environment(data)
    return make_sessions(known["STORE_DATABASE_URL"]), open_blobs(known["STORE_BLOB_URL"])
