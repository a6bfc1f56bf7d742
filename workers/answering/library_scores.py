"""What an exhaustive search knows so far: a few numbers for each clip, and how far it is.

It is kept in pieces in the database, so that another worker goes on after the last of them.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from store.database import Sessions, run_in_transaction
from store.jobs.pieces import JobPieces, Piece
from store.jobs.records import ClaimedJob
from store.videos.nearest_clips import clips_at
from workers.answering.clip_scores import Candidate


@dataclass(frozen=True)
class VideoScores:
    """The scores of one video.

    Attributes:
        video_id: whose they are.
        score: P(match) of the video.
        indices: of its clips, ascending, (K,) int32.
        clip_scores: P(match) of each, (K,) float32.
        similarities: recall similarity of each, (K,) float32.
    """

    video_id: UUID
    score: float
    indices: NDArray[np.int32]
    clip_scores: NDArray[np.float32]
    similarities: NDArray[np.float32]

    @classmethod
    def of(cls, candidate: Candidate) -> "VideoScores":
        """Take what the cross-encoder said of a video."""
        indices = sorted(candidate.clips)
        return cls(
            candidate.video_id,
            candidate.score,
            np.array(indices, np.int32),
            np.array([candidate.clip_scores[index] for index in indices], np.float32),
            np.array([candidate.similarities[index] for index in indices], np.float32),
        )


@dataclass
class LibraryScores:
    """The scores of an exhaustive search so far.

    Attributes:
        about: what they were made by; scores of other models are not mixed with them.
        videos: in the order of their ids.
        read_to: the last video that was read, whether it is scored yet or not.
        is_complete: there is no video after it.
    """

    about: Mapping[str, Any]
    videos: list[VideoScores] = field(default_factory=list)
    read_to: UUID | None = None
    is_complete: bool = False
    _num_kept: int = 0

    @property
    def num_clips(self) -> int:
        """How many clips are scored."""
        return sum(len(video.indices) for video in self.videos)

    def add(self, video: VideoScores) -> None:
        """Add a video that is scored."""
        self.videos.append(video)

    def keep(self, sessions: Sessions, claim: ClaimedJob) -> None:
        """Store the scores that are not stored yet. Raises LeaseLost."""
        new = self.videos[self._num_kept :]
        if not new:
            return
        piece = Piece(dict(self.about), _pack(new))
        run_in_transaction(sessions, lambda session: JobPieces(session).add(claim, piece))
        self._num_kept += len(new)

    def best(
        self, session: Session, generation_id: UUID, *, group_by: str, limit: int
    ) -> list[Candidate]:
        """Find the best videos that are still there, or those that have the best clips.

        Args:
            session: in a transaction of the caller's.
            generation_id: whose clips were scored.
            group_by: `video` ranks by the videos' scores, `clip` by those of their best clips.
            limit: how many videos at most. So many hold the best `limit` clips too.
        """
        candidates: list[Candidate] = []
        for video in self._ranked(group_by):
            if len(candidates) == limit:
                break
            candidate = _to_candidate(session, generation_id, video)
            if candidate is not None:
                candidates.append(candidate)
        return candidates

    def _ranked(self, group_by: str) -> list[VideoScores]:
        def rank(video: VideoScores) -> tuple[float, UUID]:
            best = video.score if group_by == "video" else float(video.clip_scores.max())
            return -best, video.video_id

        return sorted(self.videos, key=rank)


def read_scores(session: Session, job_id: UUID, *, about: Mapping[str, Any]) -> LibraryScores:
    """Read what the workers before have scored of a job, by the same models."""
    scores = LibraryScores(about)
    for piece in JobPieces(session).list(job_id):
        if piece.about == dict(about):
            scores.videos += _unpack(piece.content)
    scores._num_kept = len(scores.videos)
    scores.read_to = max((video.video_id for video in scores.videos), default=None)
    return scores


def _pack(videos: list[VideoScores]) -> bytes:
    content = io.BytesIO()
    np.savez(
        content,
        ids=np.frombuffer(b"".join(video.video_id.bytes for video in videos), np.uint8),
        scores=np.array([video.score for video in videos]),
        lengths=np.array([len(video.indices) for video in videos]),
        indices=np.concatenate([video.indices for video in videos]),
        clip_scores=np.concatenate([video.clip_scores for video in videos]),
        similarities=np.concatenate([video.similarities for video in videos]),
    )
    return content.getvalue()


def _unpack(content: bytes) -> list[VideoScores]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        ids = [UUID(bytes=bytes(row)) for row in arrays["ids"].reshape(-1, 16)]
        ends = np.cumsum(arrays["lengths"])[:-1]
        columns = [
            np.split(arrays[name], ends) for name in ("indices", "clip_scores", "similarities")
        ]
        scores = arrays["scores"].tolist()
    return [VideoScores(*fields) for fields in zip(ids, scores, *columns, strict=True)]


def _to_candidate(session: Session, generation_id: UUID, video: VideoScores) -> Candidate | None:
    indices = video.indices.tolist()
    found = clips_at(session, generation_id, places=[(video.video_id, index) for index in indices])
    if not found:
        return None
    clips = {clip.index: clip for clip, _ in found}
    scores = zip(indices, video.clip_scores.tolist(), video.similarities.tolist(), strict=True)
    known = [(index, score, similar) for index, score, similar in scores if index in clips]
    return Candidate(
        video.video_id,
        found[0][1],
        clips=clips,
        similarities={index: similar for index, _, similar in known},
        match_score=video.score,
        clip_scores={index: score for index, score, _ in known},
    )
