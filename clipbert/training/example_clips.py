"""The clips of the examples of a run: decoded from videos, or stored as tokens."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from clipbert.datasets.annotation import Span
from clipbert.datasets.token_folder import TokenFolder, choose_clips
from clipbert.inference.clips import decode_planned_clips
from clipbert.sampling.plan import PlanName, SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.training.usable_videos import VideoSource


@dataclass(frozen=True)
class ClipTensors:
    """K clips of one video; of frames and tokens there is one.

    Attributes:
        places: (K,) float32, where in the video each clip's middle lies, 0 to 1.
        frames: uint8, (K, T, H, W, 3), RGB; None if the clips went through the CNN before.
        tokens: (K, h, w, D), as they are stored; None if they did not.
    """

    places: Tensor
    frames: Tensor | None = None
    tokens: Tensor | None = None


class ClipReader(Protocol):
    """What an example needs of either."""

    def read(self, video: str, span: Span, *, generator: random.Random | None) -> ClipTensors:
        """Read K clips of a part of a video: the fixed ones, or those that a generator draws.

        Raises:
            VideoError: what is wrong with the video.
        """


class MediaClipReader:
    """Decodes clips at each look.

    Args:
        videos: every video of the examples, by name.
        plan: which clips to decode.
        max_side_px: of the model. Larger frames are shrunk to it while they are decoded, but not
            with the `authors` plan: the paper's frames are resized without antialiasing.
    """

    def __init__(
        self, videos: Mapping[str, VideoSource], plan: SamplingPlan, *, max_side_px: int
    ) -> None:
        self._videos, self._plan, self._max_side_px = videos, plan, max_side_px

    def read(self, video: str, span: Span, *, generator: random.Random | None) -> ClipTensors:
        """Place the plan's clips and decode them."""
        source = self._videos[video]
        duration = source.probe.duration_seconds
        clips = plan_clips(
            source.probe, self._plan, generator=generator, window=span.window_in(duration)
        )
        # One thread: examples are decoded side by side by the workers of the loader.
        frames = decode_planned_clips(
            source.path, clips, plan=self._plan, max_side_px=self._max_side_px, num_threads=1
        )
        return ClipTensors(
            torch.tensor([clip.place_in(duration) for clip in clips]),
            frames=torch.from_numpy(np.stack(frames)),
        )


class TokenClipReader:
    """Reads stored tokens at each look.

    Args:
        tokens: of every video of the examples.
        num_clips: K.
        plan: how K of the stored clips are chosen, see choose_clips.
    """

    def __init__(self, tokens: TokenFolder, *, num_clips: int, plan: PlanName) -> None:
        self._tokens, self._num_clips, self._plan = tokens, num_clips, plan

    def read(self, video: str, span: Span, *, generator: random.Random | None) -> ClipTensors:
        """Choose among the video's clips and read their tokens."""
        stored = self._tokens.find(video)
        rows = choose_clips(
            stored.clips_in(span), self._num_clips, plan=self._plan, generator=generator
        )
        tokens = self._tokens.read(video, rows)
        return ClipTensors(torch.tensor(stored.places(rows)), tokens=tokens)
