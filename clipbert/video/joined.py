"""Notice that files were joined to one whose demuxer stops after the first.

Whoever strings recordings together with `cat` expects all of them. In some containers FFmpeg reads
the first only (of Matroska two), as players do; that is to be said.
"""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from clipbert.video.truncation import ebml_elements, mp4_boxes

# A walk over more parts is not made to its end.
_MAX_PARTS = 200_000
_EBML_HEADER = 0x1A45DFA3
_FLV_HEADER, _FLV_HEADER_BYTES, _FLV_TAG_BYTES = b"FLV\x01", 9, 11
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")


def num_unread_recordings(path: Path, demuxer: str) -> int:
    """Count the recordings in a file that its demuxer does not come to.

    Args:
        path: the file.
        demuxer: FFmpeg's name, as containers.sniff_format gives it.
    """
    counts: dict[str, tuple[Callable[[BinaryIO, int], int], int]] = {
        "mov": (_count_mp4, 1),
        "matroska": (_count_matroska, 2),
        "flv": (_count_flv, 1),
        "asf": (_count_asf, 1),
    }
    if demuxer not in counts:
        return 0
    count, num_read = counts[demuxer]
    with path.open("rb") as file:
        return max(0, count(file, path.stat().st_size) - num_read)


def _count_mp4(file: BinaryIO, size_bytes: int) -> int:
    names = [part.name for part in mp4_boxes(file, size_bytes)]
    # Fragments are all read, whatever headers are repeated between them.
    return 1 if b"moof" in names else names.count(b"moov")


def _count_matroska(file: BinaryIO, size_bytes: int) -> int:
    elements = islice(ebml_elements(file, size_bytes), _MAX_PARTS)
    return sum(number == _EBML_HEADER for number, _ in elements)


def _count_flv(file: BinaryIO, size_bytes: int) -> int:
    """Walk from tag to tag; each is followed by its size."""
    num_headers, position = 0, 0
    for _ in range(_MAX_PARTS):
        file.seek(position)
        start = file.read(_FLV_TAG_BYTES)
        if len(start) < _FLV_TAG_BYTES:
            break
        if start.startswith(_FLV_HEADER):
            num_headers += 1
            position += _FLV_HEADER_BYTES + 4
        else:
            position += _FLV_TAG_BYTES + int.from_bytes(start[1:4], "big") + 4
    return num_headers


def _count_asf(file: BinaryIO, size_bytes: int) -> int:
    num_headers, position = 0, 0
    for _ in range(_MAX_PARTS):
        file.seek(position)
        start = file.read(24)  # what it is, and its size with these
        length = int.from_bytes(start[16:], "little")
        if length < len(start) or position + length > size_bytes:
            break
        num_headers += start.startswith(_ASF_HEADER)
        position += length
    return num_headers
