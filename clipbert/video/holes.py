"""Notice a hole in a packet: zeros in the place of data, which decoders may decode without a word.

A disk, a copy or a download that has lost a piece of a file leaves zeros in its place. Compressed
data has no long runs of them: H.264, HEVC and the MPEG family keep three in a row for the codes
that begin a picture or a part of it, and what an arithmetic coder writes looks random.
"""

from av.packet import Packet
from av.video.stream import VideoStream

_ZEROS = bytes(32)
_CODECS = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "mpeg1video", "mpeg2video"}
    | {"h263", "flv", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "rv10", "rv20"}
)
# With parameters that begin with this byte, H.264 and HEVC state the length of each unit. Where in
# them the low two bits are one less than the bytes that state it.
_LENGTHS_STATED = 1
_LENGTH_AT = {"h264": 4, "hevc": 21}


def has_hole(packet: "Packet[VideoStream]") -> bool:
    """Whether zeros stand in a packet where data of its codec cannot have so many.

    What zeros a packet ends with, or a unit of it, fills it up and harms nothing.
    """
    context = packet.stream.codec_context
    if context.name not in _CODECS or packet.size <= len(_ZEROS):
        return False
    data = bytes(packet)
    start = data.find(_ZEROS)
    while start >= 0:
        end = len(data) - len(data[start:].lstrip(b"\0"))
        if end == len(data):
            return False
        length_bytes = _length_bytes(context.name, context.extradata)
        if length_bytes is None:
            if data[end] != 1:  # no code that begins something
                return True
        elif _is_within_unit(data, start, end, length_bytes):
            return True
        start = data.find(_ZEROS, end)
    return False


def _length_bytes(codec: str, parameters: bytes | None) -> int | None:
    """Return how many bytes state a unit's length; None if codes begin units instead."""
    place = _LENGTH_AT.get(codec)
    if place is None or not parameters or len(parameters) <= place:
        return None
    return (parameters[place] & 3) + 1 if parameters[0] == _LENGTHS_STATED else None


def _is_within_unit(data: bytes, start: int, end: int, length_bytes: int) -> bool:
    place = 0
    while place < end:
        unit = place + length_bytes
        place = unit + int.from_bytes(data[place:unit], "big")
        if unit <= start and end < place:
            return True
    return False
