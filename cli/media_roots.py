"""The media roots of a data folder: given once, they hold for every later `clipbert up` on it."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from cli.errors import CliError
from embedded.private_file import write_private

if TYPE_CHECKING:
    from store.database import Sessions

FILE_NAME = "media_roots.json"
LOOKED_AT = 10_000
"""Videos of a large library, chosen at random: to look at a million takes a second."""


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


@dataclass(frozen=True)
class Outside:
    """Videos that were indexed in place and lie under no root.

    Attributes:
        paths: theirs.
        is_all: whether there are no others; else these are of LOOKED_AT videos.
    """

    paths: Sequence[str]
    is_all: bool


def outside_media_roots(sessions: "Sessions", roots: Sequence[Path]) -> Outside:
    """Look for videos that lie under no root."""
    from store.videos.repository import VideoRepository

    real = [Path(os.path.realpath(root)) for root in roots]
    prefixes = tuple(_prefix(root.as_uri()) for root in (*roots, *real))
    with sessions() as session:
        uris, is_all = VideoRepository(session).sample_in_place(LOOKED_AT)
    paths = [unquote(urlsplit(uri).path) for uri in uris if not uri.startswith(prefixes)]
    outside = [
        path
        for path in paths
        if not any(Path(os.path.realpath(path)).is_relative_to(root) for root in real)
    ]
    return Outside(outside, is_all)


def describe_outside(outside: Outside) -> str:
    """Say how many videos cannot be read, and name one."""
    number = len(outside.paths)
    verb = "lies" if number == 1 else "lie"
    of = "of the videos" if outside.is_all else f"of {LOOKED_AT} videos that were looked at"
    return f"{number} {of} {verb} under no media root, such as {outside.paths[0]}"


def _prefix(uri: str) -> str:
    return uri if uri.endswith("/") else f"{uri}/"


def _listed(roots: Sequence[Path]) -> str:
    return ", ".join(str(root) for root in roots)


def _checked_folder(root: Path) -> Path:
    folder = root.expanduser().absolute()
    if not folder.is_dir():
        raise CliError(f"--media-root {root} is not a folder")
    return folder
