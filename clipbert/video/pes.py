"""Give the stamps of an MPEG program or transport stream to the frames that they are of.

A PES packet states the time of the first picture whose start code begins in it (ISO/IEC 13818-1,
2.4.3.7). FFmpeg's parser takes a picture whose start code lies across two packets for one that
begins in the second, gives it the stamp of the next picture, and reckons on from there. So where
frames may share packets, the stamps are read once more, as the file states them.
"""

from array import array
from contextlib import suppress
from dataclasses import dataclass

import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Discard
from numpy.typing import NDArray

from clipbert.video.mending import UNKNOWN
from clipbert.video.outliers import Ticks
from clipbert.video.streams import demuxed

# Their clocks are those of PES packets, in which frames may begin anywhere.
PES_DEMUXERS = frozenset({"mpeg", "mpegts"})
# Options of a demuxer that gives PES packets as they are, with the stamps that they state.
UNPARSED = {"fflags": "noparse+nofillin"}

_MPEG_VIDEO = frozenset({"mpeg1video", "mpeg2video"})
_PICTURE = b"\x00\x00\x01\x00"
_EXTENSION = b"\x00\x00\x01\xb5"
_PICTURE_CODING = 8  # of an extension's id
_WHOLE_FRAME = 3  # of picture_structure; others are of one field, and the second follows
_B_PICTURE = 3


@dataclass(frozen=True)
class PesPackets:
    """The PES packets of a stream as the file has them.

    Attributes:
        starts: int64, of each packet's payload, in bytes of the elementary stream, and its end.
        pts: what each states, UNKNOWN if nothing.
        dts: as pts; of a packet that states one time alone that one.
    """

    starts: NDArray[np.int64]
    pts: Ticks
    dts: Ticks


class Pictures:
    """Where the pictures of an elementary stream begin, told packet by packet as parsed.

    Args:
        codec: FFmpeg's name.
    """

    def __init__(self, codec: str) -> None:
        self.is_typed = codec in _MPEG_VIDEO
        self._starts, self._headers, self._seconds = array("q", [0]), array("q"), array("q")
        self._types = bytearray()

    def add(self, packet: memoryview) -> None:
        """Note the next packet."""
        start = self._starts[-1]
        self._starts.append(start + len(packet))
        if not self.is_typed:
            return
        payload = bytes(packet)
        header = payload.find(_PICTURE)
        self._headers.append(start + max(header, 0))
        has_type = 0 <= header < len(payload) - 5
        self._types.append(payload[header + 5] >> 3 & 7 if has_type else 0)
        if header >= 0 and _is_field(payload, header):
            second = payload.find(_PICTURE, header + len(_PICTURE))
            if second > 0:
                self._seconds.append(start + second)

    @property
    def num_bytes(self) -> int:
        """Length of the elementary stream."""
        return self._starts[-1]

    def may_share(self, positions: NDArray[np.int64]) -> bool:
        """Whether there may be frames for which no PES packet states a time.

        Of some codecs FFmpeg reckons the time where none is stated. Of all it knows no place of a
        frame that begins in a packet after another, or gives both the same.

        Args:
            positions: int64, of the packets in the file, negative where unknown.
        """
        if len(positions) != len(self._starts) - 1:
            return False
        return self.is_typed or bool((np.diff(np.sort(positions), prepend=-1) <= 0).any())

    @property
    def is_b(self) -> NDArray[np.bool_]:
        """Which packets are shown when they are decoded, whatever comes after; False if unknown."""
        if not self.is_typed:
            return np.zeros(len(self._starts) - 1, dtype=bool)
        return np.array([picture_type == _B_PICTURE for picture_type in self._types], dtype=bool)

    def stated(self, pes: PesPackets, line: Ticks) -> tuple[Ticks, Ticks]:
        """Give each packet the stamps that are meant for it, UNKNOWN to the others.

        FFmpeg's own muxer counts from the header of the sequence or the group, where there is one,
        the standard from the picture's. Which of them wrote the file shows in the clock.

        Args:
            pes: of the same elementary stream.
            line: when packets are decoded if no clock says otherwise.

        Returns:
            pts, dts
        """
        wholes = np.array(self._starts[:-1], dtype=np.int64)
        if not self.is_typed:
            return _given(pes, wholes, wholes[:0])
        headers, seconds = np.array(self._headers), np.array(self._seconds, dtype=np.int64)
        choices = [_given(pes, headers, seconds), _given(pes, wholes, seconds)]
        return min(choices, key=lambda stamps: _num_uneven(stamps[1], line))


def read_pes(container: InputContainer, index: int) -> PesPackets:
    """Read the PES packets of a stream from a container that was opened with UNPARSED."""
    starts, pts, dts = array("q", [0]), array("q"), array("q")
    for stream in container.streams:
        if stream.index != index:
            stream.discard = Discard.all
    films = [stream for stream in container.streams.video if stream.index == index]
    with suppress(av.error.FFmpegError):  # that something is missing shows in the length
        for packet in demuxed(container, *films) if films else ():
            if packet.size == 0:
                continue
            starts.append(starts[-1] + packet.size)
            pts.append(UNKNOWN if packet.pts is None else packet.pts)
            dts.append(pts[-1] if packet.dts is None else packet.dts)
    return PesPackets(np.array(starts), np.array(pts), np.array(dts))


def _is_field(payload: bytes, header: int) -> bool:
    extension = payload.find(_EXTENSION, header)
    while extension >= 0:
        body = payload[extension + len(_EXTENSION) : extension + len(_EXTENSION) + 3]
        if len(body) == 3 and body[0] >> 4 == _PICTURE_CODING:  # noqa: PLR2004 (bytes asked for)
            return body[2] & _WHOLE_FRAME != _WHOLE_FRAME
        extension = payload.find(_EXTENSION, extension + 1)
    return False


def _given(
    pes: PesPackets, firsts: NDArray[np.int64], seconds: NDArray[np.int64]
) -> tuple[Ticks, Ticks]:
    """Give each stamp to the first picture that begins in its packet.

    Args:
        pes: with the stamps.
        firsts: int64 (N,), ascending: where pictures begin.
        seconds: where the second fields of some begin, whose stamps say nothing new.
    """
    pts = np.full(len(firsts), UNKNOWN, dtype=np.int64)
    dts = pts.copy()
    places = np.concatenate([firsts, seconds])
    order = places.argsort(kind="stable")
    is_stated = (pes.pts != UNKNOWN) | (pes.dts != UNKNOWN)
    begins, ends = pes.starts[:-1][is_stated], pes.starts[1:][is_stated]
    found = np.searchsorted(places[order], begins)
    is_begun = found < len(places)
    is_begun[is_begun] &= places[order][found[is_begun]] < ends[is_begun]
    rows = order[found[is_begun]]
    is_first = rows < len(firsts)
    rows = rows[is_first]
    pts[rows] = pes.pts[is_stated][is_begun][is_first]
    dts[rows] = pes.dts[is_stated][is_begun][is_first]
    return pts, dts


def _num_uneven(dts: Ticks, line: Ticks) -> int:
    known = np.flatnonzero(dts != UNKNOWN)
    off_line = np.abs(np.diff(dts[known] - line[known]))
    return int((off_line > np.median(np.diff(line)) / 2).sum())  # less is rounding
