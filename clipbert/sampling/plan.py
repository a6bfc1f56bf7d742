"""How the clips of any video are placed, and what a clip is; plan_clips places them.

A video is looked at through K clips of T frames. A plan says how they are placed:

- `segments`: K equal segments, a clip in the middle of each; our default.
- `keyframes`: as `segments`, each instant moved to the nearest keyframe, so that one frame is
  decoded instead of a group of pictures. For bulk indexing.
- `authors`: exactly the frames that the paper's code takes.

Instants are seconds from the first presented frame.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

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
        """Return the plan as a JSON object."""
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
        """Return where in a video of this length the clip's middle lies, 0 to 1."""
        return clip_place(self.start_seconds, self.end_seconds, duration_seconds=duration_seconds)


def clip_place(start_seconds: float, end_seconds: float, *, duration_seconds: float) -> float:
    """Return where in its video the middle of a clip lies, 0 to 1; 0.5 in a still picture.

    clip_place(2.0, 4.0, duration_seconds=12.0)  ->  0.25
    """
    if duration_seconds <= 0:  # a still picture
        return 0.5
    return (start_seconds + end_seconds) / 2 / duration_seconds
