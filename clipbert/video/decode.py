"""Instants -> frames.

This module and those that it is made of alone import av: containers, packets, timeline,
frame_reader, orientation, screen, colour.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from clipbert.containers import open_video, sniff_format
from clipbert.errors import DecodeFailed, ExtremeAspectRatio, MediaTooLarge
from clipbert.frame_reader import FrameReader
from clipbert.probed_video import MAX_ASPECT_RATIO, MediaLimits, VideoProbe
from clipbert.sampling import Clip
from clipbert.timeline import Timeline, read_timeline
from clipbert.truncation import check_whole
from clipbert.video.formats import ANIMATION_DEMUXERS
from clipbert.video.screen import Screen

__all__ = [
    "MediaLimits",
    "VideoProbe",
    "decode_clips",
    "decode_frames",
    "probe_video",
    "stream_clips",
]

DEFAULT_LIMITS = MediaLimits()
# In some codecs every frame is a keyframe; a probe is stored, and need not list them all.
_MAX_KEYFRAMES = 4096


def probe_video(path: Path, *, limits: MediaLimits = DEFAULT_LIMITS) -> VideoProbe:
    """Measure a video from its packets, and decode its first frame.

    Args:
        path: a video, or a JPEG, PNG or WebP picture, which is a video of one frame.
        limits: what is refused as too large.

    Raises:
        VideoError: one of its subclasses says what is wrong with the file.
    """
    check_whole(path, sniff_format(path))
    with open_video(path, limits) as (container, stream):
        timeline = read_timeline(container, stream, max_frames=limits.max_frames)
        if len(timeline.frame_pts) == 0:
            raise DecodeFailed(f"{path.name} has a video stream without frames")
        first = FrameReader(container, stream, limits=limits, name=path.name).first_frame()
        screen = Screen(path, container, stream, name=path.name)
        probe = _probe_of(container, stream, timeline.as_shown(first), screen, first)
    if probe.duration_seconds > limits.max_duration_seconds:
        raise MediaTooLarge(f"{path.name} is {probe.duration_seconds:.0f} s long")
    if max(probe.width, probe.height) > MAX_ASPECT_RATIO * min(probe.width, probe.height):
        raise ExtremeAspectRatio(f"{path.name} has frames of {probe.width}x{probe.height}")
    return probe


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
        FrameNotFound: an instant lies more than a frame's length past the last frame's end.
        VideoError: the file cannot be opened or decoded.
    """
    frames = dict(
        _stream_frames(
            path, instants, max_side_px=max_side_px, num_threads=num_threads, limits=limits
        )
    )
    return np.stack([frames[instant] for instant in instants])


def decode_clips(
    path: Path,
    clips: Sequence[Clip],
    *,
    max_side_px: int | None = None,
    num_threads: int = 0,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> list[NDArray[np.uint8]]:
    """Decode the frames of several clips of one video, each distinct instant once.

    Returns:
        For each clip its frames, uint8, (T, H, W, 3). Otherwise as decode_frames.
    """
    instants = sorted({instant for clip in clips for instant in clip.instants})
    frames = decode_frames(
        path, instants, max_side_px=max_side_px, num_threads=num_threads, limits=limits
    )
    row = {instant: index for index, instant in enumerate(instants)}
    return [frames[[row[instant] for instant in clip.instants]] for clip in clips]


def stream_clips(
    path: Path,
    clips: Sequence[Clip],
    *,
    max_side_px: int | None = None,
    num_threads: int = 0,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Iterator[tuple[Clip, NDArray[np.uint8]]]:
    """Decode the clips of one video in one passage through it, each handed over when it is whole.

    However few keyframes the video has, no frame is decoded twice. The file is open until the
    iterator is used up or closed; it may be advanced in one thread after another.

    Yields:
        Each clip with its frames, uint8, (T, H, W, 3), in the order of their last instants. What is
        raised is what decode_frames raises; the clips before it are sound.
    """
    instants = {instant for clip in clips for instant in clip.instants}
    waiting = deque(sorted(clips, key=lambda clip: (max(clip.instants), clip.index)))
    frames: dict[float, NDArray[np.uint8]] = {}
    for instant, frame in _stream_frames(
        path, tuple(instants), max_side_px=max_side_px, num_threads=num_threads, limits=limits
    ):
        frames[instant] = frame
        while waiting and max(waiting[0].instants) <= instant:
            clip = waiting.popleft()
            yield clip, np.stack([frames[instant] for instant in clip.instants])
        needed_from = min((min(clip.instants) for clip in waiting), default=math.inf)
        for passed in [instant for instant in frames if instant < needed_from]:
            del frames[passed]


def _stream_frames(
    path: Path,
    instants: Sequence[float],
    *,
    max_side_px: int | None,
    num_threads: int,
    limits: MediaLimits,
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Decode the frame on screen at each distinct instant, in ascending order, as decode_frames."""
    if not instants:
        raise ValueError("need at least one instant")
    if any(not math.isfinite(instant) or instant < 0 for instant in instants):
        raise ValueError(f"instants are seconds from 0, got {list(instants)}")
    with open_video(path, limits) as (container, stream):
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads
        reader = FrameReader(container, stream, limits=limits, name=path.name)
        shown: tuple[VideoFrame, NDArray[np.uint8]] | None = None
        screen = Screen(
            path,
            container,
            stream,
            name=path.name,
            max_side_px=max_side_px,
        )
        for instant, frame in reader.frames_on_screen(sorted(set(instants))):
            if shown is None or shown[0] is not frame:
                shown = (frame, screen.show(frame))
            yield instant, shown[1]


def _probe_of(
    container: InputContainer,
    stream: VideoStream,
    timeline: Timeline,
    screen: Screen,
    first: VideoFrame,
) -> VideoProbe:
    name = container.format.name.split(",")[0]
    is_still = screen.is_still or (name in ANIMATION_DEMUXERS and len(timeline.frame_pts) == 1)
    frame_pts, time_base = timeline.frame_pts, stream.time_base or Fraction(1)
    span_pts = int(frame_pts[-1] - frame_pts[0])
    thinning = math.ceil(len(timeline.keyframe_pts) / _MAX_KEYFRAMES) or 1
    keyframe_pts = timeline.keyframe_pts[::thinning] - frame_pts[0]
    width, height = screen.shown_size(first)
    duration_pts = 0 if is_still else span_pts + timeline.last_duration_pts
    return VideoProbe(
        duration_seconds=float(duration_pts * time_base),
        last_frame_seconds=float(span_pts * time_base),
        width=width,
        height=height,
        rotation_degrees=screen.orientation(first).rotation_degrees,
        average_fps=None if stream.average_rate is None else float(stream.average_rate),
        num_frames=len(frame_pts),
        header_num_frames=stream.frames,
        header_duration_pts=stream.duration,
        time_base=time_base,
        start_pts=int(frame_pts[0]),
        keyframe_seconds=tuple((keyframe_pts * float(time_base)).tolist()),
        codec=stream.codec_context.codec.canonical_name,
        container=name,
        is_still=is_still,
        frame_pts=frame_pts,
    )
