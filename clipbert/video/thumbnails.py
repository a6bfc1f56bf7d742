"""A poster and a strip of small pictures that stand for a video in lists."""

import os
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipbert.video.probed_video import VideoProbe

POSTER_SIDE_PX = 640
STRIP_TILES = 8
TILE_WIDTH_PX = 160
_JPEG_QUALITY = 82
# Where in the video its poster is looked for first: past titles, before the end.
_POSTER_PLACE = 1 / 3
# A frame darker or flatter than this says nothing: fades, black leaders, blank screens.
_MIN_BRIGHTNESS = 20.0
_MIN_CONTRAST = 8.0


def strip_instants(probe: VideoProbe) -> list[float]:
    """Choose evenly spaced instants, each moved to a keyframe if one is near.

    Returns:
        Up to STRIP_TILES distinct instants in seconds, ascending; fewer if the video has fewer
        frames.
    """
    count = min(STRIP_TILES, probe.num_frames)
    spacing = probe.duration_seconds / count
    keyframes = np.array(probe.keyframe_seconds or (0.0,))
    instants = []
    for tile in range(count):
        centre = min((tile + 0.5) * spacing, probe.last_frame_seconds)
        nearest = float(keyframes[np.abs(keyframes - centre).argmin()])
        # Within its own part of the video, so that tiles stay in order and distinct.
        instants.append(nearest if abs(nearest - centre) < spacing / 2 else centre)
    return sorted(set(instants))


def choose_poster(frames: NDArray[np.uint8], instants: Sequence[float], probe: VideoProbe) -> int:
    """Return the row of the frame nearest a third of the video that is neither black nor blank.

    Args:
        frames: (N, H, W, 3), uint8.
        instants: of the frames, in seconds.
        probe: of their video.
    """
    wanted = probe.duration_seconds * _POSTER_PLACE
    rows = sorted(range(len(instants)), key=lambda row: abs(instants[row] - wanted))
    for row in rows:
        grey = frames[row, ::4, ::4].mean(axis=2)
        if grey.mean() >= _MIN_BRIGHTNESS and grey.std() >= _MIN_CONTRAST:
            return row
    return rows[0]


def write_poster(frame: NDArray[np.uint8], path: Path) -> None:
    """Write a frame (H, W, 3), at most POSTER_SIDE_PX long, as a JPEG."""
    picture = Image.fromarray(frame)
    picture.thumbnail((POSTER_SIDE_PX, POSTER_SIDE_PX))
    _write_jpeg(picture, path)


def write_strip(frames: NDArray[np.uint8], path: Path) -> None:
    """Write frames (N, H, W, 3) side by side, each TILE_WIDTH_PX wide, as a JPEG."""
    num_tiles, height, width = frames.shape[:3]
    tile_height = max(1, round(TILE_WIDTH_PX * height / width))
    strip = Image.new("RGB", (num_tiles * TILE_WIDTH_PX, tile_height))
    for tile, frame in enumerate(frames):
        small = Image.fromarray(frame).resize((TILE_WIDTH_PX, tile_height), reducing_gap=2.0)
        strip.paste(small, (tile * TILE_WIDTH_PX, 0))
    _write_jpeg(strip, path)


def _write_jpeg(picture: Image.Image, path: Path) -> None:
    """Write beside the path and rename, so that nobody sees half a file.

    Raises:
        OSError: with its number, such as that of a full disk, which Pillow would not tell.
    """
    encoded = BytesIO()
    picture.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(encoded.getbuffer())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
