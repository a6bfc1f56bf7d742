"""Read the packets of an open video from any place in it, with the times that its timeline says."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import Protocol

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from clipbert.video.formats import ANIMATION_DEMUXERS, CLOCKLESS_DEMUXERS, STILL_DEMUXERS
from clipbert.video.frame_clock import NUM_FIRST_PACKETS
from clipbert.video.mending import UNKNOWN
from clipbert.video.packets import (
    Stamping,
    from_entry,
    is_end,
    packets_of,
    stamp_of,
    stamping_of,
)
from clipbert.video.timeline import Entry, Timeline

# Packets after a seek among which a keyframe must come, or the seek goes further back.
_KEYFRAME_PACKETS = 600
# Encoders that write their version into the first packet only, for decoders to work around their
# mistakes: x264's 4:4:4 video before 2017 decodes to rubbish after a seek without it.
_VERSIONED_CODECS = frozenset({"h264", "mpeg4"})
# Where to seek to for the first packet. An edit list may hide packets from before time 0 that the
# first frame is made from, and MPEG-TS goes by the time of decoding; where the first packet is at
# 0, demuxers refuse less.
_BEGINNING_PTS = -(1 << 60)
_FROM_ZERO = STILL_DEMUXERS | ANIMATION_DEMUXERS | {"avi"}
# Demuxers that refuse to seek to a time before the first keyframe, but not to the file's beginning.
_FROM_FIRST_BYTE = CLOCKLESS_DEMUXERS | {"flv"}
# Demuxers that cannot seek, or to whom it would be no gain.
_UNSEEKABLE = STILL_DEMUXERS | ANIMATION_DEMUXERS | CLOCKLESS_DEMUXERS


class Reopen(Protocol):
    """Opens the file again, at its beginning, to be decoded in one thread."""

    def __call__(self, *, is_lenient: bool) -> tuple[InputContainer, VideoStream]:
        """Open it; a lenient decoder takes what breaks the rules of its codec in small ways."""


class PacketSource:
    """The packets of one open video stream.

    Args:
        container: the open file, at its beginning.
        stream: its video stream.
        timeline: of the stream.
        reopen: opens the file again.

    Attributes:
        container: as it is open now.
        stream: of that container.
        stamping: what the stream tells of times.
        first_stamps: of its first packets, ascending.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, timeline: Timeline, reopen: Reopen
    ) -> None:
        self.container, self.stream = container, stream
        self.stamping = stamping_of(container, stream)
        self._timeline, self._reopen, self._is_lenient = timeline, reopen, False
        self._beginning: tuple[int | None, int | None, int] | None = None
        self.first_stamps = self._read_beginning()

    def open_again(self, *, is_lenient: bool) -> None:
        """Open the file once more, now and later with such a decoder."""
        self._is_lenient = is_lenient
        self._open()
        self.first_stamps = self._read_beginning()

    def _open(self) -> None:
        self.container, self.stream = self._reopen(is_lenient=self._is_lenient)

    @property
    def can_seek(self) -> bool:
        """Whether a seek, which goes by the stamps in the file, finds the right place."""
        if self.stamping is Stamping.REORDERED or self.container.format.name in _UNSEEKABLE:
            return False
        return self._timeline.packet_pts is None or self._timeline.entries is not None

    def locate(self, target_pts: int) -> tuple[int | None, int | None]:
        """Find a place to seek to whose first keyframe is shown at or before the target.

        A seek may land after it: demuxers go by decoding time, which is earlier than the time of
        showing, and in MPEG streams they land on any packet. Then seek further back, in growing
        steps.
        """
        if self._timeline.entries is not None:
            entry = self._timeline.entries.before(target_pts)
            keyframe_pts = None if entry is None else self._packet_pts(entry.row)
            return keyframe_pts, keyframe_pts
        seek_pts = target_pts
        step = max(1, round(1 / float(self.stream.time_base or 1)))
        first_pts = int(self._timeline.frame_pts[0])
        while seek_pts > first_pts:
            keyframe_pts = self._keyframe_after_seek(seek_pts)
            if keyframe_pts is not None and keyframe_pts <= target_pts:
                return seek_pts, keyframe_pts
            seek_pts -= step
            step *= 2
        return None, None

    def read_from(self, seek_pts: int | None) -> Iterator["Packet[VideoStream]"]:
        """Read on from a place, each packet with its mended time.

        Args:
            seek_pts: as locate says; None is the first packet, for which the file may be opened
                again.
        """
        entries = self._timeline.entries
        entry = None if entries is None or seek_pts is None else entries.before(seek_pts)
        if entry is not None:
            return self._mended(self._from_packet(entry), first_row=entry.row)
        if seek_pts is not None and entries is None:
            self._seek(seek_pts)
            packets = packets_of(self.container, self.stream)
            return from_entry(packets, self.container, self.stamping)
        packets = self._from_beginning()
        return packets if self._timeline.packet_pts is None else self._mended(packets)

    def _keyframe_after_seek(self, seek_pts: int) -> int | None:
        try:
            self.container.seek(seek_pts, stream=self.stream)
            packets = packets_of(self.container, self.stream)
            packets = from_entry(islice(packets, _KEYFRAME_PACKETS), self.container, self.stamping)
            for packet in packets:
                return stamp_of(packet, self.stamping)
        except av.error.FFmpegError:  # this file cannot be searched there
            return None
        return None

    def _from_packet(self, entry: Entry) -> Iterator["Packet[VideoStream]"]:
        """Read on from a packet whose place in the file is known; nothing if it is not there."""
        self.container.seek(entry.seek_position, unsupported_byte_offset=True)
        packets = packets_of(self.container, self.stream)
        near = islice(packets, _KEYFRAME_PACKETS)
        found = next((packet for packet in near if packet.pos == entry.position), None)
        return iter(()) if found is None else chain([found], packets)

    def _from_beginning(self) -> Iterator["Packet[VideoStream]"]:
        """Read from the first packet.

        A seek may fail, where a track has no keyframe that is noted; it may also find another
        packet than the first. Either has moved the demuxer, and only a new one finds it.
        """
        if self._timeline.packet_pts is not None:  # nor may it find what was joined to the first
            self._open()
            return packets_of(self.container, self.stream)
        with suppress(av.error.FFmpegError):
            self._seek(None)
            packets = packets_of(self.container, self.stream)
            first = next(packets)
            if _identity(first) == self._beginning:
                return chain([first], packets)
        self._open()
        return packets_of(self.container, self.stream)

    def _seek(self, seek_pts: int | None) -> None:
        if seek_pts is None and self.container.format.name in _FROM_FIRST_BYTE:
            self.container.seek(0, stream=self.stream, unsupported_byte_offset=True)
            return
        if seek_pts is None:
            seek_pts = 0 if self.container.format.name in _FROM_ZERO else _BEGINNING_PTS
        self.container.seek(seek_pts, stream=self.stream)

    def _packet_pts(self, row: int) -> int:
        assert self._timeline.packet_pts is not None  # noqa: S101
        return int(self._timeline.packet_pts[row])

    def _mended(
        self, packets: Iterator["Packet[VideoStream]"], *, first_row: int = 0
    ) -> Iterator["Packet[VideoStream]"]:
        """Write the timeline's times into the packets, so that their frames come out with them."""
        assert self._timeline.packet_pts is not None  # noqa: S101
        times = iter(self._timeline.packet_pts[first_row:].tolist())
        for packet in packets:
            if not is_end(packet):
                time = next(times, UNKNOWN)
                packet.pts = None if time == UNKNOWN else time
                packet.dts = None
            yield packet

    def _read_beginning(self) -> list[int]:
        """Return the timestamps of the first packets, ascending."""
        stamps: list[int] = []
        num_packets = 0
        for index, packet in enumerate(packets_of(self.container, self.stream)):
            if index == 0:
                self._beginning = _identity(packet)
                if self.stream.codec_context.name in _VERSIONED_CODECS:
                    with suppress(av.error.FFmpegError):
                        packet.decode()
            if packet.size == 0 or packet.is_discard:
                continue
            stamp = stamp_of(packet, self.stamping)
            if stamp is not None:
                stamps.append(stamp)
            num_packets += 1
            if num_packets == NUM_FIRST_PACKETS:
                break
        return sorted(stamps)


def _identity(packet: "Packet[VideoStream]") -> tuple[int | None, int | None, int]:
    return packet.pts, packet.pos, packet.size
