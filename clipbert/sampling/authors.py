"""Exactly the frames that the authors' code takes (Lei et al., CVPR 2021; version of 2022-06-16).

Its quirks are kept, because a checkpoint trained with them is compared with published numbers
only under them: the last clip never reaches the end of the video, `middle` begins at a third of
the free range, and a clip shorter than its window repeats the last frame.
"""

import random

import numpy as np
from numpy.typing import NDArray

from clipbert.errors import FrameNotFound, NoFrameCount
from clipbert.sampling.plan import Clip, SamplingPlan
from clipbert.video.probed_video import VideoProbe

_THIRDS = {"start": 0, "middle": 1, "end": 2}
# A header that claims much more than the frames' timestamps reach is not believed, by those of
# their clips that are spread over the video.
_BELIEVED_SHARE = 0.8


def plan_authors_clips(
    probe: VideoProbe,
    plan: SamplingPlan,
    *,
    generator: random.Random | None,
    window: tuple[float, float] | None = None,
) -> list[Clip]:
    """Choose clips as the authors' decoder does; arguments and errors as plan_clips.

    Their code knows no windows: theirs is then cut out of the video's frames, by number.
    """
    if len(probe.frame_pts) == 0:
        raise ValueError("the authors plan needs frame timestamps; probe the file itself")
    if probe.average_fps is None:
        raise NoFrameCount("the header gives no frame rate, which the authors plan needs")
    # Containers without a duration are decoded whole, and counted.
    counted = probe.header_duration_pts is None
    num_frames = len(probe.frame_pts) if counted else probe.header_num_frames
    if num_frames == 0:
        raise NoFrameCount("the header gives no frame count, which the authors plan divides by")
    clip_frames = plan.frames_per_clip / plan.frames_per_second * probe.average_fps
    first, last = _frames_of(window, probe, num_frames)
    free = max(last - first - clip_frames, 0)
    duration = _believed_duration(probe, plan, generator)
    clips = []
    for index in range(plan.num_clips):
        if plan.strategy == "uniform":
            start, end = first, last - 1
        else:
            start = first + _clip_start(index, free, plan, generator)
            end = start + clip_frames - 1
        if duration is None:
            rows = _spread(start, end, plan.frames_per_clip, num_rows=num_frames)
        else:
            lower, upper = int(start * duration / num_frames), int(end * duration / num_frames)
            rows = _window_rows(probe, plan, lower, upper, last_place=end - start)
        instants = tuple(_seconds(probe, int(row)) for row in rows)
        if window is not None:
            instants = _held(instants, window)
        stop = min(instants[-1] + 1 / probe.average_fps, probe.duration_seconds)
        clips.append(Clip(index, instants[0], max(stop, instants[-1]), instants))
    return clips


def _frames_of(
    window: tuple[float, float] | None, probe: VideoProbe, num_frames: int
) -> tuple[float, float]:
    """Return the (fractional) frames between which clips are placed."""
    if window is None or not probe.duration_seconds:
        return 0.0, float(num_frames)
    per_second = num_frames / probe.duration_seconds
    return window[0] * per_second, window[1] * per_second


def _held(instants: tuple[float, ...], window: tuple[float, float]) -> tuple[float, ...]:
    """Keep a clip that is longer than its window in it: the last frame inside comes again."""
    inside = [instant for instant in instants if window[0] <= instant <= window[1]]
    if not inside:  # the window lies between two frames: the one on screen
        return instants[:1] * len(instants)
    return tuple(min(max(instant, inside[0]), inside[-1]) for instant in instants)


def _clip_start(
    index: int, free: float, plan: SamplingPlan, generator: random.Random | None
) -> float:
    """Return the (fractional) frame where a clip begins."""
    if plan.strategy in _THIRDS:
        return free * _THIRDS[plan.strategy] / len(_THIRDS)
    if generator is not None:
        return generator.uniform(0, free)
    return free * index / plan.num_clips


def _believed_duration(
    probe: VideoProbe, plan: SamplingPlan, generator: random.Random | None
) -> int | None:
    """Return the duration that frame numbers are turned into timestamps with."""
    duration = probe.header_duration_pts
    is_spread = plan.strategy == "clips" and generator is None
    if duration is not None and is_spread:
        last_pts = int(probe.frame_pts[-1])
        if last_pts < _BELIEVED_SHARE * duration:
            return last_pts
    return duration


def _window_rows(
    probe: VideoProbe, plan: SamplingPlan, lower: int, upper: int, *, last_place: float
) -> NDArray[np.int64]:
    """Return the rows of probe.frame_pts that make up a clip, (T,), from a window of timestamps."""
    first = int(np.searchsorted(probe.frame_pts, lower, side="left"))
    if first == len(probe.frame_pts):
        raise FrameNotFound(lower * float(probe.time_base), probe.last_frame_seconds)
    # The first frame beyond the window is kept too. A window shorter than a frame ends before it
    # begins; that frame is then the only one.
    beyond = int(np.searchsorted(probe.frame_pts, upper, side="right"))
    stop = min(max(beyond, first) + 1, len(probe.frame_pts))
    num_rows = stop - first
    if plan.strategy == "uniform":
        last_place = num_rows - 1
    return first + _spread(0, last_place, plan.frames_per_clip, num_rows=num_rows)


def _spread(start: float, end: float, count: int, *, num_rows: int) -> NDArray[np.int64]:
    """Truncate torch.linspace(start, end, count), which computes in float32 from both ends."""
    first, last = np.float32(start), np.float32(end)
    if count == 1:
        return np.array([first], dtype=np.float32).clip(0, num_rows - 1).astype(np.int64)
    step = (last - first) / np.float32(count - 1)
    places = np.arange(count)
    backward = (count - 1 - places).astype(np.float32)
    values = np.where(
        places < count // 2, first + step * places.astype(np.float32), last - step * backward
    )
    return values.clip(0, num_rows - 1).astype(np.int64)


def _seconds(probe: VideoProbe, row: int) -> float:
    return float((int(probe.frame_pts[row]) - probe.start_pts) * probe.time_base)
