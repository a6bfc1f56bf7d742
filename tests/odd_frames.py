"""Frames that carry their number and four coloured corners, as those of the files in tests/odd do.

Ten cells across the middle are black or white: bit b is white in columns b*W/10 to (b+1)*W/10,
between 3/8 and 5/8 of the height, the lowest bit first.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ODD = Path(__file__).parent / "odd"
NUM_CELLS = 10
# Top left, top right, bottom left, bottom right.
CORNERS = ((224, 32, 32), (32, 192, 32), (32, 32, 224), (224, 224, 32))
GREY = 128


def cell_frame(number: int, width: int = 160, height: int = 96) -> np.ndarray:
    """Paint a frame: uint8, (height, width, 3)."""
    frame = np.full((height, width, 3), GREY, dtype=np.uint8)
    frame[3 * height // 8 : 5 * height // 8] = 0
    for bit in range(NUM_CELLS):
        if number >> bit & 1:
            columns = slice(bit * width // NUM_CELLS, (bit + 1) * width // NUM_CELLS)
            frame[3 * height // 8 : 5 * height // 8, columns] = 255
    for place, colour in zip(corner_places(width, height), CORNERS, strict=True):
        frame[place] = colour
    return frame


def corner_places(width: int, height: int) -> list[tuple[slice, slice]]:
    """Where the corners are, as indices into a frame."""
    down, across = height // 4, width // 5
    rows, columns = (
        (slice(0, down), slice(height - down, None)),
        (
            slice(0, across),
            slice(width - across, None),
        ),
    )
    return [(row, column) for row in rows for column in columns]


def cell_number(frame: np.ndarray) -> int:
    """Read the number of a frame of any size."""
    height, width = frame.shape[:2]
    band = frame[7 * height // 16 : 9 * height // 16].mean(axis=(0, 2))  # (W,)
    centres = [int((bit + 0.5) * width / NUM_CELLS) for bit in range(NUM_CELLS)]
    return sum(1 << bit for bit, centre in enumerate(centres) if band[centre] > 127)


def corner_error(frame: np.ndarray) -> float:
    """Say by how many of 255 levels the colour of a corner is wrong, at most."""
    height, width = frame.shape[:2]
    down, across = height // 16, width // 16
    found = [frame[row, column] for row in (down, -down) for column in (across, -across)]
    return max(
        float(np.abs(np.subtract(a, b, dtype=float)).max())
        for a, b in zip(found, CORNERS, strict=True)
    )


def write_cells(
    path: Path,
    num_frames: int,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (160, 96),
    fps: int = 10,
    pixel_format: str = "yuv420p",
    pixel_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    container: str | None = None,
    gop: int = 6,
    b_frames: int | None = None,
    paint: Callable[[int, int, int], np.ndarray] = cell_frame,
) -> Path:
    """Encode frames that carry their number, each as paint(number, width, height) gives it."""
    with av.open(str(path), "w", format=container) as output:
        stream = add_cells(output, codec, size, fps=fps, pixel_format=pixel_format, options=options)
        if codec != "dvvideo":
            stream.codec_context.gop_size = gop
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for number in range(num_frames):
            output.mux(stream.encode(as_frame(paint(number, *size), number, fps)))
        output.mux(stream.encode())
    return path


def add_cells(output, codec, size, *, fps=10, pixel_format="yuv420p", options=None):
    """Add a video stream to an open file."""
    stream = output.add_stream(codec, rate=fps, options=options or {})
    stream.width, stream.height = size
    stream.pix_fmt = pixel_format
    return stream


def as_frame(pixels: np.ndarray, number: int, fps: int) -> av.VideoFrame:
    """Make RGB or RGBA pixels a frame of PyAV."""
    frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
    frame.pts, frame.time_base = number, Fraction(1, fps)
    return frame
