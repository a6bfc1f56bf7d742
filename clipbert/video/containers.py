"""Open media files safely.

The demuxer is chosen by the file's first bytes and never by FFmpeg's own guess, its name or its
extension: a playlist or a list of files to concatenate, renamed .mp4, would otherwise read other
files of the machine.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import av
import av.error
from av.codec.context import Flags
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from clipbert.errors import (
    DecodeFailed,
    EmptyFile,
    MediaNotFound,
    MediaTooLarge,
    UnsupportedMedia,
)
from clipbert.video.formats import CONTAINERS, READ_IN_WORDS
from clipbert.video.probed_video import MediaLimits
from clipbert.video.signatures import HEAD_BYTES, demuxer_of, kind_of
from clipbert.video.stills import is_animated, is_motion_jpeg, picture_size
from clipbert.video.streams import candidates, choose, covers_among, is_heif, may_be_covers

# The demuxers that sniff_format chooses from; a second lock should a demuxer open another.
_OPEN_OPTIONS = {
    "format_whitelist": ",".join(sorted(CONTAINERS)),
    "protocol_whitelist": "file",
    # As many packets as it takes to find the video's size, and no more.
    "probesize": "20000000",
    "analyzeduration": "10000000",
}


def sniff_format(path: Path, *, name: str | None = None) -> str:
    """Name the FFmpeg demuxer for a file by its first bytes.

    Args:
        path: the file.
        name: what messages call it; None for the path itself.

    Raises:
        MediaNotFound: there is no such file, or it may not be read.
        EmptyFile: it has no bytes.
        UnsupportedMedia: it is of no kind that is read here.
    """
    if not path.is_file():  # nor a folder, nor a pipe that would wait for its writer
        raise MediaNotFound(f"there is no file {name or path}")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise MediaNotFound(f"{name or path} cannot be read: {error.strerror}") from error
    name = name or path.name
    if not head:
        raise EmptyFile(f"{name} is empty")
    found = demuxer_of(head)
    if found is None:
        raise UnsupportedMedia(f"{name} is {kind_of(head)}; what is read is {READ_IN_WORDS}")
    if found == "webp_pipe" and is_animated(path, found):
        raise UnsupportedMedia(f"{name} is an animated WebP, which is not read here")
    if found == "jpeg_pipe" and is_motion_jpeg(path):
        raise UnsupportedMedia(
            f"{name} is Motion JPEG without a container, which is read in AVI and MOV only"
        )
    if found == "png_pipe" and is_animated(path, found):
        return "apng"
    return found


@contextmanager
def open_video(
    path: Path, limits: MediaLimits, *, name: str | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video stream; other streams are skipped while reading.

    Args:
        path: the file.
        limits: what is refused as too large.
        name: what messages call the file; None for the path's own name.

    Raises:
        VideoError: the file is missing, empty, of an unknown kind, without video, or too large.
    """
    name = name or path.name
    demuxer = sniff_format(path, name=name)
    size = picture_size(path, demuxer)
    if size is not None:
        check_pixels(*size, limits)
    with opened(path, demuxer, name=name) as container:
        _check_streams(container, limits, name=name)
        stream = _film(path, demuxer, container, name=name)
        check_pixels(stream.codec_context.width, stream.codec_context.height, limits)
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all
        # Decoders count padding too; the frames themselves are counted when they come.
        stream.codec_context.options = {"max_pixels": str(2 * limits.max_pixels)}
        # Cropping to an odd column is rounded otherwise, and leaves columns of rubbish.
        stream.codec_context.flags |= Flags.unaligned
        try:
            yield container, stream
        except MemoryError as error:  # FFmpeg's own is one of these
            raise MediaTooLarge(f"{name} needs more memory than is allowed") from error
        except av.error.FFmpegError as error:
            raise DecodeFailed(f"{name} cannot be read: {error.strerror}") from error


def opened(
    path: Path, demuxer: str, *, name: str, options: Mapping[str, str] | None = None
) -> InputContainer:
    """Open a file by a demuxer, which may open no other file.

    Args:
        path: the file.
        demuxer: FFmpeg's name.
        name: what messages call the file.
        options: more of the demuxer's options.

    Raises:
        UnsupportedMedia: its header cannot be read.
    """
    try:
        return av.open(
            str(path.absolute()),
            format=demuxer,
            options={**_OPEN_OPTIONS, **(options or {})},
            metadata_errors="replace",  # titles in older encodings than UTF-8
        )
    except av.error.FFmpegError as error:
        # The first bytes are right, and yet the header cannot be read.
        raise UnsupportedMedia(f"{name} has no readable header: {error.strerror}") from error


def check_pixels(width: int, height: int, limits: MediaLimits) -> None:
    """Raise MediaTooLarge for a frame over the limit."""
    if width * height > limits.max_pixels:
        raise MediaTooLarge(
            f"frames of {width}x{height} are over the limit of {limits.max_pixels} pixels"
        )


def _check_streams(container: InputContainer, limits: MediaLimits, *, name: str) -> None:
    """Raise MediaTooLarge for more streams than the limits allow."""
    num_videos = len(container.streams.video)
    # Each tile of a HEIC picture is a stream.
    if num_videos > limits.max_streams and not is_heif(container):
        raise MediaTooLarge(f"{name} has {num_videos} streams of video")
    num_others = len(container.streams) - num_videos
    if num_others > limits.max_other_streams:
        raise MediaTooLarge(f"{name} has {num_others} streams beside video")


def _film(path: Path, demuxer: str, container: InputContainer, *, name: str) -> VideoStream:
    streams = candidates(container, name=name)
    pictures = may_be_covers(streams)
    if pictures:
        with opened(path, demuxer, name=name) as other:  # reading moves on
            covers = covers_among(other, {stream.index for stream in pictures})
        streams = [stream for stream in streams if stream.index not in covers] or streams
    return choose(container, streams)
