"""The media roots of a data folder: given once, they hold for every later `clipbert up` on it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cli.errors import CliError
from embedded.private_file import write_private

if TYPE_CHECKING:
    from store.database import Sessions

FILE_NAME = "media_roots.json"
MOST_LOOKED_AT = 1000  # videos that may lie elsewhere by their names, and not by their links


def choose_media_roots(data: Path, given: Sequence[Path] | None) -> tuple[Path, ...]:
    """Return the roots of a start: those given, else those of the last time, else this folder.

    Raises:
        CliError: one that is given is not a folder, or the file of the last time is broken.
    """
    if given:
        return tuple(_checked_folder(root) for root in given)
    return remembered_media_roots(data) or (Path.cwd(),)


def remembered_media_roots(data: Path) -> tuple[Path, ...]:
    """Return the roots of the last start, whether their folders are there or not.

    Raises:
        CliError: the file is broken.
    """
    file = data / FILE_NAME
    try:
        return tuple(Path(root) for root in json.loads(file.read_text())["media_roots"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CliError(
            f"{file} cannot be read: {error}", "remove it, and name the folders with --media-root"
        ) from error


def remember_media_roots(data: Path, roots: Sequence[Path]) -> None:
    """Note the roots for later starts; say so where they are others than before."""
    before = remembered_media_roots(data)
    if before == tuple(roots):
        return
    if before:
        print(f"media roots are now {_listed(roots)}; they were {_listed(before)}")
    content = json.dumps({"media_roots": [str(root) for root in roots]}, indent=2)
    write_private(data / FILE_NAME, content + "\n")


def missing_folders(roots: Sequence[Path]) -> list[Path]:
    """Return the roots that are not there, such as a disk that is not mounted."""
    return [root for root in roots if not root.is_dir()]


def outside_media_roots(sessions: "Sessions", roots: Sequence[Path]) -> list[str]:
    """Return the paths of some videos that were indexed in place and lie under no root."""
    from store.videos.repository import VideoRepository

    real = [Path(os.path.realpath(root)) for root in roots]
    prefixes = [_prefix(root.as_uri()) for root in (*roots, *real)]
    with sessions() as session:
        uris = VideoRepository(session).in_place_elsewhere(prefixes, limit=MOST_LOOKED_AT)
    paths = [unquote(urlsplit(uri).path) for uri in uris]
    return [
        path
        for path in paths
        if not any(Path(os.path.realpath(path)).is_relative_to(root) for root in real)
    ]


def describe_outside(paths: Sequence[str]) -> str:
    """Say how many videos cannot be read, and name one."""
    count = f"{len(paths)}{' and more' if len(paths) >= MOST_LOOKED_AT else ''}"
    verb = "lies" if len(paths) == 1 else "lie"
    return f"{count} of the videos {verb} under no media root, such as {paths[0]}"


def _prefix(uri: str) -> str:
    return uri if uri.endswith("/") else f"{uri}/"


def _listed(roots: Sequence[Path]) -> str:
    return ", ".join(str(root) for root in roots)


def _checked_folder(root: Path) -> Path:
    folder = root.expanduser().absolute()
    if not folder.is_dir():
        raise CliError(f"--media-root {root} is not a folder")
    return folder
