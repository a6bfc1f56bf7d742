"""Decode the clips of many videos in threads, a little ahead of the model that reads them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipbert.errors import VideoError
from clipbert.evidence import read_clips
from clipbert.sampling import SamplingPlan


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
    videos: Sequence[tuple[str, Path]],
    plan: SamplingPlan,
    *,
    max_side_px: int,
    num_threads: int,
) -> Iterator[tuple[str, Path, DecodedVideo | VideoError]]:
    """Decode videos in threads and give them in their order.

    At most one video more than there are threads is held at a time.

    Args:
        videos: name and file of each.
        plan: which clips to decode.
        max_side_px: of the model, as for read_clips.
        num_threads: at least 1.

    Yields:
        Name, file, and the clips or what is wrong with the file. A picture is one clip, whatever
        the plan.
    """
    waiting: deque[tuple[str, Path, Future[DecodedVideo | VideoError]]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        for name, path in videos:
            waiting.append((name, path, pool.submit(_decode, path, plan, max_side_px)))
            if len(waiting) > num_threads:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)


def _next(
    waiting: deque[tuple[str, Path, Future[DecodedVideo | VideoError]]],
) -> tuple[str, Path, DecodedVideo | VideoError]:
    name, path, future = waiting.popleft()
    return name, path, future.result()


def _decode(path: Path, plan: SamplingPlan, max_side_px: int) -> DecodedVideo | VideoError:
    try:
        decoded = read_clips(path, plan, max_side_px=max_side_px, num_threads=1)
    except VideoError as error:
        return error
    clips, frames = decoded.clips, decoded.frames
    if len({clip.instants for clip in clips}) == 1:
        # A picture, or a video of one frame: the other clips would be the same again.
        clips, frames = clips[:1], frames[:1]
    return DecodedVideo(frames, tuple(clip.place_in(decoded.duration_seconds) for clip in clips))
