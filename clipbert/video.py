"""Instants -> frames. This module, containers.py and frame_reader.py alone import av."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from clipbert.containers import STILL_FORMATS, open_video, read_timeline, sniff_format
from clipbert.errors import (
    DecodeFailed,
    ExtremeAspectRatio,
    MediaTooLarge,
)
from clipbert.frame_reader import FrameReader
from clipbert.probed_video import MAX_ASPECT_RATIO, MediaLimits, VideoProbe
from clipbert.resizing import shrunk_size
from clipbert.sampling import Clip
from clipbert.truncation import check_whole

__all__ = ["MediaLimits", "VideoProbe", "decode_clips", "decode_frames", "probe_video"]

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
        name = container.format.name.split(",")[0]
        timeline = read_timeline(container, stream, max_frames=limits.max_frames)
        frame_pts, time_base = timeline.frame_pts, stream.time_base
        if len(frame_pts) > limits.max_frames:
            raise MediaTooLarge(f"{path.name} has more than {limits.max_frames} frames")
        if len(frame_pts) == 0 or time_base is None:
            raise DecodeFailed(f"{path.name} has a video stream without frames")
        is_still = name in STILL_FORMATS
        span_pts = int(frame_pts[-1] - frame_pts[0])
        last_frame_seconds = float(span_pts * time_base)
        duration = float((span_pts + timeline.last_duration_pts) * time_base)
        if duration > limits.max_duration_seconds:
            raise MediaTooLarge(f"{path.name} is {duration:.0f} s long")
        reader = FrameReader(container, stream, limits=limits, name=path.name)
        first = reader.first_frame()
        rotation = first.rotation % 360
        width, height = _turned(first.width, first.height, rotation)
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise ExtremeAspectRatio(f"{path.name} has frames of {width}x{height}")
        thinning = math.ceil(len(timeline.keyframe_pts) / _MAX_KEYFRAMES) or 1
        keyframe_pts = timeline.keyframe_pts[::thinning] - frame_pts[0]
        return VideoProbe(
            duration_seconds=0.0 if is_still else duration,
            last_frame_seconds=last_frame_seconds,
            width=width,
            height=height,
            rotation_degrees=rotation,
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
            other is truncated, as in the paper's code. Smaller frames keep their size.
        num_threads: of the decoder; 0 is one for each core.
        limits: what is refused as too large.

    Returns:
        RGB frames as shown, after rotation, uint8, (N, H, W, 3), in the order of instants.

    Raises:
        FrameNotFound: an instant lies more than a frame's length past the last frame's end.
        VideoError: the file cannot be opened or decoded.
    """
    if not instants:
        raise ValueError("need at least one instant")
    if any(not math.isfinite(instant) or instant < 0 for instant in instants):
        raise ValueError(f"instants are seconds from 0, got {list(instants)}")
    wanted = sorted(set(instants))
    with open_video(path, limits) as (container, stream):
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads
        reader = FrameReader(container, stream, limits=limits, name=path.name)
        frames: dict[float, NDArray[np.uint8]] = {}
        shown: tuple[VideoFrame, NDArray[np.uint8]] | None = None
        size: tuple[int, int] | None = None
        for instant, frame in reader.frames_on_screen(wanted):
            if size is None:
                # A stream whose size changes midway is shown at the size of its first frame here.
                size = _size(frame, max_side_px)
            if shown is None or shown[0] is not frame:
                shown = (frame, _to_rgb(frame, *size))
            frames[instant] = shown[1]
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


def _size(frame: VideoFrame, max_side_px: int | None) -> tuple[int, int]:
    if max_side_px is None:
        return frame.height, frame.width
    return shrunk_size(frame.height, frame.width, max_side_px)


def _turned(width: int, height: int, rotation: int) -> tuple[int, int]:
    return (height, width) if rotation in (90, 270) else (width, height)


def _to_rgb(frame: VideoFrame, height: int, width: int) -> NDArray[np.uint8]:
    # AREA averages all source pixels; a plain bilinear look-up would skip most of a 1080p frame.
    pixels: NDArray[np.uint8] = np.asarray(
        frame.to_ndarray(
            format="rgb24", width=width, height=height, interpolation=Interpolation.AREA
        ),
        dtype=np.uint8,
    )
    turns = frame.rotation // 90 % 4  # counter-clockwise, for both
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels  # (H, W, 3)
