"""What a HEIC or AVIF picture is put together from: tiles, and a picture of its transparency.

FFmpeg gives each of these as a stream of its own, under the number that the file's index has for
it. Phones write HEIC as a grid of tiles, so one stream is a small part of the picture only.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clipbert.errors import UnsupportedMedia

_MAX_INDEX_BYTES = 8 << 20
_CODED = frozenset({b"hvc1", b"av01"})
_ALPHA_KINDS = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_MAX_TILES = 1024


@dataclass(frozen=True)
class Grid:
    """Pictures side by side, or a single one.

    Attributes:
        items: the numbers of the pictures, row by row.
        columns: how many are side by side.
        size: (width, height) of the whole, cut off at the right and below; None for a single one.
    """

    items: tuple[int, ...]
    columns: int = 1
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Assembly:
    """How a picture is put together.

    Attributes:
        colour: what is seen.
        alpha: how much of it, as grey; None if all.
        turns: quarter turns counter-clockwise.
        mirror: afterwards: 0 exchanges top and bottom, 1 left and right; None neither.
    """

    colour: Grid
    alpha: Grid | None
    turns: int
    mirror: int | None


@dataclass
class _Index:
    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # method, offset, length
    references: list[tuple[bytes, int, list[int]]] = field(default_factory=list)
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    owned: dict[int, list[int]] = field(default_factory=dict)
    inner: bytes = b""  # data kept in the index itself


def read_assembly(path: Path, *, name: str) -> Assembly | None:
    """Read how a file's main picture is put together; None if it is one coded picture, opaque.

    Raises:
        UnsupportedMedia: it is made in a way that is not read here, or its index is damaged.
    """
    try:
        index = _read_index(path)
        if index is None or index.primary not in index.kinds:
            return None
        auxiliary = [item for item in _pointing_at(index, b"auxl") if _is_alpha(index, item)]
        if index.kinds[index.primary] in _CODED and not auxiliary:
            return None
        return Assembly(
            _grid(index, index.primary, path, name),
            _grid(index, auxiliary[0], path, name) if auxiliary else None,
            *_turn(index),
        )
    except (LookupError, OverflowError, ValueError) as error:
        raise UnsupportedMedia(f"{name} has an index of pictures that cannot be read") from error


def _grid(index: _Index, item: int, path: Path, name: str) -> Grid:
    kind = index.kinds.get(item, b"")
    if kind in _CODED:
        return Grid((item,))
    if kind != b"grid":
        words = kind.decode("ascii", "replace")
        raise UnsupportedMedia(f"{name} is put together as {words!r}, which is not read here")
    method, offset, length = index.places[item]
    if method == 1:
        payload = index.inner[offset : offset + length]
    else:
        with path.open("rb") as file:
            file.seek(offset)
            payload = file.read(min(length, 64))
    rows, columns = payload[2] + 1, payload[3] + 1
    num_bytes = 4 if payload[1] & 1 else 2
    width = int.from_bytes(payload[4 : 4 + num_bytes], "big")
    height = int.from_bytes(payload[4 + num_bytes : 4 + 2 * num_bytes], "big")
    tiles_of = {origin: to for kind, origin, to in index.references if kind == b"dimg"}
    tiles = tiles_of[item]
    if len(tiles) != rows * columns or len(tiles) > _MAX_TILES or not width or not height:
        raise ValueError(f"{len(tiles)} tiles of {rows} x {columns}")
    return Grid(tuple(tiles), columns, (width, height))


def _turn(index: _Index) -> tuple[int, int | None]:
    turns, mirror = 0, None
    for kind, content in _properties(index, index.primary):
        if kind == b"irot":
            turns = content[0] & 3
        elif kind == b"imir":
            mirror = content[0] & 1
    return turns, mirror


def _pointing_at(index: _Index, kind: bytes) -> list[int]:
    return [origin for name, origin, to in index.references if name == kind and index.primary in to]


def _is_alpha(index: _Index, item: int) -> bool:
    kinds = (content[4:] for kind, content in _properties(index, item) if kind == b"auxC")
    return any(words.startswith(_ALPHA_KINDS) for words in kinds)


def _properties(index: _Index, item: int) -> list[tuple[bytes, bytes]]:
    return [index.properties[number - 1] for number in index.owned.get(item, []) if number]


def _read_index(path: Path) -> _Index | None:
    with path.open("rb") as file:
        while header := file.read(16):
            length, start = int.from_bytes(header[:4], "big"), 8
            if length == 1:
                length, start = int.from_bytes(header[8:16], "big"), 16
            if header[4:8] == b"meta" and start <= length <= _MAX_INDEX_BYTES:
                file.seek(start - len(header), 1)
                return _index_of(file.read(length - start)[4:])
            if length < start:
                return None
            file.seek(length - len(header), 1)
    return None


def _index_of(meta: bytes) -> _Index:
    index = _Index()
    for kind, content in _boxes(meta):
        version, body = (content[0] if content else 0), _Reader(content[4:])
        if kind == b"pitm":
            index.primary = body.number(4 if version else 2)
        elif kind == b"iinf":
            _read_items(index, content, version)
        elif kind == b"iref":
            _read_references(index, content[4:], 4 if version else 2)
        elif kind == b"iloc":
            _read_places(index, body, version)
        elif kind == b"iprp":
            _read_properties(index, content)
        elif kind == b"idat":
            index.inner = content
    return index


def _read_items(index: _Index, content: bytes, version: int) -> None:
    for kind, entry in _boxes(content[6 if version == 0 else 8 :]):
        if kind == b"infe" and entry[0] >= 2:  # noqa: PLR2004 (older ones have no kind)
            reader = _Reader(entry[4:])
            item = reader.number(2 if entry[0] == 2 else 4)  # noqa: PLR2004
            reader.number(2)
            index.kinds[item] = reader.take(4)


def _read_references(index: _Index, content: bytes, id_bytes: int) -> None:
    for kind, entry in _boxes(content):
        reader = _Reader(entry)
        origin = reader.number(id_bytes)
        to = [reader.number(id_bytes) for _ in range(reader.number(2))]
        index.references.append((kind, origin, to))


def _read_places(index: _Index, reader: "_Reader", version: int) -> None:
    sizes = reader.number(2)
    offset_bytes, length_bytes = sizes >> 12, sizes >> 8 & 15
    base_bytes, index_bytes = sizes >> 4 & 15, sizes & 15 if version else 0
    for _ in range(reader.number(4 if version == 2 else 2)):  # noqa: PLR2004
        item = reader.number(4 if version == 2 else 2)  # noqa: PLR2004
        method = reader.number(2) & 15 if version else 0
        reader.number(2)
        base = reader.number(base_bytes)
        for _ in range(reader.number(2)):
            reader.number(index_bytes)
            offset = base + reader.number(offset_bytes)
            index.places.setdefault(item, (method, offset, reader.number(length_bytes)))


def _read_properties(index: _Index, content: bytes) -> None:
    for kind, box in _boxes(content):
        if kind == b"ipco":
            index.properties = list(_boxes(box))
        elif kind == b"ipma":
            reader = _Reader(box[4:])
            wide = box[3] & 1
            for _ in range(reader.number(4)):
                item = reader.number(4 if box[0] else 2)
                numbers = [reader.number(1 + wide) for _ in range(reader.number(1))]
                index.owned.setdefault(item, []).extend(
                    number & (0x7FFF if wide else 0x7F) for number in numbers
                )


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position + 8 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        if length < 8:  # noqa: PLR2004 (a length and a name)
            return
        yield content[position + 4 : position + 8], content[position + 8 : position + length]
        position += length


class _Reader:
    """Takes numbers off bytes; past their end, IndexError."""

    def __init__(self, content: bytes) -> None:
        self._content, self._position = content, 0

    def take(self, num_bytes: int) -> bytes:
        end = self._position + num_bytes
        if end > len(self._content):
            raise IndexError(end)
        taken = self._content[self._position : end]
        self._position = end
        return taken

    def number(self, num_bytes: int) -> int:
        return int.from_bytes(self.take(num_bytes), "big")
