"""Find and measure the videos of a data set once, before anything is trained on them."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clipbert.datasets.media_folder import MediaFolder
from clipbert.datasets.token_folder import TokenFolder, check_grid
from clipbert.datasets.token_index import StoredVideo
from clipbert.errors import VideoError
from clipbert.model.config import ClipBertConfig
from clipbert.sampling.plan import SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.training.draws import generator_at
from clipbert.video.decode import probe_video
from clipbert.video.probed_video import VideoProbe


@dataclass(frozen=True)
class VideoSource:
    """A video that can be used: its file, and what was measured of it."""

    path: Path
    probe: VideoProbe

    @property
    def duration_seconds(self) -> float:
        """Length of the video."""
        return self.probe.duration_seconds


@dataclass(frozen=True)
class UnusableVideo:
    """A video that is missing or broken: it is reported and left out, never replaced.

    Attributes:
        video: its name, as the annotations call it.
        code: of the VideoError.
        reason: its sentence.
    """

    video: str
    code: str
    reason: str

    @classmethod
    def from_error(cls, video: str, error: VideoError) -> "UnusableVideo":
        """Make an entry of a video and its error."""
        return cls(video, error.code, str(error))


@dataclass(frozen=True)
class VideoSet:
    """The videos of a data set.

    Attributes:
        usable: by name.
        unusable: the others, by falling order of their names in the data set.
    """

    usable: Mapping[str, VideoSource | StoredVideo]
    unusable: tuple[UnusableVideo, ...]


def find_videos(
    media: MediaFolder,
    names: Iterable[str],
    plan: SamplingPlan,
    *,
    num_threads: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> VideoSet:
    """Check every video: is it there, can it be opened, can clips be placed in it?

    Args:
        media: where the videos are.
        names: of the videos; each is looked at once.
        plan: how clips will be placed.
        num_threads: videos looked at side by side.
        progress: called with how many were looked at, and of how many.
    """
    wanted = list(dict.fromkeys(names))
    usable: dict[str, VideoSource | StoredVideo] = {}
    unusable: list[UnusableVideo] = []
    with ThreadPoolExecutor(num_threads, thread_name_prefix="probe") as pool:
        found = pool.map(lambda name: _probe(media, name, plan), wanted)
        for done, (name, source) in enumerate(zip(wanted, found, strict=True), start=1):
            if isinstance(source, VideoSource):
                usable[name] = source
            else:
                unusable.append(UnusableVideo.from_error(name, source))
            progress(done, len(wanted))
    return VideoSet(usable, tuple(unusable))


def find_stored_videos(
    tokens: TokenFolder,
    names: Iterable[str],
    *,
    config: ClipBertConfig,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> VideoSet:
    """Check the stored tokens of every video: are they there, and are they of such a model?

    Args:
        tokens: where they are.
        names: of the videos; each is looked at once.
        config: of the model that reads them.
        progress: called with how many were looked at, and of how many.
    """
    wanted = list(dict.fromkeys(names))
    usable: dict[str, VideoSource | StoredVideo] = {}
    unusable: list[UnusableVideo] = []
    for done, name in enumerate(wanted, start=1):
        try:
            check_grid(tokens.grid(name), config)
            usable[name] = tokens.find(name)
        except VideoError as error:
            unusable.append(UnusableVideo.from_error(name, error))
        progress(done, len(wanted))
    return VideoSet(usable, tuple(unusable))


def _probe(media: MediaFolder, name: str, plan: SamplingPlan) -> VideoSource | VideoError:
    try:
        path = media.find(name)
        probe = probe_video(path)
        plan_clips(probe, plan, generator=generator_at(0, name))
    except VideoError as error:
        return error
    return VideoSource(path, probe)
