"""Clips of equal segments: the plans `segments` and `keyframes`."""

import math
import random
from bisect import bisect_left, bisect_right
from itertools import pairwise

from clipbert.errors import OutsideVideo
from clipbert.sampling.plan import Clip, SamplingPlan
from clipbert.video.probed_video import VideoProbe

# An instant is kept this far from a gap: shorter than any frame.
_EDGE_SECONDS = 1e-3


def plan_segment_clips(
    probe: VideoProbe,
    plan: SamplingPlan,
    *,
    generator: random.Random | None,
    window: tuple[float, float] | None = None,
) -> list[Clip]:
    """Cut a video into equal segments and take a clip of each; arguments and errors as plan_clips.

    Nothing is placed in the probe's gaps: segments tile what is between them.
    """
    first, last = (0.0, probe.duration_seconds) if window is None else window
    pieces = _pieces(first, last, probe.gaps)
    num_clips = _num_clips(probe, plan, sum(end - start for start, end in pieces))
    clips = []
    for index, (start, end, parts) in enumerate(_segments(pieces, num_clips)):
        instants = _instants_in(parts, plan, generator)
        instants = [_before_gap(instant, probe.gaps) for instant in instants]
        # The end of the last segment is the end of the last frame, where no frame begins.
        instants = [min(instant, probe.last_frame_seconds) for instant in instants]
        if plan.name == "keyframes":
            instants = [
                _nearest_keyframe(instant, pieces, probe.keyframe_seconds) for instant in instants
            ]
        clips.append(Clip(index, start, end, tuple(instants)))
    return clips


def _instants_in(
    parts: list[tuple[float, float]], plan: SamplingPlan, generator: random.Random | None
) -> list[float]:
    """Place the instants of one clip in the parts of its segment, as if there was no gap."""
    if len(parts) == 1:
        return _segment_instants(*parts[0], plan, generator)
    seconds = sum(end - start for start, end in parts)
    instants = _segment_instants(0.0, seconds, plan, generator)
    return [_from_picture_time(instant, parts) for instant in instants]


def _before_gap(instant: float, gaps: tuple[tuple[float, float], ...]) -> float:
    """Move an instant at the very edge of a gap to the pictures before it."""
    for start, end in gaps:
        if start <= instant < end:
            return max(0.0, start - _EDGE_SECONDS)
    return instant


def _pieces(
    first: float, last: float, gaps: tuple[tuple[float, float], ...]
) -> list[tuple[float, float]]:
    """Return the parts of a span that have pictures: (start, end), ascending.

    Raises:
        OutsideVideo: there are none.
    """
    pieces = []
    start = first
    for gap_start, gap_end in gaps:
        if start < min(gap_start, last):
            pieces.append((start, min(gap_start, last)))
        start = max(start, gap_end)
    if start < last or not gaps:
        pieces.append((start, last))
    if not pieces:
        raise OutsideVideo.in_gap(first, last)
    return pieces


def _segments(
    pieces: list[tuple[float, float]], num_clips: int
) -> list[tuple[float, float, list[tuple[float, float]]]]:
    """Cut pieces into (start, end, parts of pieces), as equal as can be, that tile them.

    None goes over a gap if there are enough of them.
    """
    if len(pieces) > num_clips:
        total = sum(end - start for start, end in pieces)
        cuts = [total * index / num_clips for index in range(num_clips + 1)]
        cut_pieces = [_cut(pieces, low, high) for low, high in pairwise(cuts)]
        return [(parts[0][0], parts[-1][1], parts) for parts in cut_pieces]
    segments = []
    for (start, end), count in zip(pieces, _apportioned(pieces, num_clips), strict=True):
        seconds = (end - start) / count
        for index in range(count):
            low = start + index * seconds
            high = end if index == count - 1 else start + (index + 1) * seconds
            segments.append((low, high, [(low, high)]))
    return segments


def _apportioned(pieces: list[tuple[float, float]], num_clips: int) -> list[int]:
    """Share clips out among pieces: each gets one, and the longest per clip gets the next."""
    counts = [1] * len(pieces)
    for _ in range(num_clips - len(pieces)):
        neediest = max(
            range(len(pieces)), key=lambda row: (pieces[row][1] - pieces[row][0]) / counts[row]
        )
        counts[neediest] += 1
    return counts


def _cut(pieces: list[tuple[float, float]], low: float, high: float) -> list[tuple[float, float]]:
    """Return the parts of pieces from low to high, in seconds of pictures."""
    parts, passed = [], 0.0
    for start, end in pieces:
        part = (start + max(0.0, low - passed), min(end, start + high - passed))
        if part[0] < part[1]:
            parts.append(part)
        passed += end - start
    return parts or [pieces[-1]]


def _from_picture_time(seconds: float, parts: list[tuple[float, float]]) -> float:
    """Turn seconds of pictures, counted from the first part's start, into seconds of the video."""
    for start, end in parts[:-1]:
        if seconds < end - start:
            return start + seconds
        seconds -= end - start
    return parts[-1][0] + seconds


def _nearest_keyframe(
    instant: float, pieces: list[tuple[float, float]], keyframes: tuple[float, ...]
) -> float:
    """Return the nearest keyframe of an instant's own piece; the instant itself if it has none."""
    start, end = next((piece for piece in pieces if instant <= piece[1]), pieces[-1])
    first, stop = bisect_left(keyframes, start), bisect_right(keyframes, end)
    if first == stop:
        return instant
    place = bisect_left(keyframes, instant, first, stop)
    neighbours = keyframes[max(first, place - 1) : min(place + 1, stop)]
    return min(neighbours, key=lambda candidate: abs(candidate - instant))


def _num_clips(probe: VideoProbe, plan: SamplingPlan, seconds: float) -> int:
    if plan.seconds_per_clip is None:
        return plan.num_clips
    wanted = math.ceil(seconds / plan.seconds_per_clip)
    return max(1, min(max(wanted, plan.num_clips), plan.max_clips, probe.num_frames))


def _segment_instants(
    start: float, end: float, plan: SamplingPlan, generator: random.Random | None
) -> list[float]:
    if plan.frames_per_clip == 1:
        return [(start + end) / 2 if generator is None else generator.uniform(start, end)]
    span = min(plan.clip_seconds, end - start)
    latest = end - span
    first = (start + latest) / 2 if generator is None else generator.uniform(start, latest)
    step = span / (plan.frames_per_clip - 1)
    return [first + step * frame for frame in range(plan.frames_per_clip)]
