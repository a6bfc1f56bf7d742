"""Which of a file's streams is the film.

As players choose: never a cover, the stream that is marked as the default, else the largest.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import cast

import av.error
from av.codec.context import CodecContext
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from clipbert.errors import NoVideoStream, UnsupportedMedia
from clipbert.video.formats import CODECS, PICTURE_CODECS, STILL_DEMUXERS

_COVERS = Disposition.attached_pic | Disposition.timed_thumbnails
# Packets read to tell a track of one picture, which is a cover that was not marked as one.
_MAX_PACKETS = 2000
_LIBVPX = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# Of VP9, what libvpx is built for: 8 bits.
_LIBVPX_FORMATS = frozenset({"yuv420p", "yuv422p", "yuv440p", "yuv444p", "gbrp"})
_HEIF_BRANDS = ("avif", "avis", "heic", "heix", "hevc", "hevx", "mif1", "msf1")


def demuxer_name(container: InputContainer) -> str:
    """Return the name that an open file's demuxer has in formats.CONTAINERS."""
    return container.format.name.split(",")[0]


def is_picture(container: InputContainer, stream: VideoStream) -> bool:
    """Whether an open file is a still picture: JPEG, PNG, WebP, or one of HEIC and AVIF."""
    return container.format.name in STILL_DEMUXERS or is_heif_picture(container, stream)


def is_heif(container: InputContainer) -> bool:
    """Whether an open file says that it holds pictures, as HEIC and AVIF do."""
    brands = container.metadata.get("compatible_brands", "")
    brands += container.metadata.get("major_brand", "")
    return any(brand in brands for brand in _HEIF_BRANDS)


def is_heif_picture(container: InputContainer, stream: VideoStream) -> bool:
    """Whether a stream is a picture of a HEIC or AVIF file, and not a track of frames."""
    return is_heif(container) and stream.duration is None and stream.time_base == 1


def candidates(container: InputContainer, *, name: str) -> list[VideoStream]:
    """Return the streams that may be the film and can be decoded, in the file's order.

    Raises:
        NoVideoStream: there is no stream, or covers only.
        UnsupportedMedia: none of them can be decoded.
    """
    films = [stream for stream in container.streams.video if not stream.disposition & _COVERS]
    if not films:
        what = "a cover picture only" if container.streams.video else "no video stream"
        raise NoVideoStream(f"{name} has {what}")
    readable = [stream for stream in films if _codec(stream) in CODECS]
    if not readable:
        codec = _codec(films[0])
        raise UnsupportedMedia(f"{name} has video of the codec {codec}, which is not read here")
    tracks = [stream for stream in readable if not is_heif_picture(container, stream)]
    # A track without frames has no size.
    filled = [stream for stream in tracks if stream.codec_context.width > 0]
    return filled or tracks or readable


def demuxed(container: InputContainer, *streams: VideoStream) -> Iterator["Packet[VideoStream]"]:
    """Read on to the end; the last packet of each stream is empty, and makes its decoder give all.

    PyAV fails there (18.1: IndexError) if another stream appeared while the file was read, as in
    FLV, MPEG-PS and MPEG-TS it may.
    """
    ended = False
    try:
        for packet in container.demux(*streams):
            ended = packet.size == 0
            yield cast("Packet[VideoStream]", packet)
    except IndexError:
        if not ended:
            for stream in streams:
                end = cast("Packet[VideoStream]", Packet())
                end.stream = stream
                yield end


def decoder_of(stream: VideoStream, *, max_pixels: int) -> VideoCodecContext:
    """Return what decodes a stream: its own decoder, or one that sees more.

    WebM carries alpha beside each packet, and FFmpeg's own decoders of VP8 and VP9 pass it over.
    That of VP9 decodes rubbish without a word too, where libvpx says so, for a fifth more work.
    Another than the stream's own must be flushed after each seek.
    """
    own = stream.codec_context
    name = _LIBVPX.get(own.name)
    has_alpha = stream.metadata.get("alpha_mode") == "1"
    is_checked = own.name == "vp9" and own.pix_fmt in _LIBVPX_FORMATS
    if name is None or not (has_alpha or is_checked):
        return own
    decoder = cast("VideoCodecContext", CodecContext.create(name, "r"))
    if own.extradata:
        decoder.extradata = own.extradata
    decoder.thread_count = own.thread_count
    decoder.options = {"max_pixels": str(max_pixels)}
    return decoder


def may_be_covers(streams: Sequence[VideoStream]) -> list[VideoStream]:
    """Return those of several streams that may hold one picture only, by their codecs."""
    pictures = [stream for stream in streams if _codec(stream) in PICTURE_CODECS]
    return pictures if len(streams) > 1 else []


def covers_among(container: InputContainer, indices: set[int]) -> set[int]:
    """Find the streams of one picture among these, by reading on. The file is of no use after."""
    for stream in container.streams:
        if stream.type != "video":
            stream.discard = Discard.all
    counts: Counter[int] = Counter()
    try:
        for number, packet in enumerate(demuxed(container, *container.streams.video)):
            counts[packet.stream_index] += packet.size > 0
            if number == _MAX_PACKETS or all(counts[index] > 1 for index in indices):
                break
    except av.error.FFmpegError:
        pass  # What was read until then decides; whoever reads the film will say what is wrong.
    return {index for index in indices if counts[index] <= 1}


def choose(container: InputContainer, streams: Sequence[VideoStream]) -> VideoStream:
    """Choose the default stream, else the largest, else the first."""
    defaults = [stream for stream in streams if stream.disposition & Disposition.default]
    is_mp4 = demuxer_name(container) == "mov" and not is_heif(container)
    if is_mp4 and defaults == [streams[0]]:
        # Writers of MP4 enable the first track, whichever it is: nobody chose it.
        defaults = []
    return max(
        defaults or streams,
        key=lambda stream: stream.codec_context.width * stream.codec_context.height,
    )


def _codec(stream: VideoStream) -> str:
    # A stream without a decoder has no codec context.
    context = getattr(stream, "codec_context", None)
    return "unknown" if context is None else context.name
