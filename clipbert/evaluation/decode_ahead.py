"""Decode the clips of many videos in threads, a little ahead of the model that reads them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipbert.datasets.annotation import Span
from clipbert.errors import VideoError
from clipbert.inference.clips import read_clips
from clipbert.sampling.plan import SamplingPlan


@dataclass(frozen=True)
class DecodedVideo:
    """The clips of one video.

    Attributes:
        frames: K arrays, RGB, uint8, (T, H, W, 3).
        places: where in the video each clip's middle lies, 0 to 1.
    """

    frames: list[NDArray[np.uint8]]
    places: tuple[float, ...]


def decode_ahead(
    videos: Sequence[tuple[Path, Span]],
    plan: SamplingPlan,
    *,
    max_side_px: int,
    num_threads: int,
) -> Iterator[DecodedVideo | VideoError]:
    """Decode videos in threads and give them in their order.

    At most one video more than there are threads is held at a time.

    Args:
        videos: file of each, and the part of it to look at.
        plan: which clips to decode.
        max_side_px: of the model, as for read_clips.
        num_threads: at least 1.

    Yields:
        The clips, or what is wrong with the file. A picture is one clip, whatever the plan.
    """
    waiting: deque[Future[DecodedVideo | VideoError]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        for path, span in videos:
            waiting.append(pool.submit(_decode, path, span, plan, max_side_px))
            if len(waiting) > num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _decode(
    path: Path, span: Span, plan: SamplingPlan, max_side_px: int
) -> DecodedVideo | VideoError:
    try:
        decoded = read_clips(path, plan, span=span, max_side_px=max_side_px, num_threads=1)
    except VideoError as error:
        return error
    clips, frames = decoded.clips, decoded.frames
    if len({clip.instants for clip in clips}) == 1:
        # A picture, or a video of one frame: the other clips would be the same again.
        clips, frames = clips[:1], frames[:1]
    return DecodedVideo(frames, tuple(clip.place_in(decoded.duration_seconds) for clip in clips))
