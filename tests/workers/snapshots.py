"""A service as it is after some work, kept for all tests of a module that begin there.

A database is copied in 50 ms and a folder of blobs linked in less; to index four small videos and
promote a model takes two seconds.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy

from store.blobs import open_blobs
from store.database import make_sessions
from tests.conftest import TEMPLATE, Services, new_database, passable_folder
from tests.workers.service import SAMPLES, Service, running_service
from workers.child.context import WorkerContext

Build = Callable[[Service, WorkerContext, Path], Any]


@dataclass(frozen=True)
class Snapshot:
    """Where a test may begin.

    Attributes:
        database: to be copied; nobody is connected to it.
        data_folder: to be linked; a blob is never changed, only replaced.
        media_folder: of the videos; a test may add others to it.
        value: what the work gave.
    """

    database: str
    data_folder: Path
    media_folder: Path
    value: Any

    def link_into(self, folder: Path) -> None:
        """Give a test's folder what is in this one."""
        shutil.copytree(self.data_folder, folder, copy_function=os.link, dirs_exist_ok=True)


@contextmanager
def snapshot_of(
    services: Services, build: Build, *, after: Snapshot | None = None
) -> Iterator[Snapshot]:
    """Do some work in this process and keep what comes of it.

    Args:
        services: the database and the Redis.
        build: given the service, a context and the folder of the videos.
        after: where it begins; with nothing indexed, if it is None.
    """
    template = TEMPLATE if after is None else after.database
    with new_database(services, template) as url, passable_folder() as folder:
        data, media = folder / "data", folder / "media"
        data.mkdir()
        if after is None:
            media.mkdir()
        else:
            media = after.media_folder
            after.link_into(data)
        sessions = make_sessions(url)
        with running_service(
            database_url=url,
            redis_url=services.redis_url,
            blobs=open_blobs((data / "blobs").as_uri()),
            data_folder=data,
            sessions=sessions,
            media_roots=(SAMPLES, media),
        ) as service:
            context = service.context()
            value = build(service, context, media)
            context.close()
        sessions.kw["bind"].dispose()
        database = sqlalchemy.make_url(url).database
        assert database is not None
        yield Snapshot(database, data, media, value)
