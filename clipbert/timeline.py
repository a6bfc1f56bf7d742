"""Read the times of a stream's frames from its packets, without decoding."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from clipbert.errors import MediaTooLarge
from clipbert.frame_clock import NUM_FIRST_PACKETS, FrameClock
from clipbert.packets import Stamping, packets_of, stamp_of, stamping_of


@dataclass(frozen=True)
class Timeline:
    """The timestamps of a stream's frames.

    Attributes:
        stamping: what the stream tells of them.
        frame_pts: int64, ascending, those of hidden frames (edit lists) left out.
        keyframe_pts: int64, ascending.
        last_duration_pts: length of the last frame.
    """

    stamping: Stamping
    frame_pts: NDArray[np.int64]
    keyframe_pts: NDArray[np.int64]
    last_duration_pts: int

    def as_shown(self, first_frame: VideoFrame) -> "Timeline":
        """Turn the times of decoding of REORDERED frames into those of showing.

        Args:
            first_frame: what the decoder gives first. How many packets it took tells how far
                showing lags behind.
        """
        if self.stamping is not Stamping.REORDERED:
            return self
        decoded = self.frame_pts.tolist()
        clock = FrameClock(self.stamping, decoded[:NUM_FIRST_PACKETS])
        stamp = stamp_of(first_frame, self.stamping)
        num_waited = len(decoded) if stamp is None else int(np.searchsorted(self.frame_pts, stamp))
        brought_out = decoded[num_waited:] + [None] * num_waited
        shown = np.array([clock.pts_of(stamp) for stamp in brought_out], dtype=np.int64)
        keyframe_rows = np.searchsorted(self.frame_pts, self.keyframe_pts)
        return replace(self, frame_pts=shown, keyframe_pts=shown[keyframe_rows])


def read_timeline(
    container: InputContainer, stream: VideoStream, *, max_frames: int, name: str
) -> Timeline:
    """Read all packets of a stream from its beginning; name is what messages call the file.

    Raises:
        MediaTooLarge: there are more than max_frames.
    """
    stamping = stamping_of(container, stream)
    pts: list[int] = []
    keyframes: list[int] = []
    num_packets, last_pts, last_duration = 0, -1, 0
    for packet in packets_of(container, stream):
        if packet.size == 0 or packet.is_discard:
            continue
        num_packets += 1
        if num_packets > max_frames:
            raise MediaTooLarge(f"{name} has more than {max_frames} frames")
        stamp = stamp_of(packet, stamping)
        if stamp is None:
            continue
        pts.append(stamp)
        if packet.is_keyframe:
            keyframes.append(stamp)
        if stamp >= last_pts:
            last_pts, last_duration = stamp, packet.duration or 0
    frame_pts = np.unique(np.array(pts, dtype=np.int64))
    if stamping is Stamping.SPARSE:
        frame_pts = _filled(frame_pts, num_frames=num_packets, step=last_duration)
    # A chunk of an AVI is one tick, though each frame may be followed by empty ones.
    is_tick = stamping in (Stamping.DECODED, Stamping.REORDERED)
    if (last_duration == 0 or is_tick) and len(frame_pts) > 1:
        last_duration = int(np.median(np.diff(frame_pts)))
    keyframe_pts = np.unique(np.array(keyframes, dtype=np.int64))
    return Timeline(stamping, frame_pts, keyframe_pts, last_duration)


def _filled(known: NDArray[np.int64], *, num_frames: int, step: int) -> NDArray[np.int64]:
    """Add the times of frames that state none: each follows the one before it by a step."""
    missing = num_frames - len(known)
    if missing <= 0 or step <= 0:
        return known
    runs = []
    for start, end in pairwise([*known.tolist(), math.inf]):
        num_steps = max(1, round(min((end - start) / step, missing + 1)))
        runs.append(start + step * np.arange(num_steps))
        missing -= num_steps - 1
    return np.unique(np.concatenate(runs))
