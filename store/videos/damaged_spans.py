"""The spans of a video in which nothing sound can be decoded: joined, ordered and bounded."""

import math
from collections.abc import Iterable, Sequence

MAX_SPANS = 256
"""A video with more is told with the gaps between the nearest of them left out."""


def join_spans(spans: Iterable[Sequence[float]]) -> list[list[float]]:
    """Join spans that meet or overlap.

        join_spans([(4, 5), (0, 1), (1, 2)])  ->  [[0.0, 2.0], [4.0, 5.0]]

    Args:
        spans: start and end of each in seconds, in any order.

    Returns:
        At most MAX_SPANS spans, ascending and apart, that cover all that were given.

    Raises:
        ValueError: a span ends before it starts, or is not made of finite numbers from 0 on.
    """
    joined: list[list[float]] = []
    for start, end in sorted((float(start), float(end)) for start, end in spans):
        if not (math.isfinite(end) and 0 <= start <= end):
            raise ValueError(f"a damaged span is [start, end] in seconds, got [{start}, {end}]")
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return _bounded(joined)


def _bounded(spans: list[list[float]]) -> list[list[float]]:
    too_many = len(spans) - MAX_SPANS
    if too_many <= 0:
        return spans
    gap_before = {i: spans[i][0] - spans[i - 1][1] for i in range(1, len(spans))}
    closed = set(sorted(gap_before, key=gap_before.__getitem__)[:too_many])
    bounded: list[list[float]] = []
    for i, span in enumerate(spans):
        if i in closed:
            bounded[-1][1] = span[1]
        else:
            bounded.append(span)
    return bounded
