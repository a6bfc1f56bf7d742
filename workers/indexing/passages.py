"""How a video is parted into passages: stretches that are decoded in order, each in one go.

A frame can only be decoded after the keyframe before it. A passage begins at a keyframe, so that
two passages of a video decode nothing twice and can run in two threads; a video with one keyframe
is one passage, however long it is. Pure.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

from clipbert.sampling.plan import Clip

_LEAST_CLIPS: Final = 8  # a passage costs an open file and a seek


def part_into_passages(
    clips: Sequence[Clip], keyframe_seconds: Sequence[float], *, most: int
) -> list[list[Clip]]:
    """Part the clips of a video where a keyframe lies between two of them.

    Args:
        clips: by their instants, ascending.
        keyframe_seconds: of the video, ascending; those that are known.
        most: how many passages, at least 1.

    Returns:
        The clips in their order, in passages of about the same length.
    """
    wanted = max(1, min(most, len(clips) // _LEAST_CLIPS))
    passages: list[list[Clip]] = [[]]
    for clip in clips:
        passage = passages[-1]
        is_long_enough = len(passage) * wanted >= len(clips)
        if is_long_enough and _parts(keyframe_seconds, passage[-1], clip):
            passages.append([])
        passages[-1].append(clip)
    return [passage for passage in passages if passage]


def seconds_to_decode(
    clip: Clip, keyframe_seconds: Sequence[float], *, position_seconds: float
) -> float:
    """Return how much of a video has to be decoded to get to the end of a clip, in seconds.

    Args:
        clip: the next one.
        keyframe_seconds: of the video, ascending; those that are known.
        position_seconds: up to where the passage is decoded.
    """
    before = bisect_right(keyframe_seconds, min(clip.instants))
    keyframe = keyframe_seconds[before - 1] if before else 0.0
    return max(0.0, max(clip.instants) - max(keyframe, position_seconds))


def _parts(keyframe_seconds: Sequence[float], last: Clip, following: Clip) -> bool:
    place = bisect_left(keyframe_seconds, max(last.instants))
    return place < len(keyframe_seconds) and keyframe_seconds[place] <= min(following.instants)
