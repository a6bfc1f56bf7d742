"""Where the clips of a run come from: videos, which are decoded, or tokens, which were stored."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from clipbert.datasets.media_folder import MediaFolder
from clipbert.datasets.token_folder import TokenFolder
from clipbert.datasets.token_index import StoredVideo
from clipbert.errors import ConfigError
from clipbert.evaluation.clips import ClipSource, MediaClips, TokenClips
from clipbert.model.config import ClipBertConfig
from clipbert.sampling.plan import SamplingPlan
from clipbert.training.example_clips import ClipReader, MediaClipReader, TokenClipReader
from clipbert.training.recipe import Recipe
from clipbert.training.run_data import RunData
from clipbert.training.run_request import RunRequest
from clipbert.training.usable_videos import (
    VideoSet,
    VideoSource,
    find_stored_videos,
    find_videos,
)

_NUM_THREADS = 8

OnProgress = Callable[[int, int], None]


class Source(Protocol):
    """What a run needs of either."""

    def canonical_name(self, name: str) -> str:
        """Return the name under which the video that a name means goes.

        Raises:
            VideoError: there is none, or several.
        """

    def finder(
        self,
        config: ClipBertConfig,
        plan: SamplingPlan,
        *,
        progress: OnProgress = lambda _done, _total: None,
    ) -> Callable[[Sequence[str]], VideoSet]:
        """Return what looks at videos of given names: are they there, can they be used?"""

    def num_clips(self, recipe: Recipe, data: RunData) -> int:
        """Return the K of every example."""

    def clips(
        self, recipe: Recipe, data: RunData, *, plan: SamplingPlan, max_side_px: int
    ) -> ClipReader:
        """Return what reads the clips of a run's examples."""

    def evaluation_clips(self, plan: SamplingPlan) -> ClipSource:
        """Return the clips that an evaluation looks at."""


class MediaSource:
    """A folder of videos."""

    def __init__(self, folder: Path) -> None:
        self._media = MediaFolder(folder)

    def canonical_name(self, name: str) -> str:
        """Return the shortest name that no other file has."""
        return self._media.canonical_name(name)

    def finder(
        self,
        config: ClipBertConfig,
        plan: SamplingPlan,
        *,
        progress: OnProgress = lambda _done, _total: None,
    ) -> Callable[[Sequence[str]], VideoSet]:
        """Probe videos, and place the plan's clips in each."""
        return lambda names: find_videos(
            self._media, names, plan, num_threads=_NUM_THREADS, progress=progress
        )

    def num_clips(self, recipe: Recipe, data: RunData) -> int:
        """Return the recipe's number."""
        return recipe.clips

    def clips(
        self, recipe: Recipe, data: RunData, *, plan: SamplingPlan, max_side_px: int
    ) -> MediaClipReader:
        """Decode clips at each look."""
        videos = {
            name: video for name, video in data.videos.items() if isinstance(video, VideoSource)
        }
        return MediaClipReader(videos, plan, max_side_px=max_side_px)

    def evaluation_clips(self, plan: SamplingPlan) -> MediaClips:
        """Decode the plan's clips."""
        return MediaClips(self._media, plan)


class TokenSource:
    """A folder of stored tokens."""

    def __init__(self, folder: Path) -> None:
        self._tokens = TokenFolder(folder)

    def canonical_name(self, name: str) -> str:
        """Return the name in the index."""
        return self._tokens.canonical_name(name)

    def finder(
        self,
        config: ClipBertConfig,
        plan: SamplingPlan,
        *,
        progress: OnProgress = lambda _done, _total: None,
    ) -> Callable[[Sequence[str]], VideoSet]:
        """Read the headers of token files."""
        return lambda names: find_stored_videos(
            self._tokens, names, config=config, progress=progress
        )

    def num_clips(self, recipe: Recipe, data: RunData) -> int:
        """Return the recipe's number, but no more than the longest video has: pictures have one."""
        stored = [len(v.clips) for v in data.videos.values() if isinstance(v, StoredVideo)]
        return min(recipe.clips, max(stored))

    def clips(
        self, recipe: Recipe, data: RunData, *, plan: SamplingPlan, max_side_px: int
    ) -> TokenClipReader:
        """Read clips at each look."""
        num_clips = min(plan.num_clips, self.num_clips(recipe, data))
        return TokenClipReader(self._tokens, num_clips=num_clips, plan=plan.name)

    def evaluation_clips(self, plan: SamplingPlan) -> TokenClips:
        """Read as many clips as the plan has."""
        return TokenClips(self._tokens, num_clips=plan.num_clips, plan=plan.name)


def open_source(request: RunRequest) -> Source:
    """Open what a run learns from.

    Raises:
        ConfigError: the request names both or neither, or would train the CNN from tokens.
        MediaNotFound: there is no such folder.
        AnnotationError: the index of the tokens is wrong.
    """
    if (request.videos is None) == (request.tokens is None):
        raise ConfigError("training needs a folder of videos or one of tokens: name one of them")
    if request.tokens is None:
        assert request.videos is not None  # noqa: S101 (of the two, one is given)
        return MediaSource(request.videos)
    if request.recipe.visual != "frozen":
        raise ConfigError("visual is 'trained': stored tokens cannot train it, take 'frozen'")
    return TokenSource(request.tokens)
