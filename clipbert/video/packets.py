"""Read the packets of a video, and what they tell of its frames' times.

Most containers state when each frame is shown. Some do not:

- AVI is a row of chunks, one for each tick of its clock, and tells when a frame is decoded. FFmpeg
  guesses the rest, wrongly where frames are reordered or a chunk is empty.
- MPEG-PS states one time for the frames that begin in one of its packets. FFmpeg reckons the
  others in the codecs that were made for it, and in no newer ones.
- An elementary stream has no clock at all: its frames follow each other at the rate that it states,
  or 25 a second, from 0.
"""

from collections.abc import Iterator
from enum import Enum, auto
from itertools import dropwhile, islice
from typing import cast

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clipbert.video.formats import ANIMATION_DEMUXERS, CLOCKLESS_DEMUXERS, STILL_DEMUXERS
from clipbert.video.mending import ClockTraits
from clipbert.video.streams import demuxed, demuxer_name

# Their clock wraps around, and has no index: a seek goes by the stamps that it meets.
_MPEG = frozenset({"mpeg", "mpegts"})
# These state when a frame is decoded, besides when it is shown; of others FFmpeg guesses it.
_DTS_STATED = _MPEG | {"mov", "flv", "mxf"}
# These state no frame's duration: after a jump of the clock there is nothing on screen.
_HOLED = _MPEG | {"ogg", "flv", "asf", "rm"}
_COUNTED = STILL_DEMUXERS | ANIMATION_DEMUXERS | CLOCKLESS_DEMUXERS | {"dv"}
# Of a packet's first byte.
_THEORA_HEADER = 0x80
_VP8_HEADER = b"OVP80"  # and a comment after it, with the same first bytes
# After so many failures in a row a file is read no further.
_MAX_FAILURES = 8
# What FFmpeg answers where nothing more can be read. Other errors are the machine's.
_UNREADABLE = (av.error.InvalidDataError, av.error.BlockingIOError)
_USUAL_FPS = 25
# Packets that are looked at for the order of their times.
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
    """Return what an open stream tells of its frames' times."""
    if container.format.name == "avi" or container.format.name in CLOCKLESS_DEMUXERS:
        return Stamping.REORDERED if stream.codec_context.has_b_frames else Stamping.DECODED
    if container.format.name == "mpeg" and stream.codec_context.name in ("h264", "hevc"):
        return Stamping.SPARSE
    if container.format.name == "mxf" and _is_unordered(container, stream):
        return Stamping.REORDERED
    return Stamping.SHOWN


def _is_unordered(container: InputContainer, stream: VideoStream) -> bool:
    """Whether an MXF with reordered frames lacks the index that says so (FFmpeg's, of H.264).

    The file must be at its beginning, and is there afterwards.
    """
    if not stream.codec_context.has_b_frames:
        return False
    packets = list(islice(demuxed(container, stream), _MAX_UNTIMED))
    container.seek(0, stream=stream)
    return all(packet.pts == packet.dts for packet in packets)


def stamp_of(timed: "Packet[VideoStream] | VideoFrame", stamping: Stamping) -> int | None:
    """Return what is stated of a packet's or frame's time; None if nothing is.

    A frame's dts is that of the packet that brought it out of the decoder.
    """
    if stamping in (Stamping.DECODED, Stamping.REORDERED):
        return timed.dts
    if timed.pts is None and stamping is Stamping.SHOWN:
        return timed.dts
    return timed.pts


def clock_traits(
    container: InputContainer, stream: VideoStream, stamping: Stamping
) -> ClockTraits | None:
    """Return what a container's clock is; None if its times are not stamps of single frames.

    The chunks of an AVI and the frames of pictures and elementary streams are counted, not stamped.
    """
    name = demuxer_name(container)
    if stamping in (Stamping.DECODED, Stamping.REORDERED) or name in _COUNTED:
        return None
    return ClockTraits(
        ticks_per_second=1 / float(stream.time_base or 1),
        wraps_after=1 << 33 if name in _MPEG else None,
        states_dts=name in _DTS_STATED,
        states_durations=name not in _HOLED,
        is_reordered=bool(stream.codec_context.has_b_frames),
        states_all=stamping is Stamping.SHOWN and name not in _MPEG,
    )


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    """Read on to the end of the video; the last packet is empty, and makes the decoder give all.

    What cannot be read is passed over; a file ends where nothing more can be. A still picture ends
    before what cameras append to it.
    """
    if container.format.name in STILL_DEMUXERS:
        yield from islice(demuxed(container, stream), 1)
    elif container.format.name in CLOCKLESS_DEMUXERS:
        yield from _counted(container, stream)
    else:
        yield from _readable(container, stream)
    end = cast("Packet[VideoStream]", Packet())
    end.stream = stream
    yield end


def _counted(container: InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    """Number the packets from the first one, which the next to be read must be."""
    step = 0
    for number, packet in enumerate(_readable(container, stream)):
        if packet.size:
            step = step or packet.duration or round(1 / (_USUAL_FPS * (stream.time_base or 1)))
            packet.pts = packet.dts = number * step
            packet.duration = step
        yield packet


def _readable(container: InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    has_read, num_failures = False, 0
    packets = demuxed(container, stream)
    while True:
        try:
            packet = next(packets, None)
        except _UNREADABLE:
            num_failures += 1
            if num_failures > _MAX_FAILURES:
                if not has_read:
                    raise
                return
            packets = demuxed(container, stream)
            continue
        if packet is None or is_end(packet):
            return
        has_read, num_failures = True, 0
        if not _is_header(packet):
            yield packet


def _is_header(packet: "Packet[VideoStream]") -> bool:
    """Whether a packet holds no picture: joined recordings repeat the headers of an Ogg."""
    if packet.size == 0:
        return False
    start = bytes(memoryview(packet)[: len(_VP8_HEADER)])
    match packet.stream.codec_context.name:
        case "theora":
            return bool(start[0] & _THEORA_HEADER)
        case "vp8":
            return start == _VP8_HEADER
        case _:
            return False


def is_end(packet: "Packet[VideoStream]") -> bool:
    """Whether a packet holds nothing and says nothing: the last one."""
    return packet.size == 0 and packet.dts is None and packet.pts is None


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
