"""How a file asks for its pictures to be shown: turned, mirrored, with pixels not square."""

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from numpy.typing import NDArray

# The values of EXIF's tag as (mirrored, turn), from 1.
_EXIF = (
    (False, 0),
    (True, 0),
    (False, 180),
    (True, 180),
    (True, 90),
    (False, 270),
    (True, 270),
    (False, 90),
)
_MATRIX = struct.Struct("=9i")
_TINY_PX = 16
# Pixels more drawn out than any television's are a writer's mistake, and taken for square.
_MAX_PIXEL_ASPECT = 4
# Of the largest entry squared: a matrix that leaves less of an area shows nothing.
_LEAST_DETERMINANT = 1e-3


@dataclass(frozen=True)
class Orientation:
    """How a decoded picture becomes the one that is shown.

    Attributes:
        mirrored: left and right are exchanged first.
        rotation_degrees: then it is turned counter-clockwise: 0, 90, 180 or 270.
    """

    mirrored: bool = False
    rotation_degrees: int = 0

    @classmethod
    def from_exif(cls, value: int | None) -> "Orientation | None":
        """Return the orientation that a value of EXIF's tag stands for; None if there is none."""
        if value is None or not 1 <= value <= len(_EXIF):
            return None
        return cls(*_EXIF[value - 1])

    @classmethod
    def from_matrix(cls, matrix: bytes) -> "Orientation":
        """Return the nearest orientation to a display matrix: 9 numbers, int32, of this machine.

        A point (x, y) is shown at (a x + c y, b x + d y), where y counts downwards and the matrix
        is a b . c d . . . . in this order. What else it does, as scaling or a slant, is left out.
        """
        a, b, _, c, d, *_ = _MATRIX.unpack(matrix)
        determinant = a * d - b * c
        if abs(determinant) <= _LEAST_DETERMINANT * max(a * a, b * b, c * c, d * d):
            return cls()
        mirrored = determinant < 0
        if mirrored:
            a, b = -a, -b
        return cls(mirrored, _quarter_turn(-math.degrees(math.atan2(b, a))))

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) of a picture as shown."""
        return (height, width) if self.rotation_degrees in (90, 270) else (width, height)

    def show(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Mirror and turn the pixels (H, W, 3) of a decoded picture."""
        if self.mirrored:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(np.rot90(pixels, self.rotation_degrees // 90))


def square_pixels_size(width: int, height: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Return the (width, height) in square pixels of a picture, before it is turned.

    One side is drawn out and none shortened, so that no pixel is lost.

        square_pixels_size(720, 576, Fraction(64, 45))  ->  (1024, 576)
        square_pixels_size(720, 480, Fraction(8, 9))  ->  (720, 540)

    Args:
        width: of the decoded picture.
        height: of the decoded picture.
        pixel_aspect: width of a pixel over its height. What is not from 1:4 to 4:1 is ignored.
    """
    if not pixel_aspect or not 1 <= max(pixel_aspect, 1 / pixel_aspect) <= _MAX_PIXEL_ASPECT:
        return width, height
    if pixel_aspect >= 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def orientation_of(frame: VideoFrame) -> Orientation:
    """Read from a decoded frame how it is to be held."""
    try:
        matrix = _display_matrix(frame)
    except ValueError:
        # PyAV fails on notes of a kind that it has no name for, but still tells the turn.
        return Orientation(rotation_degrees=_quarter_turn(frame.rotation))
    return Orientation() if matrix is None else Orientation.from_matrix(matrix)


def is_stretched_by_matrix(frame: VideoFrame, pixel_aspect: Fraction) -> bool:
    """Whether a shape of pixels is only what FFmpeg makes of a display matrix that scales."""
    try:
        matrix = _display_matrix(frame)
    except ValueError:
        return False
    if matrix is None:
        return False
    a, b, _, c, d, *_ = _MATRIX.unpack(matrix)
    across, down = math.hypot(a, c), math.hypot(b, d)
    return math.isclose(across, down * pixel_aspect, rel_tol=1e-3)


def _display_matrix(frame: VideoFrame) -> bytes | None:
    # A frame whose notes were looked at keeps itself, and its decoder's memory, alive until Python
    # next looks for cycles. So look at those of a tiny copy.
    tiny = frame.reformat(
        _TINY_PX,
        _TINY_PX,
        format="rgb24",
        src_colorspace=Colorspace.ITU601,  # any: swscale fails on matrices that it does not know
        interpolation=Interpolation.POINT,
    )
    matrix = cast("SideData | None", tiny.side_data.get("DISPLAYMATRIX"))
    return None if matrix is None else bytes(matrix)


def _quarter_turn(degrees: float) -> int:
    return round(degrees / 90) * 90 % 360
