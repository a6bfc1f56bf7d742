"""Seconds on a player's clock, as people are given them and give them.

Inside, the seconds of a video count from its first frame. Where the picture begins later than the
file's clock, as behind sound that begins earlier, a player shows more.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from store.errors import IllegalLabel
from store.videos.tables import Video

_DECIMALS = 6  # what adding leaves behind of binary fractions is less than a microsecond


def on_player_clock(seconds: float, starts_at_seconds: float) -> float:
    """Return what a player shows at so many seconds from the first frame."""
    if starts_at_seconds == 0:
        return seconds
    return round(seconds + starts_at_seconds, _DECIMALS)


def show_moment(moment: Mapping[str, Any], starts_at_seconds: float) -> dict[str, Any]:
    """Return a moment (of a hit, a clip, a doubt) with its seconds on the player's clock."""
    shown = dict(moment)
    for name in ("start_seconds", "end_seconds"):
        if shown.get(name) is not None:
            shown[name] = on_player_clock(shown[name], starts_at_seconds)
    if "instants" in shown:
        shown["instants"] = [on_player_clock(each, starts_at_seconds) for each in shown["instants"]]
    return shown


def show_search_result(result: dict[str, Any], videos: Mapping[UUID, Video]) -> dict[str, Any]:
    """Return what a search found with the player's seconds, and with the files that are missing.

    Args:
        result: as stored.
        videos: those of its hits that are there still.
    """
    hits = []
    for hit in result.get("hits", []):
        video = videos.get(UUID(hit["video_id"]))
        starts_at = 0.0 if video is None else video.starts_at_seconds
        shown = show_moment(hit, starts_at)
        shown["moments"] = [show_moment(each, starts_at) for each in hit.get("moments", [])]
        shown["starts_at_seconds"] = starts_at
        shown["is_missing"] = video is None or video.missing_since is not None
        hits.append(shown)
    return {**result, "hits": hits}


def show_answer(result: dict[str, Any], video: Video | None) -> dict[str, Any]:
    """Return an answer with its evidence in the player's seconds."""
    starts_at = 0.0 if video is None else video.starts_at_seconds
    shown = {**result, "starts_at_seconds": starts_at}
    shown["evidence"] = [show_moment(each, starts_at) for each in result.get("evidence", [])]
    if result.get("uncertainty") is not None:
        shown["uncertainty"] = show_moment(result["uncertainty"], starts_at)
    return shown


def take_span(
    start_seconds: float | None, end_seconds: float | None, *, starts_at_seconds: float
) -> tuple[float | None, float | None]:
    """Turn a span that somebody read off a player into seconds from the first frame.

    Raises:
        IllegalLabel: it ends before the first frame.
    """
    if starts_at_seconds == 0:
        return start_seconds, end_seconds
    start, end = start_seconds, end_seconds
    if end is not None and end > (start or 0.0):
        if end <= starts_at_seconds:
            raise IllegalLabel(
                "invalid_span",
                f"a span cannot end at {end} s: the video's first frame is shown at "
                f"{starts_at_seconds} s",
            )
        end = round(end - starts_at_seconds, _DECIMALS)
    if start is not None and start >= 0:
        start = round(max(0.0, start - starts_at_seconds), _DECIMALS)
    return start, end
