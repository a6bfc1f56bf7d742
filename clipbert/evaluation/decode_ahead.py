"""Decode the clips of many videos in threads, a little ahead of the model that reads them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from clipbert.datasets.annotation import Span
from clipbert.errors import VideoError
from clipbert.inference.clips import DecodedClips, read_clips
from clipbert.sampling.plan import SamplingPlan


def decode_ahead(
    videos: Sequence[tuple[Path, Span]],
    plan: SamplingPlan,
    *,
    max_side_px: int,
    num_threads: int,
) -> Iterator[DecodedClips | VideoError]:
    """Decode videos in threads and yield them in their order.

    At most one video more than there are threads is held at a time.

    Args:
        videos: file of each, and the part of it to look at.
        plan: which clips to decode.
        max_side_px: of the model, as for read_clips.
        num_threads: at least 1.

    Yields:
        The clips, or what is wrong with the file. A picture is one clip, whatever the plan.
    """
    waiting: deque[Future[DecodedClips | VideoError]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        for path, span in videos:
            waiting.append(pool.submit(_decode, path, span, plan, max_side_px))
            if len(waiting) > num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _decode(
    path: Path, span: Span, plan: SamplingPlan, max_side_px: int
) -> DecodedClips | VideoError:
    try:
        return read_clips(path, plan, span=span, max_side_px=max_side_px, num_threads=1).distinct()
    except VideoError as error:
        return error
