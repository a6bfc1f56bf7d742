"""Decoded frames -> RGB pixels as a screen shows them.

What a decoder gives is not yet a picture: fields of two instants are woven into one frame, colours
are coded by one of several matrices and, in HDR, for a screen several times as bright, and what is
transparent has colours that nobody is meant to see.
"""

from functools import lru_cache
from typing import Any, Literal

import av.error
import numpy as np
from av.filter.graph import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, Interpolation
from numpy.typing import NDArray

from clipbert.errors import UnsupportedMedia

# AREA averages all source pixels; a plain bilinear look-up would skip most of a 1080p frame. Alone
# it halves the colours' resolution once more, and makes them about 2 levels darker.
INTERPOLATION = Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
# What shows through a transparent picture. Logos and drawings are made to lie on a page: on black,
# dark lines would vanish. Of a picture's own colours below full transparency nothing is seen.
GROUND = 255
# A stream that does not say how its colours are coded: as players take it (mpv, VLC), by its size.
_MAX_SD_WIDTH, _MAX_SD_HEIGHT = 1279, 576
# BT.2408: diffuse white of PQ and HLG, in nits, and the peak and gamma of HLG's reference screen.
_WHITE_NITS = 203.0
_HLG_PEAK_NITS, _HLG_GAMMA = 1000.0, 1.2
# Brighter than this share of diffuse white, colours are darkened, so that highlights still differ.
# White itself loses 3 levels of 255 by it.
_KNEE = 0.94
_CODES = 65_535  # of 16 bits
_OPAQUE = 255
# Matrices by their number in the bitstream (ITU-T H.273); swscale knows no others.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,  # of constant luminance, which is not quite the same
}
_UNREADABLE_MATRICES = {
    8: "YCgCo",
    11: "Y'D'zD'x",
    14: "ICtCp",
    15: "IPT",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
# RGB of wide primaries, linear, to that of BT.709; the white point is D65 in all.
_TO_BT709 = {
    ColorPrimaries.BT2020: (
        (1.660491, -0.587641, -0.072850),
        (-0.124550, 1.132900, -0.008349),
        (-0.018151, -0.100579, 1.118730),
    ),
    ColorPrimaries.SMPTE432: (
        (1.224940, -0.224940, 0.0),
        (-0.042057, 1.042057, 0.0),
        (-0.019638, -0.078636, 1.098274),
    ),
}
_PRIMARIES = {int(each): each for each in (ColorPrimaries.BT709, *_TO_BT709)}
_LUMINANCE = {
    ColorPrimaries.BT709: (0.2126, 0.7152, 0.0722),
    ColorPrimaries.BT2020: (0.2627, 0.6780, 0.0593),
    ColorPrimaries.SMPTE432: (0.2290, 0.6917, 0.0793),
}
Transfer = Literal["pq", "hlg", "sdr"]
_TRANSFERS: dict[int, Transfer] = {ColorTrc.SMPTE2084: "pq", ColorTrc.ARIB_STD_B67: "hlg"}


class RgbConverter:
    """Converts the frames of one stream; keeps what is costly to set up.

    Args:
        name: of the file, for error messages.
        is_still: a picture, whose colours are coded as JPEG's unless it says otherwise, and which
            has no fields.
    """

    def __init__(self, *, name: str, is_still: bool) -> None:
        self._name, self._is_still = name, is_still
        self._fields: tuple[object, Graph] | None = None

    def to_rgb(self, frame: VideoFrame, height: int, width: int) -> NDArray[np.uint8]:
        """Convert a frame and fit it into a size.

        Returns:
            (height, width, 3), sRGB.

        Raises:
            UnsupportedMedia: its colours are coded in a way that is not read here.
        """
        matrix = self._matrix(frame)
        if frame.interlaced_frame and not self._is_still:
            frame = self._first_field(frame)
        if _has_alpha(frame):
            frame = _solid(frame, matrix)
        transfer = _TRANSFERS.get(frame.color_trc, "sdr")
        primaries = _primaries(frame, transfer, matrix)
        how: dict[str, Any] = {
            "width": width,
            "height": height,
            "src_colorspace": matrix,
            "interpolation": INTERPOLATION,
        }
        if transfer != "sdr" or primaries in _TO_BT709:
            # Planar: swscale shifts the colours of packed RGB of 16 bits when it does not scale.
            coded = np.asarray(frame.to_ndarray(format="gbrp16le", **how), dtype=np.uint16)
            return _to_srgb(coded, transfer, primaries)
        return np.asarray(frame.to_ndarray(format="rgb24", **how), dtype=np.uint8)

    def _matrix(self, frame: VideoFrame) -> Colorspace:
        if frame.colorspace in _UNREADABLE_MATRICES:
            matrix = _UNREADABLE_MATRICES[frame.colorspace]
            raise UnsupportedMedia(f"{self._name} has colours coded as {matrix}, not read here")
        stated = _MATRICES.get(frame.colorspace)
        if stated is not None:
            return stated
        if frame.color_trc in _TRANSFERS or frame.color_primaries == ColorPrimaries.BT2020:
            return Colorspace.BT2020
        is_sd = frame.width <= _MAX_SD_WIDTH and frame.height <= _MAX_SD_HEIGHT
        return Colorspace.ITU601 if is_sd or self._is_still else Colorspace.ITU709

    def _first_field(self, frame: VideoFrame) -> VideoFrame:
        """Take the lines of the earlier of a frame's two fields: half as high, one instant."""
        graph = self._separator(frame)
        graph.vpush(frame)
        # The later field of the frame before comes out first, that of this frame with the next.
        fields = []
        while True:
            try:
                fields.append(graph.vpull())
            except av.error.BlockingIOError:
                return fields[-1]

    def _separator(self, frame: VideoFrame) -> Graph:
        like = (frame.width, frame.height, frame.format.name, frame.color_range, frame.colorspace)
        if self._fields is None or self._fields[0] != like:
            self._fields = (like, _field_separator(frame))
        return self._fields[1]


def on_ground(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mix pixels (H, W, 3) with the ground by how opaque they are, (H, W, 1)."""
    opaque = alpha.astype(np.uint16)
    mixed = pixels * opaque
    mixed += GROUND * (_OPAQUE - opaque) + _OPAQUE // 2
    return (mixed // _OPAQUE).astype(np.uint8)


def _primaries(frame: VideoFrame, transfer: Transfer, matrix: Colorspace) -> ColorPrimaries:
    stated = _PRIMARIES.get(frame.color_primaries)
    if stated is not None:
        return stated
    # HDR without primaries is BT.2100's, whose are BT.2020's.
    is_wide = transfer != "sdr" or matrix is Colorspace.BT2020
    return ColorPrimaries.BT2020 if is_wide else ColorPrimaries.BT709


def _has_alpha(frame: VideoFrame) -> bool:
    form = frame.format
    return form.has_palette or any(component.is_alpha for component in form.components)


def _solid(frame: VideoFrame, matrix: Colorspace) -> VideoFrame:
    """Lay what is transparent on the ground, before any pixels are mixed by scaling."""
    rgba = np.asarray(
        frame.to_ndarray(format="rgba", src_colorspace=matrix, interpolation=INTERPOLATION),
        dtype=np.uint8,
    )
    alpha = rgba[:, :, 3:]
    if alpha.min() == _OPAQUE:
        return frame
    solid = VideoFrame.from_ndarray(on_ground(rgba[:, :, :3], alpha), format="rgb24")
    solid.color_trc, solid.color_primaries = frame.color_trc, frame.color_primaries
    return solid


def _field_separator(frame: VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add(
        "buffer",
        video_size=f"{frame.width}x{frame.height}",
        pix_fmt=frame.format.name,
        time_base="1/1",
        pixel_aspect="1/1",
    )
    graph.link_nodes(source, graph.add("separatefields"), graph.add("buffersink")).configure()
    return graph


def _to_srgb(
    coded: NDArray[np.uint16], transfer: Transfer, primaries: ColorPrimaries
) -> NDArray[np.uint8]:
    """Map coded colours (H, W, 3) to what an SDR screen shows."""
    light = _light_table(transfer)[coded]
    if transfer == "hlg":
        # The screen brightens what the camera saw by its luminance, all three colours alike.
        luminance = light @ np.array(_LUMINANCE[primaries], dtype=np.float32)
        light *= (luminance ** np.float32(_HLG_GAMMA - 1))[:, :, None]
        light *= _HLG_PEAK_NITS / _WHITE_NITS
    if primaries in _TO_BT709:
        light = light @ np.array(_TO_BT709[primaries], dtype=np.float32).T
    np.maximum(light, 0, out=light)
    if transfer != "sdr":
        _roll_off(light)
    np.minimum(light, 1, out=light)
    light *= _CODES
    light += 0.5
    return _srgb_table()[light.astype(np.uint16)]


def _roll_off(light: NDArray[np.float32]) -> None:
    """Darken what is brighter than the knee, all three colours alike: highlights keep their hue."""
    brightest = light.max(axis=2)
    rows = brightest > _KNEE
    bright = brightest[rows]
    over = (bright - _KNEE) / (1 - _KNEE)
    light[rows] *= ((_KNEE + (1 - _KNEE) * over / (1 + over)) / bright)[:, None]


@lru_cache(maxsize=3)
def _light_table(transfer: Transfer) -> NDArray[np.float32]:
    """Tabulate the light of each 16-bit code, BT.2100's tables 4 and 5.

    Diffuse white is 1; for HLG it is the light of the scene, from 0 to 1.
    """
    code = np.linspace(0, 1, _CODES + 1)
    if transfer == "pq":
        root = code ** (1 / 78.84375)
        nits = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        light = 10_000 * nits ** (1 / 0.1593017578125) / _WHITE_NITS
    elif transfer == "hlg":
        bright = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
        light = np.where(code <= 0.5, code**2 / 3, bright)  # noqa: PLR2004 (the curve's seam)
    else:
        light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004
    return light.astype(np.float32)


@lru_cache(maxsize=1)
def _srgb_table() -> NDArray[np.uint8]:
    """Tabulate the sRGB code of light from 0 to 1 in 16 bits."""
    light = np.linspace(0, 1, _CODES + 1)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # noqa: PLR2004
    return np.round(255 * code).astype(np.uint8)
