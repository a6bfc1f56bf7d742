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
from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from clipbert.probed_video import VideoProbe

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
            None: in all of the video.

    Returns:
        The clips, by index.

    Raises:
        NoFrameCount: the `authors` plan, and the header lacks what its formula divides by.
        FrameNotFound: the `authors` plan, and no frame lies in the window that it computes.
        ValueError: the `authors` plan, and the probe came from JSON, without frame timestamps.

    Source: Lei et al., ClipBERT, CVPR 2021, section 3, and its code. The paper's clips are placed
    by frame counts from the header; ours by timestamps, which every container has.
    """
    if plan.name == "authors":
        from clipbert.authors_sampling import plan_authors_clips  # noqa: PLC0415

        return plan_authors_clips(probe, plan, generator=generator, window=window)
    first, last = (0.0, probe.duration_seconds) if window is None else window
    num_clips = _num_clips(probe, plan, last - first)
    segment_seconds = (last - first) / num_clips
    keyframes = tuple(at for at in probe.keyframe_seconds if window is None or first <= at <= last)
    clips = []
    for index in range(num_clips):
        start = first + index * segment_seconds
        end = last if index == num_clips - 1 else first + (index + 1) * segment_seconds
        instants = _segment_instants(start, end, plan, generator)
        # The end of the last segment is the end of the last frame, where no frame begins.
        instants = [min(instant, probe.last_frame_seconds) for instant in instants]
        if plan.name == "keyframes":
            instants = [_nearest(keyframes, instant) for instant in instants]
        clips.append(Clip(index, start, end, tuple(instants)))
    return clips


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


def _nearest(ascending: tuple[float, ...], instant: float) -> float:
    if not ascending:
        return instant
    place = bisect_left(ascending, instant)
    neighbours = ascending[max(0, place - 1) : place + 1]
    return min(neighbours, key=lambda candidate: abs(candidate - instant))
