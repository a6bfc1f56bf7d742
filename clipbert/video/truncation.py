"""Notice a file that ends before its own header says.

Decoders take such a file for a shorter one, or for one that cannot be read; whoever sent it should
hear that the upload was cut. Only sizes that the file itself states are compared with its length.
Program streams and MPEG-TS state none; a cut there is not noticed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from clipbert.video.stills import jpeg_segments

_HEADER_BYTES = 16
# MP4 boxes without which a file is not whole; a cut trailing box of notes does no harm.
_MP4_NEEDED = frozenset({b"moov", b"mdat", b"moof"})
# The index of pictures (HEIC, AVIF), where there is no other.
_HEIF_INDEX = b"meta"
_MAX_OGG_PAGE_BYTES = 65_307
_JPEG_END = b"\xff\xd9"
_PIECE_BYTES = 1 << 20
_GIF_PICTURE, _GIF_EXTENSION = b",", b"!"
_UNKNOWN_SIZE = -1
_EBML_SEGMENT = 0x18538067
_EBML_CLUSTER = 0x1F43B675
# The header; what a segment holds, a cluster's contents among it, where their own sizes are not
# known. Anything else is not Matroska: something was appended to the file.
_EBML_LEVEL_1 = (0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469)
_EBML_IN_CLUSTER = (0xE7, 0xA3, 0xA0, 0xAB, 0xA7, 0x5854, 0xEC, 0xBF)
_EBML_KNOWN = frozenset(
    (0x1A45DFA3, _EBML_SEGMENT, _EBML_CLUSTER, *_EBML_LEVEL_1, *_EBML_IN_CLUSTER)
)
# A walk over millions of tiny elements is no video; its end is then not looked for.
_MAX_ELEMENTS = 200_000


@dataclass(frozen=True)
class _Part:
    """A box, chunk or element of a file: name, where its content begins, where it ends."""

    name: bytes
    content: int
    end: int


def is_truncated(path: Path, container: str) -> bool:
    """Whether the file's own sizes go past its end.

    Args:
        path: the file.
        container: FFmpeg's name of its demuxer, as containers.sniff_format gives it.
    """
    checks = {
        "mov": _mp4_is_cut,
        "avi": _riff_is_cut,
        "webp_pipe": _riff_is_cut,
        "matroska": _matroska_is_cut,
        "ogg": _ogg_is_cut,
        "jpeg_pipe": _jpeg_is_cut,
        "png_pipe": _png_is_cut,
        "apng": _png_is_cut,
        "gif": _gif_is_cut,
    }
    if container not in checks:
        return False
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        return checks[container](file, size_bytes)


def _mp4_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    found: list[bytes] = []
    has_pictures = False
    for part in mp4_boxes(file, size_bytes):
        has_pictures |= part.name == _HEIF_INDEX and part.end <= size_bytes
        if part.name in _MP4_NEEDED:
            if part.end > size_bytes:
                return True
            found.append(part.name)
    if has_pictures and b"moov" not in found:
        return False
    # The index comes last unless the file was made for streaming; then the pictures do, and of
    # each fragment too.
    return b"moov" not in found or len(set(found)) == 1 or found[-1] == b"moof"


def mp4_boxes(file: BinaryIO, size_bytes: int) -> Iterator["_Part"]:
    """Walk over the outermost boxes of an MP4 file."""
    position = 0
    for _ in range(_MAX_ELEMENTS):
        header = _read_at(file, position, _HEADER_BYTES)
        name, length = header[4:8], int.from_bytes(header[:4], "big")
        header_bytes = 8
        if length == 1:
            length, header_bytes = int.from_bytes(header[8:16], "big"), 16
        if length == 0 and name.strip(b"\0"):
            length = size_bytes - position  # to the end of the file
        if len(header) < header_bytes or length < header_bytes:
            return
        yield _Part(name, position + header_bytes, position + length)
        position += length
        if position >= size_bytes:
            return


def _riff_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    # Files over 1 GB are several RIFF chunks, one after another.
    position = 0
    for _ in range(_MAX_ELEMENTS):
        header = _read_at(file, position, 8)
        if header[:4] != b"RIFF":
            return False
        length = int.from_bytes(header[4:8], "little")
        if length in (0, 0xFFFFFFFF):  # written live, never closed
            return False
        position += 8 + length
        if position >= size_bytes:
            # Some writers leave out the byte that pads an odd length.
            return position > size_bytes + 1
    return False


def _matroska_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    return any(end > size_bytes for _, end in ebml_elements(file, size_bytes))


def ebml_elements(file: BinaryIO, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Walk over the parts of a Matroska file: each one's number, and where it ends.

    What states no size, as it was written live, ends where its content begins; that follows.
    """
    position = 0
    for _ in range(_MAX_ELEMENTS):
        element = _ebml_element(file, position)
        if element is None or element[0] not in _EBML_KNOWN:
            return
        number, content, length = element
        if length == _UNKNOWN_SIZE:
            if number not in (_EBML_SEGMENT, _EBML_CLUSTER):
                return
            length = 0
        position = content + length
        yield number, position
        if position > size_bytes:
            return


def _ebml_element(file: BinaryIO, position: int) -> tuple[int, int, int] | None:
    """Read an element's (id, position of its content, length), None past the end."""
    header = _read_at(file, position, _HEADER_BYTES)
    if len(header) < 2 or header[0] == 0:  # noqa: PLR2004 (an id byte and a length byte)
        return None
    id_bytes = 9 - header[0].bit_length()
    if id_bytes >= len(header) or header[id_bytes] == 0:
        return None
    length_bytes = 9 - header[id_bytes].bit_length()
    start = position + id_bytes + length_bytes
    mask = (1 << 7 * length_bytes) - 1
    length = int.from_bytes(header[id_bytes : id_bytes + length_bytes], "big") & mask
    number = int.from_bytes(header[:id_bytes], "big")
    return number, start, _UNKNOWN_SIZE if length == mask else length


def _ogg_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    start = max(0, size_bytes - _MAX_OGG_PAGE_BYTES)
    tail = _read_at(file, start, size_bytes - start)
    page = tail.rfind(b"OggS")
    if page < 0:
        return False
    num_segments_at = page + 26
    if num_segments_at >= len(tail):
        return True
    num_segments = tail[num_segments_at]
    lengths = tail[num_segments_at + 1 : num_segments_at + 1 + num_segments]
    return num_segments_at + 1 + num_segments + sum(lengths) > len(tail)


def _jpeg_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    # The notes before the pixels may hold a whole small JPEG; and cameras append a preview, or
    # even a film, after the end mark.
    position = 0
    for segment in jpeg_segments(file):
        position = segment.end
    while position < size_bytes:
        if _JPEG_END in _read_at(file, position, _PIECE_BYTES + 1):  # the mark is of two bytes
            return False
        position += _PIECE_BYTES
    return True


def _png_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    position = 8
    for _ in range(_MAX_ELEMENTS):
        header = _read_at(file, position, 8)
        if len(header) < 8:  # noqa: PLR2004 (a chunk's length and name)
            return True
        position += 12 + int.from_bytes(header[:4], "big")
        if header[4:] == b"IEND":
            return position > size_bytes
    return False


def _gif_is_cut(file: BinaryIO, size_bytes: int) -> bool:
    # A file that ends between two blocks is taken for whole: some writers leave out the end mark.
    flags = _read_at(file, 10, 1)
    position = 13 + _gif_colours_bytes(flags)
    for _ in range(_MAX_ELEMENTS):
        mark = _read_at(file, position, 1)
        if mark == _GIF_PICTURE:
            flags = _read_at(file, position + 9, 1)
            position += 11 + _gif_colours_bytes(flags)
        elif mark == _GIF_EXTENSION:
            position += 2
        else:
            # The end mark, or rubbish, which decoders take for the end; or cut right after a block.
            return position > size_bytes
        while (length := _read_at(file, position, 1)) != b"\0":
            if not length:
                return True
            position += 1 + length[0]
        position += 1
    return False


def _gif_colours_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _read_at(file: BinaryIO, position: int, num_bytes: int) -> bytes:
    file.seek(position)
    return file.read(num_bytes)
