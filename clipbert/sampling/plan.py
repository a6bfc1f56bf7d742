"""Which instants of a video to look at: pure, no pixels.

A video is looked at through K clips of T frames. A plan says how they are placed:

- `segments`: K equal segments, a clip in the middle of each; our default.
- `keyframes`: as `segments`, each instant moved to the nearest keyframe, so that one frame is
  decoded instead of a group of pictures. For bulk indexing.
- `authors`: exactly the frames that the paper's code takes.

With a generator the same plans sample for training: at random, each draw from that generator.
Instants are seconds from the first presented frame.
"""

import math
import random
from bisect import bisect_left, bisect_right
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

from clipbert.errors import OutsideVideo

if TYPE_CHECKING:
    from clipbert.video.probed_video import VideoProbe

# An instant is kept this far from a gap: shorter than any frame.
_EDGE_SECONDS = 1e-3

PlanName = Literal["segments", "authors", "keyframes"]
AuthorsStrategy = Literal["clips", "start", "middle", "end", "uniform"]


@dataclass(frozen=True)
class SamplingPlan:
    """How the clips of any video are placed; stored with every result made from them.

    Attributes:
        name: `segments`, `authors` or `keyframes`.
        num_clips: K, at least 1; with seconds_per_clip it is the least number of clips.
        frames_per_clip: T, at least 1.
        clip_seconds: from the first to the last instant of a clip (segments, keyframes). A segment
            shorter than this is used whole.
        frames_per_second: `authors` only; a clip lasts frames_per_clip / frames_per_second.
        seconds_per_clip: if set, longer videos get more clips, one for each so many seconds:
            K = ceil(duration / seconds_per_clip), within num_clips and max_clips, and never
            more clips than the video has frames.
        max_clips: upper bound of K with seconds_per_clip.
        strategy: `authors` only. `clips`: K clips spread over the video, or drawn at random when a
            generator is given; `start`, `middle`, `end`, `uniform`: the paper code's named
            single clips, of which `middle` starts at a third of the way and `uniform` spreads
            the T frames over the whole video.
    """

    name: PlanName = "segments"
    num_clips: int = 4
    frames_per_clip: int = 1
    clip_seconds: float = 1.0
    frames_per_second: float = 2.0
    seconds_per_clip: float | None = None
    max_clips: int = 256
    strategy: AuthorsStrategy = "clips"

    def __post_init__(self) -> None:
        if self.name not in get_args(PlanName):
            raise ValueError(f"no sampling plan is named {self.name!r}")
        if self.strategy not in get_args(AuthorsStrategy):
            raise ValueError(f"no strategy of the authors is named {self.strategy!r}")
        if self.num_clips < 1 or self.frames_per_clip < 1 or self.max_clips < self.num_clips:
            raise ValueError(
                f"need num_clips >= 1, frames_per_clip >= 1, max_clips >= num_clips, got "
                f"{self.num_clips}, {self.frames_per_clip}, {self.max_clips}"
            )
        if not self.clip_seconds >= 0 or not self.frames_per_second > 0:
            raise ValueError(
                f"need clip_seconds >= 0 and frames_per_second > 0, got "
                f"{self.clip_seconds}, {self.frames_per_second}"
            )
        if self.seconds_per_clip is not None and not self.seconds_per_clip > 0:
            raise ValueError(f"need seconds_per_clip > 0, got {self.seconds_per_clip}")
        if self.strategy != "clips" and (self.name != "authors" or self.num_clips != 1):
            raise ValueError(f"strategy {self.strategy!r} is a single clip of the authors plan")

    def to_json(self) -> dict[str, Any]:
        """Give the plan as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "SamplingPlan":
        """Rebuild a plan from to_json's object; a missing field takes its default."""
        return cls(**fields)


# What `clipbert up` indexes with: a moment for each 4 seconds.
INDEX_PLAN = SamplingPlan(
    "segments", num_clips=4, frames_per_clip=1, seconds_per_clip=4.0, max_clips=256
)


@dataclass(frozen=True)
class Clip:
    """One clip of a video.

    Attributes:
        index: 0 to K - 1.
        start_seconds: where the moment begins that this clip stands for. With `segments` and
            `keyframes` it is the whole segment, so that the moments tile the video.
        end_seconds: where that moment ends.
        instants: T instants, seconds from the video's first frame, ascending, within the video.
    """

    index: int
    start_seconds: float
    end_seconds: float
    instants: tuple[float, ...]

    def place_in(self, duration_seconds: float) -> float:
        """Say where in a video of this length the clip's middle lies, 0 to 1."""
        if not duration_seconds:  # a still picture
            return 0.5
        return (self.start_seconds + self.end_seconds) / 2 / duration_seconds


def plan_clips(
    probe: "VideoProbe",
    plan: SamplingPlan,
    *,
    generator: random.Random | None = None,
    window: tuple[float, float] | None = None,
) -> list[Clip]:
    """Choose the instants of one video to look at.

        plan_clips(probe of 12 s, SamplingPlan(num_clips=3, frames_per_clip=2, clip_seconds=2.0))
        ->  instants (1, 3), (5, 7), (9, 11)

    Args:
        probe: the video, from probe_video.
        plan: how to place the clips.
        generator: None for the plan's fixed instants; for training, the source of every draw.
            `segments` and `keyframes` draw each clip within its segment; `authors` draws each
            clip anywhere, so clips may overlap and are not in order.
        window: seconds from where to where clips are placed, as if the video were no longer;
            None: in all of the video. Nothing is placed in the probe's gaps: segments tile what
            is between them.

    Returns:
        The clips, by index.

    Raises:
        NoFrameCount: the `authors` plan, and the header lacks what its formula divides by.
        OutsideVideo: the window lies in a gap.
        FrameNotFound: the `authors` plan, and no frame lies in the window that it computes.
        ValueError: the `authors` plan, and the probe came from JSON, without frame timestamps.

    Source: Lei et al., ClipBERT, CVPR 2021, section 3, and its code. The paper's clips are placed
    by frame counts from the header; ours by timestamps, which every container has.
    """
    if plan.name == "authors":
        from clipbert.sampling.authors import plan_authors_clips  # noqa: PLC0415

        return plan_authors_clips(probe, plan, generator=generator, window=window)
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
    """Give the parts of a span that have pictures: (start, end), ascending.

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
    """Give the parts of pieces from low to high, in seconds of pictures."""
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
    """Give the nearest keyframe of the piece that an instant lies in; the instant, if none is."""
    start, end = next((piece for piece in pieces if instant <= piece[1]), pieces[-1])
    first, stop = bisect_left(keyframes, start), bisect_right(keyframes, end)
    if first == stop:
        return instant
    place = bisect_left(keyframes, instant, first, stop)
    neighbours = keyframes[max(first, place - 1) : min(place + 1, stop)]
    return min(neighbours, key=lambda candidate: abs(candidate - instant))


def _num_clips(probe: "VideoProbe", plan: SamplingPlan, seconds: float) -> int:
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
