"""Put a HEIC or AVIF picture together from its tiles and its transparency."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from clipbert.errors import DecodeFailed, FrameNotFound, UnsupportedMedia
from clipbert.video.colour import RgbConverter, on_ground
from clipbert.video.containers import check_pixels, opened
from clipbert.video.formats import CODECS
from clipbert.video.heif import Assembly, Grid
from clipbert.video.probed_video import MediaLimits
from clipbert.video.streams import demuxed

# A still is on screen for as long as one asks, but for slips.
_MAX_SECONDS = 2.0


class AssembledReader:
    """Reads a picture as FrameReader reads the frames of a video.

    Args:
        path: the file.
        assembly: how it is put together.
        limits: a picture over the limit on pixels is refused.
        name: of the file, for error messages.
    """

    def __init__(self, path: Path, assembly: Assembly, *, limits: MediaLimits, name: str) -> None:
        self._path, self._assembly = path, assembly
        self._limits, self._name = limits, name

    def first_frame(self) -> VideoFrame:
        """Decode the picture, as it is to be held, on the ground.

        Raises:
            DecodeFailed: a part of it is missing or damaged.
            MediaTooLarge: it is over the limit on pixels.
        """
        assembly = self._assembly
        parts = [assembly.colour] if assembly.alpha is None else [assembly.colour, assembly.alpha]
        for part in parts:
            if part.size is not None:
                check_pixels(*part.size, self._limits)
        with opened(self._path, "mov", name=self._name) as container:
            pieces = self._pieces(container, {item for part in parts for item in part.items})
        pixels = self._whole(assembly.colour, pieces)
        if assembly.alpha is not None:
            alpha = self._whole(assembly.alpha, pieces)[:, :, :1]
            if alpha.shape[:2] != pixels.shape[:2]:
                raise DecodeFailed(f"{self._name} has a transparency of another size")
            pixels = on_ground(pixels, alpha)
        pixels = np.rot90(pixels, assembly.turns)
        if assembly.mirror is not None:
            pixels = np.flip(pixels, axis=assembly.mirror)
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts = 0
        return frame

    def frames_on_screen(self, instants: Sequence[float]) -> Iterator[tuple[float, VideoFrame]]:
        """Return the picture for each instant."""
        frame = self.first_frame()
        for instant in instants:
            if instant > _MAX_SECONDS:
                raise FrameNotFound(instant, 0.0)
            yield instant, frame

    def _pieces(self, container: InputContainer, items: set[int]) -> dict[int, NDArray[np.uint8]]:
        """Decode pictures by their numbers: RGB, or grey thrice for a transparency."""
        streams = [stream for stream in container.streams.video if stream.id in items]
        if {stream.id for stream in streams} != items:
            raise DecodeFailed(f"{self._name} lacks a part of its picture")
        for stream in streams:
            if stream.codec_context.name not in CODECS:
                codec = stream.codec_context.name
                raise UnsupportedMedia(f"{self._name} has the codec {codec}, not read here")
            check_pixels(stream.codec_context.width, stream.codec_context.height, self._limits)
        colours = RgbConverter(name=self._name, is_still=True)
        pieces: dict[int, NDArray[np.uint8]] = {}
        try:
            for packet in demuxed(container, *streams):
                for frame in packet.decode():
                    check_pixels(frame.width, frame.height, self._limits)
                    if frame.is_corrupt:
                        raise DecodeFailed(f"a part of {self._name} is damaged")
                    pieces[packet.stream.id] = colours.to_rgb(frame, frame.height, frame.width)
        except av.error.FFmpegError as error:
            raise DecodeFailed(f"{self._name} cannot be decoded: {error.strerror}") from error
        if pieces.keys() != items:
            raise DecodeFailed(f"a part of {self._name} cannot be decoded")
        return pieces

    def _whole(self, grid: Grid, pieces: dict[int, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        if grid.size is None:
            return pieces[grid.items[0]]
        tiles = [pieces[item] for item in grid.items]
        if len({tile.shape for tile in tiles}) != 1:
            raise DecodeFailed(f"{self._name} has tiles of several sizes")
        rows = [
            np.concatenate(tiles[start : start + grid.columns], axis=1)
            for start in range(0, len(tiles), grid.columns)
        ]
        whole = np.concatenate(rows)
        width, height = grid.size
        if whole.shape[0] < height or whole.shape[1] < width:
            raise DecodeFailed(f"{self._name} has tiles that do not cover it")
        return whole[:height, :width]
