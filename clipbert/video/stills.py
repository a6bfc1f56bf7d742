"""What a still picture's own first bytes say: its size, and how it is to be held.

Decoders tell the size of a picture only after they have made room for it, and PyAV does not tell
whether a photograph is mirrored.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from clipbert.video.orientation import Orientation

_SIGNATURE_BYTES = {"png_pipe": 8, "webp_pipe": 12}
_JPEG_SCAN = 0xDA
_JPEG_APP1 = 0xE1
# Start of frame, in any coding; the others of this range are tables.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_EXIF_CHUNKS = frozenset({b"eXIf", b"EXIF"})
_EXIF_HEADER = b"Exif\0\0"
_WEBP_ANIMATION = 0b10
_ORIENTATION_TAG = 0x0112
# The end of one picture and the beginning of the next; it is looked for in so many bytes.
_JPEG_SEAM = b"\xff\xd9\xff\xd8\xff"
_MAX_MOTION_BYTES = 16 << 20
_JPEG_SEVERAL = b"MPF\0"
_MAX_EXIF_BYTES = 65_536
# A walk over more parts than any camera writes is not gone on with.
_MAX_PARTS = 10_000


@dataclass(frozen=True)
class Part:
    """A segment or chunk of a picture: what it is, where its content begins and where it ends."""

    kind: int | bytes
    content: int
    end: int


def picture_size(path: Path, container: str) -> tuple[int, int] | None:
    """Read (width, height) from the header of a JPEG, PNG or GIF.

    Args:
        path: the file.
        container: FFmpeg's name of its demuxer, as containers.sniff_format gives it.

    Returns:
        None for other files, and where the header does not say.
    """
    with path.open("rb") as file:
        if container == "png_pipe":
            return _unpacked(">II", _read_at(file, 16, 8))
        if container == "gif":
            return _unpacked("<HH", _read_at(file, 6, 4))
        if container == "jpeg_pipe":
            for segment in jpeg_segments(file):
                if segment.kind in _JPEG_FRAMES:
                    size = _unpacked(">HH", _read_at(file, segment.content + 1, 4))
                    return None if size is None else (size[1], size[0])
    return None


def is_animated(path: Path, container: str) -> bool:
    """Whether a PNG or WebP says before its first picture that more follow."""
    with path.open("rb") as file:
        for part in _chunks(file, container):
            if part.kind == b"acTL":
                return int.from_bytes(_read_at(file, part.content, 4), "big") > 1
            if part.kind == b"VP8X":
                return bool(int.from_bytes(_read_at(file, part.content, 1)) & _WEBP_ANIMATION)
            if part.kind == b"IDAT":
                return False
    return False


def is_motion_jpeg(path: Path) -> bool:
    """Whether three or more JPEG pictures follow each other directly, as frames of a video do.

    Cameras append a second one too, and note in the first that several pictures belong together.
    """
    with path.open("rb") as file:
        start = file.read(_MAX_MOTION_BYTES)
    return start.count(_JPEG_SEAM) > 1 and _JPEG_SEVERAL not in start[:_MAX_EXIF_BYTES]


def exif_orientation(path: Path, container: str) -> Orientation | None:
    """Read from its EXIF notes how a JPEG, PNG or WebP is to be held; None if they do not say."""
    with path.open("rb") as file:
        for notes in _exif_notes(file, container):
            orientation = Orientation.from_exif(_exif_value(notes, _ORIENTATION_TAG))
            if orientation is not None:
                return orientation
    return None


def jpeg_segments(file: BinaryIO) -> Iterator[Part]:
    """Walk the segments of a JPEG up to its first scan, whose header is the last of them.

    Ends early where no segment begins.
    """
    position = 2
    for _ in range(_MAX_PARTS):
        header = _read_at(file, position, 4)
        if len(header) < 4 or header[0] != 0xFF or header[1] in (0xD8, 0xD9):  # noqa: PLR2004
            return
        if header[1] == 0xFF:  # padding  # noqa: PLR2004
            position += 1
            continue
        end = position + 2 + int.from_bytes(header[2:], "big")
        yield Part(header[1], position + 4, end)
        if header[1] == _JPEG_SCAN:
            return
        position = end


def _exif_notes(file: BinaryIO, container: str) -> Iterator[bytes]:
    """Return the EXIF notes of a picture, without their first mark."""
    if container == "jpeg_pipe":
        parts = (part for part in jpeg_segments(file) if part.kind == _JPEG_APP1)
    elif container in _SIGNATURE_BYTES:
        parts = (part for part in _chunks(file, container) if part.kind in _EXIF_CHUNKS)
    else:
        return
    for part in parts:
        notes = _read_at(file, part.content, min(part.end - part.content, _MAX_EXIF_BYTES))
        if container != "jpeg_pipe" or notes.startswith(_EXIF_HEADER):
            yield notes.removeprefix(_EXIF_HEADER)


def _chunks(file: BinaryIO, container: str) -> Iterator[Part]:
    position = _SIGNATURE_BYTES[container]
    for _ in range(_MAX_PARTS):
        header = _read_at(file, position, 8)
        if len(header) < 8:  # noqa: PLR2004 (a length and a name)
            return
        if container == "png_pipe":
            name, length = header[4:], int.from_bytes(header[:4], "big")
            after = 4  # checksum
        else:
            name, length = header[:4], int.from_bytes(header[4:], "little")
            after = length % 2  # padding
        yield Part(name, position + 8, position + 8 + length)
        position += 8 + length + after


def _exif_value(notes: bytes, tag: int) -> int | None:
    """Read a short number of the first directory of EXIF notes, which are a TIFF file."""
    order: Literal["little", "big"] = "little" if notes[:2] == b"II" else "big"

    def number(position: int, num_bytes: int) -> int:
        return int.from_bytes(notes[position : position + num_bytes], order)

    directory = number(4, 4)
    for row in range(number(directory, 2)):
        entry = directory + 2 + 12 * row
        if number(entry, 2) == tag:
            return number(entry + 8, 2)
    return None


def _unpacked(form: str, found: bytes) -> tuple[int, int] | None:
    return struct.unpack(form, found) if len(found) == struct.calcsize(form) else None


def _read_at(file: BinaryIO, position: int, num_bytes: int) -> bytes:
    file.seek(position)
    return file.read(num_bytes)
