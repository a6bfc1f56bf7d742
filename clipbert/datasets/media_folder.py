"""A folder of videos and pictures as the media source of a data set: names -> files."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from clipbert.errors import AmbiguousMedia, MediaNotFound
from clipbert.video.formats import MEDIA_EXTENSIONS

# COCO_train2014_000000123456, and 000000123456 from 2017 on.
_COCO_NAME = re.compile(r"(?:COCO_[a-z]+[0-9]{4}_)?([0-9]{12})")


class MediaFolder:
    """All videos and pictures in a folder, at any depth, found by name.

    A name is a file's name without folder and extension. Pictures of COCO are found by each of
    their names: COCO_train2014_000000123456, 000000123456 and, in a folder that has none of
    these, the plain number 123456.

        MediaFolder(Path("videos")).find("video7010")  ->  videos/test/video7010.mp4

    The folder is read once, when the object is made. Hidden files are left out; links to folders
    are followed.

    Args:
        folder: where the media are.

    Raises:
        MediaNotFound: it is not a folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise MediaNotFound(f"{folder} is not a folder")
        self.folder = folder
        self._by_name: defaultdict[str, list[Path]] = defaultdict(list)
        self._by_coco_number: defaultdict[int, list[Path]] = defaultdict(list)
        for path in _walk(folder):
            name = media_name(path.name)
            self._by_name[name].append(path)
            if coco := _COCO_NAME.fullmatch(name):
                self._by_coco_number[int(coco[1])].append(path)

    def __len__(self) -> int:
        """Count the files."""
        return sum(map(len, self._by_name.values()))

    def find(self, name: str) -> Path:
        """Find the one file of a name.

        Args:
            name: of a video or picture; folders and extensions of media in it are ignored.

        Raises:
            MediaNotFound: no file has the name.
            AmbiguousMedia: several files have it; the error names them.
        """
        name = media_name(name)
        paths = self._by_name.get(name) or self._find_coco(name)
        if not paths:
            raise MediaNotFound(f"no video or picture named {name} in {self.folder}")
        if len(paths) > 1:
            raise AmbiguousMedia(name, paths)
        return paths[0]

    def _find_coco(self, name: str) -> list[Path]:
        coco = _COCO_NAME.fullmatch(name)
        if coco is None:
            return []
        number = int(coco[1])
        if self._by_coco_number:
            # Beside COCO's names, 123456.jpg is a picture of another set (Visual Genome).
            return self._by_coco_number.get(number, [])
        return self._by_name.get(str(number), [])


def media_name(text: str) -> str:
    """Strip folders and extensions of media from a name, and no other part after a dot.

    media_name("clips/a.b.avi.mp4")  ->  "a.b"

    In NFC: macOS gives the names of files in NFD, annotations are mostly written in NFC.
    """
    name = unicodedata.normalize("NFC", text.rsplit("/", 1)[-1])
    stem, _, extension = name.rpartition(".")
    while stem and f".{extension.lower()}" in MEDIA_EXTENSIONS:
        name = stem
        stem, _, extension = name.rpartition(".")
    return name


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for here, subfolders, names in os.walk(folder, followlinks=True):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link back up, or a second link
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and media_name(name) != name:
                yield Path(here, name)
