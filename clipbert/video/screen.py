"""Show the decoded frames of one file as a player does: their shape, how they are held, colours."""

from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from clipbert.video.colour import RgbConverter
from clipbert.video.formats import STILL_DEMUXERS
from clipbert.video.orientation import (
    Orientation,
    is_stretched_by_matrix,
    orientation_of,
    square_pixels_size,
)
from clipbert.video.resizing import shrunk_size
from clipbert.video.stills import exif_orientation
from clipbert.video.streams import is_picture


class Screen:
    """Shows the frames of one open video stream.

    Args:
        path: the file.
        container: the open file.
        stream: its video stream.
        name: of the file, for error messages.
        max_side_px: shrink frames so that the longer side is this; smaller ones keep their size.
    """

    def __init__(
        self,
        path: Path,
        container: InputContainer,
        stream: VideoStream,
        *,
        name: str,
        max_side_px: int | None = None,
    ) -> None:
        self._path, self._stream = path, stream
        self._demuxer = container.format.name
        self.is_still = is_picture(container, stream)
        self._max_side_px = max_side_px
        self._colours = RgbConverter(name=name, is_still=self.is_still)
        self._size: tuple[int, int] | None = None

    def shown_size(self, frame: VideoFrame) -> tuple[int, int]:
        """Return the (width, height) at which a frame is shown, unless it is shrunk."""
        return self.orientation(frame).shown_size(*self._square_size(frame))

    def orientation(self, frame: VideoFrame) -> Orientation:
        """Return how a frame is to be held."""
        if self._demuxer in STILL_DEMUXERS:
            noted = exif_orientation(self._path, self._demuxer)
            if noted is not None:
                return noted
        return orientation_of(frame)

    def show(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Convert a frame to RGB (H, W, 3) as shown.

        A stream whose size changes midway is shown at the size of its first frame here.

        Raises:
            UnsupportedMedia: its colours are coded in a way that is not read here.
        """
        if self._size is None:
            self._size = self._fitted_size(frame)
        return self.orientation(frame).show(self._colours.to_rgb(frame, *self._size))

    def _fitted_size(self, frame: VideoFrame) -> tuple[int, int]:
        width, height = self._square_size(frame)
        if self._max_side_px is None:
            return height, width
        return shrunk_size(height, width, self._max_side_px)

    def _square_size(self, frame: VideoFrame) -> tuple[int, int]:
        # Writers of pictures mean the resolution of a print by it, and viewers ignore it.
        if self.is_still:
            return frame.width, frame.height
        # The container's word goes before the codec's, which is known once a frame is decoded.
        aspect = self._stream.sample_aspect_ratio
        if not aspect or is_stretched_by_matrix(frame, aspect):
            aspect = self._stream.codec_context.sample_aspect_ratio
        return square_pixels_size(frame.width, frame.height, aspect)
