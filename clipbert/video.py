"""Instants -> frames. With containers.py, the only modules that import av."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from clipbert.containers import STILL_FORMATS, check_pixels, open_video, read_timeline
from clipbert.errors import (
    DecodeFailed,
    ExtremeAspectRatio,
    MediaTooLarge,
)
from clipbert.probed_video import MAX_ASPECT_RATIO, MediaLimits, VideoProbe
from clipbert.resizing import shrunk_size
from clipbert.sampling import Clip
from clipbert.truncation import check_whole

__all__ = ["MediaLimits", "VideoProbe", "decode_clips", "decode_frames", "probe_video"]

DEFAULT_LIMITS = MediaLimits()
# An instant this little before a frame counts as that frame's: instants pass through decimal text.
_TOLERANCE_SECONDS = 1e-6
# Packets read to find the first presented frame: more than any codec reorders.
_REORDER_PACKETS = 64
# Packets of a damaged beginning that are forgiven before a file counts as undecodable.
_MAX_BAD_PACKETS = 16


def probe_video(path: Path, *, limits: MediaLimits = DEFAULT_LIMITS) -> VideoProbe:
    """Measure a video from its packets, and decode its first frame.

    Args:
        path: a video, or a JPEG, PNG or WebP picture, which is a video of one frame.
        limits: what is refused as too large.

    Raises:
        VideoError: one of its subclasses says what is wrong with the file.
    """
    with open_video(path, limits) as (container, stream):
        name = container.format.name.split(",")[0]
        check_whole(path, name)
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
        first = _first_frame(container, stream, path)
        check_pixels(first.width, first.height, limits)
        rotation = first.rotation % 360
        width, height = _turned(first.width, first.height, rotation)
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise ExtremeAspectRatio(f"{path.name} has frames of {width}x{height}")
        keyframe_seconds = (timeline.keyframe_pts - frame_pts[0]) * float(time_base)
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
            keyframe_seconds=tuple(keyframe_seconds.tolist()),
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
    if any(not math.isfinite(instant) or instant < 0 for instant in instants):
        raise ValueError(f"instants are seconds from 0, got {list(instants)}")
    wanted = sorted(set(instants))
    with open_video(path, limits) as (container, stream):
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads
        height, width = stream.codec_context.height, stream.codec_context.width
        if max_side_px is not None:
            height, width = shrunk_size(height, width, max_side_px)
        frames: dict[float, NDArray[np.uint8]] = {}
        converted: tuple[int, NDArray[np.uint8]] | None = None
        for instant, frame in _frames_on_screen(container, stream, wanted, path):
            check_pixels(frame.width, frame.height, limits)
            stamp = _stamp(frame)
            if converted is None or converted[0] != stamp:
                converted = (stamp, _to_rgb(frame, width, height))
            frames[instant] = converted[1]
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


def _turned(width: int, height: int, rotation: int) -> tuple[int, int]:
    return (height, width) if rotation in (90, 270) else (width, height)


def _to_rgb(frame: VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    # AREA averages all source pixels; a plain bilinear look-up would skip most of a 1080p frame.
    pixels = frame.to_ndarray(
        format="rgb24", width=width, height=height, interpolation=Interpolation.AREA
    )
    turns = frame.rotation // 90 % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels  # (H, W, 3)


def _stamp(item: "VideoFrame | Packet[VideoStream]") -> int:
    stamp = item.pts if item.pts is not None else item.dts
    return 0 if stamp is None else stamp


def _first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    _rewind(container, stream)
    for frame in _decoded(container, stream, path):
        return frame
    raise DecodeFailed(f"no frame of {path.name} can be decoded")


def _rewind(container: InputContainer, stream: VideoStream) -> None:
    """Go back to the first packet, including those that only lead up to the first frame."""
    if container.format.name in STILL_FORMATS:
        container.seek(0)
        return
    start = stream.start_time
    container.seek(0 if start is None else min(start, 0), stream=stream)


def _decoded(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[VideoFrame]:
    """Decode on from the current position; a few bad packets are skipped."""
    num_bad = 0
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError as error:
            num_bad += 1
            if num_bad > _MAX_BAD_PACKETS:
                raise DecodeFailed(f"{path.name} is damaged: {error.strerror}") from error


def _first_pts(container: InputContainer, stream: VideoStream) -> int:
    stamps = []
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:
            stamps.append(_stamp(packet))
        if len(stamps) == _REORDER_PACKETS:
            break
    return min(stamps, default=0)


def _frames_on_screen(
    container: InputContainer, stream: VideoStream, wanted: list[float], path: Path
) -> Iterator[tuple[float, VideoFrame]]:
    first_pts = _first_pts(container, stream)
    seconds_per_tick = float(stream.time_base or 1)
    targets = [
        (instant, first_pts + math.floor((instant + _TOLERANCE_SECONDS) / seconds_per_tick))
        for instant in wanted
    ]
    _rewind(container, stream)
    previous: VideoFrame | None = None
    frames = _decoded(container, stream, path)
    for frame in frames:
        while targets and (previous is not None) and _stamp(frame) > targets[0][1]:
            yield targets.pop(0)[0], previous
        if not targets:
            return
        previous = frame
    if previous is None:
        raise DecodeFailed(f"no frame of {path.name} can be decoded")
    for instant, _ in targets:
        yield instant, previous
