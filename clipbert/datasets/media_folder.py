"""A folder of videos and pictures as the media source of a data set: names -> files."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from clipbert.datasets.video_references import (
    ReferenceIndex,
    VideoReference,
    file_of_path,
    split_ending,
)
from clipbert.errors import AmbiguousMedia, MediaNotFound

# COCO_train2014_000000123456, and 000000123456 from 2017 on.
_COCO_NAME = re.compile(r"(?:COCO_[a-z]+[0-9]{4}_)?([0-9]{12})")


class MediaFolder:
    """All videos and pictures in a folder, at any depth, found by what names them.

    What a name means is said by clipbert.datasets.video_references, as of the videos of a service.
    Pictures of COCO are found by each of their names: COCO_train2014_000000123456, 000000123456
    and, in a folder that has none of these, the plain number 123456.

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
        paths = list(_walk(folder))
        here = Path(os.path.abspath(folder))  # noqa: PTH100  a link keeps its name
        self._num_files = len(paths)
        self._files = ReferenceIndex(
            (file_of_path(str(here / path.relative_to(folder))), path) for path in paths
        )
        self._by_coco_number: defaultdict[int, list[Path]] = defaultdict(list)
        for path in paths:
            if coco := _COCO_NAME.fullmatch(split_ending(path.name)[0]):
                self._by_coco_number[int(coco[1])].append(path)

    def __len__(self) -> int:
        """Count the files."""
        return self._num_files

    def find(self, name: str) -> Path:
        """Find the one file of a name.

        Args:
            name: of a video or picture.

        Raises:
            MediaNotFound: no file has the name.
            AmbiguousMedia: several files have it; the error names them.
        """
        paths = self._files.find(VideoReference(name)) or self._find_coco(name)
        if not paths:
            raise MediaNotFound(f"no video or picture named {name} in {self.folder}")
        if len(paths) > 1:
            raise AmbiguousMedia(name, paths)
        return paths[0]

    def canonical_name(self, name: str) -> str:
        """Return the name under which the file that a name means goes, whatever it was found by.

        That is the shortest that no other file has: without folder and ending, with them, or the
        whole path.

        Raises:
            MediaNotFound, AmbiguousMedia: as `find`.
        """
        path = self.find(name)
        stem = split_ending(unicodedata.normalize("NFC", path.name))[0]
        for shorter in (stem, str(path.relative_to(self.folder))):
            if self._files.find(VideoReference(shorter)) == [path]:
                return shorter
        return os.path.abspath(path)  # noqa: PTH100  a link keeps its name

    def _find_coco(self, name: str) -> Sequence[Path]:
        stem, ending = split_ending(name)
        coco = _COCO_NAME.fullmatch(stem)
        if coco is None:
            return []
        number = int(coco[1])
        if not self._by_coco_number:
            return self._files.find(VideoReference(f"{number}{ending}"))
        # Beside COCO's names, 123456.jpg is a picture of another set (Visual Genome).
        found = self._by_coco_number.get(number, [])
        return [path for path in found if ending in ("", path.suffix)]


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
            if not name.startswith(".") and split_ending(name)[1]:
                yield Path(here, name)
