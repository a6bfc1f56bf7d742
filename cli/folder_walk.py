"""Files and folders as people name them -> files to index, one after the other, however many.

Of the tree only the names of one folder are held at a time. The order is that of the arguments,
and within a folder that of the names: files first, then folders.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cli.errors import CliError
from clipbert.video.formats import MEDIA_EXTENSIONS

MOST_URI_LENGTH = 4096  # that the API takes
# What disks, NAS boxes and desktops keep for themselves, in lower case; hidden ones are left out
# with all that is hidden.
SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "@appstore"}
    | {"#recycle", "#snapshot", "$recycle.bin", "$recycle", "recycler", "recycled"}
    | {"system volume information", "lost+found", "found.000", "__macosx", "$windows.~bt"}
    | {"network trash folder", "temporary items", "theftprotectionfolder"}
)


class Reason(StrEnum):
    """Why something is left out; the value is what people read."""

    EXTENSION = "not the extension of a video or an image"
    HIDDEN = "hidden"
    SYSTEM_FOLDER = "a folder of the system"
    LINKED_FOLDER = "a link to a folder"


@dataclass(frozen=True)
class Taken:
    """A file to index; absolute."""

    path: Path


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was passed over, which nobody would miss."""

    path: Path
    reason: Reason


@dataclass(frozen=True)
class Broken:
    """Something that was wanted and cannot be read, with the sentence why."""

    path: Path
    why: str


Found = Taken | Skipped | Broken


def walk(paths: Iterable[Path], *, every_file: bool) -> Iterator[Found]:
    """Find what to index; each file comes once.

    A file named by itself is always taken; of a folder, what has the extension of a video or an
    image, at any depth, without what is hidden or the system's, without following links to
    folders.

    Args:
        paths: files and folders.
        every_file: take files of any extension.

    Raises:
        CliError: a path does not exist, or cannot be read.
    """
    named = [(path, _absolute(path)) for path in paths]
    modes = [_mode(shown, path) for shown, path in named]  # before anything is taken
    walker = _Walker(every_file=every_file)
    for (shown, path), mode in zip(named, modes, strict=True):
        if stat.S_ISDIR(mode):
            yield from walker.folder(path)
        elif not stat.S_ISREG(mode):
            raise CliError(f"{shown} is {kind_of_file(mode)}, not a file or folder")
        else:
            yield from walker.file(path)


def kind_of_file(mode: int) -> str:
    """Return what a path that is not a regular file is."""
    for is_kind, name in (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISDIR, "a folder"),
    ):
        if is_kind(mode):
            return name
    return "something else"


class _Walker:
    """Walks, and remembers where it was: that is a folder or a named file, never every file."""

    def __init__(self, *, every_file: bool) -> None:
        self._every_file = every_file
        self._named: set[Path] = set()
        self._folders: set[tuple[int, int]] = set()  # device and inode of each that was listed

    def file(self, path: Path) -> Iterator[Found]:
        """Take a file that was named by itself."""
        came_with_folder = self._is_wanted(path.name) and self._was_listed(path.parent)
        if path not in self._named and not came_with_folder:
            self._named.add(path)
            yield _checked(path)

    def folder(self, top: Path) -> Iterator[Found]:
        """Take what is below a folder. No recursion: trees may be deeper than Python's stack."""
        waiting = [str(top)]
        while waiting:
            folder = waiting.pop()
            try:
                status = os.stat(folder)  # noqa: PTH116  paths of a million files: plain strings
                if (status.st_dev, status.st_ino) in self._folders:
                    continue  # named twice, or mounted within itself
                files, subfolders, left_out = self._listed(folder)
            except OSError as error:
                why = f"folder left out: {error.strerror or error}"
                yield Broken(Path(folder), why)
                continue
            self._folders.add((status.st_dev, status.st_ino))
            yield from left_out
            for name in files:
                path = Path(folder, name)
                if not self._is_wanted(name):
                    reason = Reason.HIDDEN if name.startswith(".") else Reason.EXTENSION
                    yield Skipped(path, reason)
                elif path not in self._named:
                    yield _checked(path)
            waiting += [os.path.join(folder, name) for name in reversed(subfolders)]  # noqa: PTH118

    def _listed(self, folder: str) -> tuple[list[str], list[str], list[Skipped]]:
        files, subfolders, left_out = [], [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_folder(entry):
                    files.append(entry.name)
                elif entry.name.startswith("."):
                    left_out.append(Skipped(Path(entry.path), Reason.HIDDEN))
                elif entry.name.lower() in SYSTEM_FOLDERS:
                    left_out.append(Skipped(Path(entry.path), Reason.SYSTEM_FOLDER))
                elif entry.is_symlink():
                    left_out.append(Skipped(Path(entry.path), Reason.LINKED_FOLDER))
                else:
                    subfolders.append(entry.name)
        return sorted(files), sorted(subfolders), sorted(left_out, key=lambda each: each.path)

    def _is_wanted(self, name: str) -> bool:
        if name.startswith("."):
            return False
        return self._every_file or os.path.splitext(name)[1].lower() in MEDIA_EXTENSIONS  # noqa: PTH122

    def _was_listed(self, folder: Path) -> bool:
        try:
            status = folder.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) in self._folders


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle: told with the files
        return False


def _checked(path: Path) -> Taken | Broken:
    """Check a file that was asked for; what no worker could read is reported at once."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return Broken(path, "a link that leads nowhere" if path.is_symlink() else "it is gone")
    except OSError as error:
        return Broken(path, error.strerror or str(error))
    if not stat.S_ISREG(mode):
        return Broken(path, f"it is {kind_of_file(mode)}, not a file")
    if len(path.as_uri()) > MOST_URI_LENGTH:
        return Broken(path, f"its path is too long: more than {MOST_URI_LENGTH} letters as a URI")
    return Taken(path)


def _absolute(path: Path) -> Path:
    # Not resolve(): a link keeps the name that people know it by.
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100


def _mode(shown: Path, path: Path) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise CliError(f"{shown} is a link that leads nowhere") from error
        raise CliError(f"{shown} does not exist") from error
    except OSError as error:
        raise CliError(f"{shown} cannot be read: {error.strerror}") from error
