"""Candidates of a search: videos with their clips, and what recall and the cross-encoder say."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from torch import Tensor

from clipbert.sampling.plan import clip_place
from store.videos.tables import Clip

_MAX_MOMENTS = 5


@dataclass
class Candidate:
    """One video in one search.

    Attributes:
        video_id: the video.
        uri: where it came from.
        clips: those that were scored; those that recall found if it ran alone.
        similarities: recall similarity by clip index, where it is known.
        places: where in the video the middle of each clip lies, 0 to 1, in the order of clips;
            empty after recall alone.
        match_score: P(match) of the video; None before the cross-encoder ran.
        clip_scores: P(match) by clip index, after the cross-encoder ran.
    """

    video_id: UUID
    uri: str
    clips: dict[int, Clip]
    similarities: dict[int, float]
    places: list[float] = field(default_factory=list)
    match_score: float | None = None
    clip_scores: dict[int, float] = field(default_factory=dict)

    @property
    def recall_score(self) -> float | None:
        """A video's recall score is its best clip's; None where none is known."""
        return max(self.similarities.values(), default=None)

    @property
    def score(self) -> float:
        """What the video is ranked by."""
        if self.match_score is not None:
            return self.match_score
        return max(self.similarities.values())

    @property
    def score_by_clip(self) -> dict[int, float]:
        """What the video's clips are ranked by."""
        return self.clip_scores or self.similarities

    def of_clip(self, index: int) -> "Candidate":
        """Return one clip as a hit of its own: its scores, not its video's."""
        return Candidate(
            self.video_id,
            self.uri,
            clips={index: self.clips[index]},
            similarities={i: each for i, each in self.similarities.items() if i == index},
            match_score=self.clip_scores.get(index),
            clip_scores={i: each for i, each in self.clip_scores.items() if i == index},
        )


def places_of(clips: Sequence[Clip]) -> tuple[float, ...]:
    """Return where in its video the middle of each clip lies, 0 to 1.

    Args:
        clips: all clips of a video. They tile it, as those of every generation do, so that it
            ends with the last of them.
    """
    end = max((clip.end_seconds for clip in clips), default=0.0)
    return tuple(place_in(clip, end) for clip in clips)


def place_in(clip: Clip, end_seconds: float) -> float:
    """Return where the middle of a clip lies in a video that ends there, 0 to 1."""
    return clip_place(clip.start_seconds, clip.end_seconds, duration_seconds=end_seconds)


def rank_hits(
    candidates: Sequence[Candidate], *, group_by: str, limit: int
) -> list[dict[str, Any]]:
    """Order what was found, best first; ties go by the video's id and the clip's index.

    Args:
        candidates: all with a match score, or none.
        group_by: `video` for one hit a video, at its best clip; `clip` for a hit a clip.
        limit: how many hits.
    """
    if group_by == "clip":
        pairs = [
            (candidate.of_clip(index), index, score)
            for candidate in candidates
            for index, score in candidate.score_by_clip.items()
        ]
    else:
        pairs = [
            (candidate, _ranked(candidate.score_by_clip)[0][0], candidate.score)
            for candidate in candidates
        ]
    pairs.sort(key=lambda pair: (-pair[2], pair[0].video_id, pair[1]))
    return [
        _hit(candidate, index, score, rank=rank)
        for rank, (candidate, index, score) in enumerate(pairs[:limit], start=1)
    ]


def match_probabilities(clip_logits: Tensor) -> list[float]:
    """Turn each clip's logits, (K, 2) or (K, 1), into its own P(match)."""
    logits = clip_logits.float()
    if logits.shape[1] == 1:
        return [float(value) for value in logits[:, 0].sigmoid()]
    return [float(value) for value in logits.softmax(dim=1)[:, 1]]


def _hit(candidate: Candidate, index: int, score: float, *, rank: int) -> dict[str, Any]:
    clip = candidate.clips[index]
    best = _ranked(candidate.score_by_clip)[:_MAX_MOMENTS]
    return {
        "rank": rank,
        "score": score,
        "video_id": str(candidate.video_id),
        "uri": candidate.uri,
        "clip_index": index,
        "start_seconds": clip.start_seconds,
        "end_seconds": clip.end_seconds,
        "instants": list(clip.instants),
        "recall_score": candidate.recall_score,
        "match_score": candidate.match_score,
        "moments": [
            {
                "clip_index": moment,
                "start_seconds": candidate.clips[moment].start_seconds,
                "end_seconds": candidate.clips[moment].end_seconds,
                "score": moment_score,
            }
            for moment, moment_score in best
        ],
    }


def _ranked(scores: dict[int, float]) -> list[tuple[int, float]]:
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
