"""Read the packets of a video, and what they tell of its frames' times.

Most containers state when each frame is shown. Some do not:

- AVI is a row of chunks, one for each tick of its clock, and tells when a frame is decoded. FFmpeg
  guesses the rest, wrongly where frames are reordered or a chunk is empty.
- MPEG-PS states one time for the frames that begin in one of its packets. FFmpeg reckons the
  others in the codecs that were made for it, and in no newer ones.
- An elementary stream has no clock at all: its frames follow each other at the rate that it states,
  or 25 a second, from 0.
"""

from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from itertools import dropwhile, islice
from typing import cast

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clipbert.video.formats import CLOCKLESS_DEMUXERS, STILL_DEMUXERS
from clipbert.video.streams import demuxed

# Formats of recordings that may break off, and of which several may be strung together. In Ogg a
# seek finds the first of them; in the others, any.
_MPEG = frozenset({"mpeg", "mpegts"})
_STREAMED = _MPEG | {"ogg"}
# What FFmpeg answers where nothing more can be read. Other errors are the machine's.
_UNREADABLE = (av.error.InvalidDataError, av.error.BlockingIOError)
_RESTART_SECONDS = 1.0
_USUAL_FPS = 25
# Places of a file that are looked at for another recording; and the last of them, from its end.
_NUM_PLACES = 16
_LAST_PLACE_BYTES = 1 << 20
# Packets in which a time must come, at a place that is looked at.
_MAX_UNTIMED = 64


class Stamping(Enum):
    """What a stream tells of its frames' times.

    Attributes:
        SHOWN: when each is shown.
        SPARSE: when some are shown; the others follow at equal steps.
        DECODED: when each is decoded, which is when it is shown.
        REORDERED: when each is decoded; they are shown in another order.
    """

    SHOWN = auto()
    SPARSE = auto()
    DECODED = auto()
    REORDERED = auto()


def stamping_of(container: InputContainer, stream: VideoStream) -> Stamping:
    """Say what an open stream tells of its frames' times."""
    if container.format.name == "avi" or container.format.name in CLOCKLESS_DEMUXERS:
        return Stamping.REORDERED if stream.codec_context.has_b_frames else Stamping.DECODED
    if container.format.name == "mpeg" and stream.codec_context.name in ("h264", "hevc"):
        return Stamping.SPARSE
    if container.format.name == "mxf" and _is_unordered(container, stream):
        return Stamping.REORDERED
    return Stamping.SHOWN


def _is_unordered(container: InputContainer, stream: VideoStream) -> bool:
    """Say whether an MXF with reordered frames lacks the index that says so (FFmpeg's, of H.264).

    The file must be at its beginning, and is there afterwards.
    """
    if not stream.codec_context.has_b_frames:
        return False
    packets = list(islice(demuxed(container, stream), _MAX_UNTIMED))
    container.seek(0, stream=stream)
    return all(packet.pts == packet.dts for packet in packets)


def stamp_of(timed: "Packet[VideoStream] | VideoFrame", stamping: Stamping) -> int | None:
    """Give what is stated of a packet's or frame's time; None if nothing is.

    A frame's dts is that of the packet that brought it out of the decoder.
    """
    if stamping in (Stamping.DECODED, Stamping.REORDERED):
        return timed.dts
    if timed.pts is None and stamping is Stamping.SHOWN:
        return timed.dts
    return timed.pts


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    """Read on to the end of the video; the last packet is empty, and makes the decoder give all.

    Recordings (MPEG-TS, MPEG-PS, Ogg) end where the file can be read no further, or where another
    begins at an earlier time of its own. A still picture ends before what cameras append to it.
    """
    if container.format.name in STILL_DEMUXERS:
        yield from islice(demuxed(container, stream), 1)
    elif container.format.name in _STREAMED:
        yield from _recording(container, stream)
    elif container.format.name in CLOCKLESS_DEMUXERS:
        yield from _counted(container, stream)
        return
    else:
        yield from demuxed(container, stream)
        return
    end = cast("Packet[VideoStream]", Packet())
    end.stream = stream
    yield end


def _counted(container: InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    """Number the packets from the first one, which the next to be read must be."""
    step = 0
    for number, packet in enumerate(demuxed(container, stream)):
        if packet.size:
            step = step or packet.duration or round(1 / (_USUAL_FPS * (stream.time_base or 1)))
            packet.pts = packet.dts = number * step
            packet.duration = step
        yield packet


def _recording(container: InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    latest_dts: deque[int] = deque(maxlen=2)
    early: list[Packet[VideoStream]] = []
    packets = demuxed(container, stream)
    while True:
        try:
            packet = next(packets, None)
        except _UNREADABLE:
            if not latest_dts:
                raise
            packet = None
        if packet is None or (packet.size == 0 and packet.dts is None):
            break
        # One time that is far too late, or too early, is damage; two are another recording.
        is_early = _is_earlier(packet.dts, latest_dts, stream)
        if is_early and early:
            return
        if is_early or (early and packet.dts is None):
            early.append(packet)
            continue
        yield from early
        early.clear()
        if packet.dts is not None:
            latest_dts.append(packet.dts)
        yield packet
    yield from early


def from_entry(
    packets: Iterator["Packet[VideoStream]"], container: InputContainer, stamping: Stamping
) -> Iterator["Packet[VideoStream]"]:
    """Leave out the packets after a seek until decoding, and the timestamps, may begin.

    In MPEG program and transport streams several frames can share a packet with one timestamp;
    those of the others are reckoned from it, and come out wrong if reading begins among them.
    FFmpeg gives such frames no position.
    """

    def is_entry(packet: "Packet[VideoStream]") -> bool:
        is_stamped = stamp_of(packet, stamping) is not None
        return packet.is_keyframe and is_stamped and packet.pos is not None

    if container.format.name == "mpeg":
        # Reading may begin within a frame. FFmpeg takes the rest of it for a frame, or for the
        # beginning of the next one, and gives it the next one's time.
        next(packets, None)
    return dropwhile(lambda packet: not is_entry(packet), packets)


def can_seek(container: InputContainer, stream: VideoStream) -> bool:
    """Say whether a seek finds the right recording, as far as a few places of the file tell.

    Leaves the file at any position.
    """
    if container.format.name not in _MPEG:
        return True
    size_bytes = container.size
    places = {size_bytes * place // _NUM_PLACES for place in range(1, _NUM_PLACES)}
    places.add(max(0, size_bytes - _LAST_PLACE_BYTES))
    latest_dts: deque[int] = deque(maxlen=1)
    for place in sorted(places):
        try:
            container.seek(place, stream=stream, unsupported_byte_offset=True)
            packets = islice(demuxed(container, stream), _MAX_UNTIMED)
            dts = next((packet.dts for packet in packets if packet.dts is not None), None)
        except av.error.FFmpegError:
            continue
        if _is_earlier(dts, latest_dts, stream):
            return False
        if dts is not None:
            latest_dts.append(dts)
    return True


def _is_earlier(dts: int | None, latest_dts: deque[int], stream: VideoStream) -> bool:
    if dts is None or not latest_dts:
        return False
    return dts < min(latest_dts) - _RESTART_SECONDS / float(stream.time_base or 1)
