"""Write HEIC and AVIF pictures as phones do: a grid of tiles, with a turn, a thumbnail, alpha."""

import io
import struct
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from odd_frames import as_frame
from PIL import Image


def box(kind: bytes, *parts: bytes) -> bytes:
    """Frame a box's content."""
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def full(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    """Frame the content of a box that has a version."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def coded(pixels: np.ndarray, kind: bytes) -> tuple[bytes, bytes]:
    """Encode one picture: its configuration box and its data."""
    buffer = io.BytesIO()
    if kind == b"av01":
        Image.fromarray(pixels).save(buffer, "avif", quality=95, subsampling="4:4:4")
        content = buffer.getvalue()
        start = content.index(b"av1C") - 4
        length = int.from_bytes(content[start : start + 4], "big")
        place, size = struct.unpack_from(">II", content, content.index(b"iloc") + 20 - 2)
        return content[start : start + length], content[place : place + size]
    with av.open(buffer, "w", format="mp4") as output:
        options = {"x265-params": "log-level=none:ctu=16:min-cu-size=8:crf=5"}
        stream = output.add_stream("libx265", rate=1, options=options)
        stream.width, stream.height, stream.pix_fmt = pixels.shape[1], pixels.shape[0], "yuv420p"
        for packet in [*stream.encode(as_frame(pixels, 0, 1)), *stream.encode()]:
            packet.pts = packet.dts = 0  # x265 gives none for a single picture
            output.mux(packet)
    content = buffer.getvalue()
    start = content.index(b"hvcC") - 4
    length = int.from_bytes(content[start : start + 4], "big")
    buffer.seek(0)
    with av.open(buffer) as source:
        data = next(bytes(packet) for packet in source.demux(video=0) if packet.size)
    return content[start : start + length], data


@dataclass
class Heif:
    """A file in the making: items, their properties and how they refer to each other."""

    kind: bytes  # hvc1 or av01
    items: list[tuple[bytes, bytes, list[bytes]]] = field(default_factory=list)
    references: list[tuple[bytes, int, list[int]]] = field(default_factory=list)
    primary: int = 1

    def add_picture(self, pixels: np.ndarray, *properties: bytes) -> int:
        """Add a coded picture; returns its number."""
        config, data = coded(pixels, self.kind)
        height, width = pixels.shape[:2]
        size = full(b"ispe", struct.pack(">II", width, height))
        self.items.append((self.kind, data, [size, config, *properties]))
        return len(self.items)

    def add_grid(
        self, pixels: np.ndarray, *properties: bytes, tile: int = 64, alpha: bool = False
    ) -> int:
        """Add a picture in tiles, and the grid that they make; returns the grid's number."""
        height, width = pixels.shape[:2]
        rows, columns = -(-height // tile), -(-width // tile)
        padded = np.pad(
            pixels, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), mode="edge"
        )
        tiles = [
            self.add_picture(
                np.ascontiguousarray(padded[y : y + tile, x : x + tile]),
                *(properties if alpha else ()),
            )
            for y in range(0, rows * tile, tile)
            for x in range(0, columns * tile, tile)
        ]
        payload = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
        size = full(b"ispe", struct.pack(">II", width, height))
        self.items.append((b"grid", payload, [size, *properties]))
        self.references.append((b"dimg", len(self.items), tiles))
        return len(self.items)

    def write(self, path: Path) -> Path:
        """Write the file."""
        brand = b"avif" if self.kind == b"av01" else b"heic"
        start = box(b"ftyp", brand, bytes(4), b"mif1", brand)
        meta = self._meta([0] * len(self.items))
        place = len(start) + len(meta) + 8
        places = []
        for _, data, _ in self.items:
            places.append(place)
            place += len(data)
        content = b"".join(data for _, data, _ in self.items)
        path.write_bytes(start + self._meta(places) + box(b"mdat", content))
        return path

    def _meta(self, places: list[int]) -> bytes:
        numbered = list(enumerate(self.items, start=1))
        infos = [
            full(b"infe", struct.pack(">HH", number, 0), kind, b"\0", version=2)
            for number, (kind, _, _) in numbered
        ]
        extents = [
            struct.pack(">HHHII", number, 0, 1, place, len(data))
            for (number, (_, data, _)), place in zip(numbered, places, strict=True)
        ]
        references = [
            box(kind, struct.pack(f">HH{len(to)}H", origin, len(to), *to))
            for kind, origin, to in self.references
        ]
        properties = [each for _, (_, _, owned) in numbered for each in owned]
        owned_by, first = [], 1
        for number, (_, _, owned) in numbered:
            marks = struct.pack(f"{len(owned)}B", *range(first, first + len(owned)))
            owned_by.append(struct.pack(">HB", number, len(owned)) + marks)
            first += len(owned)
        count = len(numbered)
        return full(
            b"meta",
            full(b"hdlr", bytes(4), b"pict", bytes(13)),
            full(b"pitm", struct.pack(">H", self.primary)),
            full(b"iloc", struct.pack(">BBH", 0x44, 0, count), *extents),
            full(b"iinf", struct.pack(">H", count), *infos),
            full(b"iref", *references) if references else b"",
            box(
                b"iprp",
                box(b"ipco", *properties),
                full(b"ipma", struct.pack(">I", count), *owned_by),
            ),
        )


def turned(quarter_turns: int) -> bytes:
    """Ask for quarter turns counter-clockwise."""
    return box(b"irot", struct.pack("B", quarter_turns))


ALPHA = full(b"auxC", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")
