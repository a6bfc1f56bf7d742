"""Instants -> frames.

This module and those that it is made of alone import av: containers, packets, timeline,
frame_reader, orientation, screen, colour.
"""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from clipbert.errors import (
    DecodeFailed,
    ExtremeAspectRatio,
    FrameDamaged,
    MediaTooLarge,
    NoVideoStream,
    TruncatedMedia,
    UnsupportedMedia,
)
from clipbert.video.assembled import AssembledReader
from clipbert.video.containers import open_video, sniff_format
from clipbert.video.formats import ANIMATION_DEMUXERS, CLOCKLESS_DEMUXERS, STILL_DEMUXERS
from clipbert.video.heif import read_assembly
from clipbert.video.joined import num_unread_recordings
from clipbert.video.probed_video import MAX_ASPECT_RATIO, MediaLimits, VideoProbe
from clipbert.video.reader import FrameReader
from clipbert.video.screen import Screen
from clipbert.video.streams import demuxer_name, is_heif_picture
from clipbert.video.timeline import Timeline
from clipbert.video.timelines import timeline_of
from clipbert.video.truncation import is_truncated

__all__ = [
    "MediaLimits",
    "VideoProbe",
    "decode_frames",
    "probe_video",
    "stream_frames",
]

DEFAULT_LIMITS = MediaLimits()
# Their clock counts from 0, whatever comes first.
_CLOCK_FROM_ZERO = frozenset({"mov"})
# FFmpeg's VP8 decoder notices damage in threads of slices only.
_SLICED_CODECS = frozenset({"vp8"})
# HEVC's conceals damage without a word, unless it is told to fail. Dav1d would give frames that are
# made from a damaged one before it says that this one is.
# Those of the family of H.263 can tell whether a picture ends where its data does.
_ENDS_CHECKED = {"err_detect": "buffer+explode"}
_DECODER_OPTIONS = {"hevc": {"err_detect": "explode"}, "libdav1d": {"max_frame_delay": "1"}}
# Files of some writers break the rules of their codec in every frame, and are sound all the same.
_STRICT_OPTIONS = {
    "mjpeg": {"err_detect": "explode"},
    "mpeg4": {"err_detect": "explode"},
    **dict.fromkeys(("wmv1", "wmv2", "msmpeg4v1", "msmpeg4v2", "msmpeg4"), _ENDS_CHECKED),
}
# In some codecs every frame is a keyframe; a probe is stored, and need not list them all.
_MAX_KEYFRAMES = 4096
_RATE_IS_STATED = CLOCKLESS_DEMUXERS | {"dv"}


def probe_video(
    path: Path,
    *,
    limits: MediaLimits = DEFAULT_LIMITS,
    name: str | None = None,
    strict: bool = True,
) -> VideoProbe:
    """Measure a video from its packets, and decode its first frame.

    Args:
        path: a video, or a JPEG, PNG or WebP picture, which is a video of one frame.
        limits: what is refused as too large.
        name: what messages call the file; None for the path's own name.
        strict: refuse a file that ends before its own header says. Otherwise what is there is
            measured, and the missing end is one of the damaged spans.

    Raises:
        VideoError: one of its subclasses says what is wrong with the file.
    """
    name = name or path.name
    demuxer = sniff_format(path, name=name)
    is_cut = is_truncated(path, demuxer)
    cut = TruncatedMedia(f"{name} ends before its header says: the copy is incomplete")
    if is_cut and (strict or demuxer in STILL_DEMUXERS):
        raise cut
    opening = _opened(path, limits=limits, name=name)
    with _blaming(cut) if is_cut else nullcontext(), opening as video:
        probe = _probe_of(video, video.reader.first_frame())
        claimed_seconds = _claimed_seconds(video)
    if is_cut:
        probe = replace(probe, damaged_spans=_missing_end(probe, claimed_seconds))
    if num_unread_recordings(path, demuxer):
        probe = replace(probe, mended=tuple(sorted({*probe.mended, "unread_recordings"})))
    if probe.duration_seconds > limits.max_duration_seconds:
        raise MediaTooLarge(f"{name} is {probe.duration_seconds:.0f} s long")
    if max(probe.width, probe.height) > MAX_ASPECT_RATIO * min(probe.width, probe.height):
        raise ExtremeAspectRatio(f"{name} has frames of {probe.width}x{probe.height}")
    return probe


@contextmanager
def _blaming(cut: TruncatedMedia) -> Iterator[None]:
    """Raise that a file is cut where so little is left of it that nothing can be read."""
    try:
        yield
    except (UnsupportedMedia, NoVideoStream, DecodeFailed) as error:
        raise cut from error


def decode_frames(
    path: Path,
    instants: Sequence[float],
    *,
    max_side_px: int | None = None,
    num_threads: int = 0,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> NDArray[np.uint8]:
    """Decode the frame on screen at each instant, and little else.

    Args:
        path: the video.
        instants: seconds from the first presented frame, in any order, repeats allowed.
        max_side_px: shrink frames in the colour conversion so that the longer side is this; the
            other is truncated, as in the paper's code. Smaller frames keep their size. Where
            pixels are not square, one side is drawn out first.
        num_threads: of the decoder; 0 is one for each core.
        limits: what is refused as too large.

    Returns:
        RGB frames as shown, mirrored and turned, uint8, (N, H, W, 3), in the order of instants.

    Raises:
        FrameDamaged: the frame at an instant cannot be decoded whole.
        FrameNotFound: an instant lies more than a frame's length past the last frame's end.
        VideoError: the file cannot be opened or decoded.
    """
    frames: dict[float, NDArray[np.uint8]] = {}
    for instant, frame in stream_frames(
        path, instants, max_side_px=max_side_px, num_threads=num_threads, limits=limits
    ):
        if isinstance(frame, FrameDamaged):
            raise frame
        frames[instant] = frame
    return np.stack([frames[instant] for instant in instants])


def stream_frames(
    path: Path,
    instants: Sequence[float],
    *,
    max_side_px: int | None = None,
    num_threads: int = 0,
    limits: MediaLimits = DEFAULT_LIMITS,
    name: str | None = None,
) -> Generator[tuple[float, NDArray[np.uint8] | FrameDamaged], None, None]:
    """Decode the frames on screen at instants in one passage, and go on after damaged ones.

    However few keyframes the video has, no frame is decoded twice. The file is open until the
    iterator is used up or closed; it may be advanced in one thread after another.

    Args:
        path: the video.
        instants: seconds from the first presented frame, in any order; of equal ones one is taken.
        max_side_px: as for decode_frames.
        num_threads: as for decode_frames.
        limits: what is refused as too large.
        name: what messages call the file; None for the path's own name.

    Yields:
        Each distinct instant, ascending, with its frame, uint8, (H, W, 3), RGB, as soon as it is
        decoded, or with what is damaged there. Instants of one frame share its array.

    Raises:
        FrameNotFound: an instant lies more than a frame's length past the last frame's end.
        VideoError: the file cannot be opened or decoded.
        ValueError: no instants, or one below 0.
    """
    if not instants:
        raise ValueError("need at least one instant")
    if any(not math.isfinite(instant) or instant < 0 for instant in instants):
        raise ValueError(f"instants are seconds from 0, got {list(instants)}")
    opening = _opened(
        path, max_side_px=max_side_px, num_threads=num_threads, limits=limits, name=name
    )
    with opening as video:
        shown: tuple[VideoFrame, NDArray[np.uint8]] | None = None
        for instant, frame in video.reader.frames_on_screen(sorted(set(instants))):
            if isinstance(frame, FrameDamaged):
                yield instant, frame
                continue
            if shown is None or shown[0] is not frame:
                shown = (frame, video.screen.show(frame))
            yield instant, shown[1]


@dataclass(frozen=True)
class _OpenVideo:
    """A file that is open, and all that its frames are read and shown by."""

    container: InputContainer
    stream: VideoStream
    timeline: Timeline
    reader: FrameReader | AssembledReader
    screen: Screen


@contextmanager
def _opened(
    path: Path,
    *,
    max_side_px: int | None = None,
    num_threads: int = 0,
    limits: MediaLimits = DEFAULT_LIMITS,
    name: str | None = None,
) -> Iterator[_OpenVideo]:
    name = name or path.name
    timeline = timeline_of(path, limits, name=name)
    with ExitStack() as stack:
        open_again = partial(_open, stack, path, limits, name=name)
        container, stream = open_again(num_threads=num_threads)
        screen = Screen(path, container, stream, name=name, max_side_px=max_side_px)
        assembly = read_assembly(path, name=name) if is_heif_picture(container, stream) else None
        reader = (
            FrameReader(
                container,
                stream,
                timeline=timeline,
                reopen=partial(open_again, num_threads=1),
                limits=limits,
                name=name,
            )
            if assembly is None
            else AssembledReader(path, assembly, limits=limits, name=name)
        )
        yield _OpenVideo(container, stream, timeline, reader, screen)


def _open(
    stack: ExitStack,
    path: Path,
    limits: MediaLimits,
    *,
    name: str,
    num_threads: int,
    is_lenient: bool = False,
) -> tuple[InputContainer, VideoStream]:
    container, stream = stack.enter_context(open_video(path, limits, name=name))
    context = stream.codec_context
    context.thread_type = "SLICE" if context.name in _SLICED_CODECS else "AUTO"
    context.thread_count = max(num_threads, 2) if context.name in _SLICED_CODECS else num_threads
    context.options = dict(context.options) | _DECODER_OPTIONS.get(context.name, {})
    if not is_lenient and container.format.name not in STILL_DEMUXERS:
        context.options = dict(context.options) | _STRICT_OPTIONS.get(context.name, {})
    return container, stream


def _probe_of(video: _OpenVideo, first: VideoFrame) -> VideoProbe:
    stream, screen, timeline = video.stream, video.screen, video.timeline.as_shown(first)
    demuxer = demuxer_name(video.container)
    is_still = screen.is_still or (demuxer in ANIMATION_DEMUXERS and len(timeline.frame_pts) == 1)
    frame_pts, time_base = timeline.frame_pts, stream.time_base or Fraction(1)
    span_pts = int(frame_pts[-1] - frame_pts[0])
    thinning = math.ceil(len(timeline.keyframe_pts) / _MAX_KEYFRAMES) or 1
    keyframe_pts = timeline.keyframe_pts[::thinning] - frame_pts[0]
    width, height = screen.shown_size(first)
    # Of these FFmpeg takes another number for the average.
    rate = stream.guessed_rate if demuxer in _RATE_IS_STATED else stream.average_rate
    duration_pts = 0 if is_still else span_pts + timeline.last_duration_pts
    return VideoProbe(
        duration_seconds=float(duration_pts * time_base),
        last_frame_seconds=float(span_pts * time_base),
        width=width,
        height=height,
        rotation_degrees=screen.orientation(first).rotation_degrees,
        average_fps=None if rate is None else float(rate),
        num_frames=len(frame_pts),
        header_num_frames=stream.frames,
        header_duration_pts=stream.duration,
        time_base=time_base,
        start_pts=int(frame_pts[0]),
        keyframe_seconds=tuple((keyframe_pts * float(time_base)).tolist()),
        codec=stream.codec_context.codec.canonical_name,
        container=demuxer,
        is_still=is_still,
        starts_at_seconds=_start_seconds(video.container, stream, timeline),
        mended=timeline.codes,
        gaps=tuple(
            (_seconds(start, timeline, time_base), _seconds(end, timeline, time_base))
            for start, end in timeline.gaps
        ),
        frame_pts=frame_pts,
    )


def _seconds(pts: int, timeline: Timeline, time_base: Fraction) -> float:
    return float((pts - int(timeline.frame_pts[0])) * time_base)


def _start_seconds(container: InputContainer, stream: VideoStream, timeline: Timeline) -> float:
    """Return what a player's clock shows at the first frame.

    It counts from 0 in MP4 and its kin, where an edit list may delay the pictures; elsewhere from
    the first of all tracks.
    """
    first = float(int(timeline.frame_pts[0]) * (stream.time_base or Fraction(1)))
    if demuxer_name(container) in _CLOCK_FROM_ZERO:
        return max(0.0, first)
    starts = [
        float(other.start_time * other.time_base)
        for other in container.streams
        if other.type in ("video", "audio")
        and other.start_time is not None
        and other.time_base is not None
    ]
    return max(0.0, first - min(starts, default=first))


def _claimed_seconds(video: _OpenVideo) -> float | None:
    """Return how long the pictures are by the file's header, from the first frame; None: unsaid."""
    stream, container = video.stream, video.container
    time_base = stream.time_base or Fraction(1)
    if stream.frames and demuxer_name(container) == "avi":
        # FFmpeg makes the duration fit the size that is left.
        return float(stream.frames * time_base)
    if stream.duration is not None:
        return float(stream.duration * time_base)
    if container.duration is None:
        return None
    # Matroska says it of the whole file only.
    end = Fraction(container.duration + (container.start_time or 0), av.time_base)
    return float(end - int(video.timeline.frame_pts[0]) * time_base)


def _missing_end(
    probe: VideoProbe, claimed_seconds: float | None
) -> tuple[tuple[float, float], ...]:
    """Return the span that a cut file lacks: from its last frame to what its header says."""
    start = probe.duration_seconds
    return ((start, max(start, claimed_seconds or start)),)
