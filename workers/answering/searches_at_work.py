"""A search job at work: what was asked, how far it is, and what was found."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy.orm import Session

from policy.serving import Serving
from store.models.tables import Model
from store.results.searches import SearchRepository
from store.videos.repository import VideoRepository
from workers.answering.clip_scores import Candidate, rank_hits
from workers.answering.library_scores import LibraryScores
from workers.errors import JobError
from workers.jobs.lease import Outcome, RunningJob
from workers.models.pair_slices import PairRow

_DEFAULT_LIMIT: Final = 10


@dataclass
class Search:
    """One search job at work."""

    job: RunningJob
    text: str
    mode: str
    limit: int
    group_by: str
    video_ids: list[UUID] | None
    tags: list[str] | None
    serving: Serving
    served_together: int
    vector: list[float] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    spare: deque[Candidate] = field(default_factory=deque)
    rows: deque[PairRow] = field(default_factory=deque)
    candidate_of: dict[int, Candidate] = field(default_factory=dict)  # by id() of the row
    library: LibraryScores | None = None  # of an exhaustive search
    num_clips: int = 0
    begun_at: float = field(default_factory=time.monotonic)
    kept_at: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)  # by stage, in the order they ran

    @classmethod
    def of(cls, job: RunningJob, serving: Serving, served_together: int) -> "Search":
        """Read a job's input.

        Raises:
            JobError: `invalid_request`.
        """
        wanted = job.claim.input
        try:
            filters = wanted.get("filters") or {}
            return cls(
                job=job,
                text=wanted["text"],
                mode=wanted.get("mode") or "auto",
                limit=wanted.get("limit") or _DEFAULT_LIMIT,
                group_by=wanted.get("group_by") or "video",
                video_ids=[UUID(str(id_)) for id_ in filters.get("video_ids") or ()] or None,
                tags=filters.get("tags") or None,
                serving=serving,
                served_together=served_together,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise JobError("invalid_request", f"the search is malformed: {error!r}") from error

    @property
    def retrieval(self) -> Model | None:
        """The model that scores pairs for it; None if recall has the last word."""
        return None if self.mode == "recall" else self.serving.retrieval

    @property
    def is_long(self) -> bool:
        """Whether it scores as much as there is, so that others go first."""
        return self.library is not None

    @property
    def num_pairs(self) -> int:
        """How many pairs of the text and a clip wait to be scored, as far as they are known."""
        return sum(row.num_left for row in self.rows)

    @property
    def filters(self) -> Mapping[str, Any]:
        """As the store's functions take them."""
        return {"video_ids": self.video_ids, "tags": self.tags}

    def write(self, session: Session) -> Outcome:
        """Store what was found; videos that are gone by now are left out."""
        serving, model = self.serving, self.retrieval
        if self.library is None:
            ids = [candidate.video_id for candidate in self.candidates]
            known = VideoRepository(session).existing(ids)
            candidates = [candidate for candidate in self.candidates if candidate.video_id in known]
        else:
            candidates = self.library.best(
                session,
                serving.generation.id,
                group_by=self.group_by,
                limit=self.limit,
            )
        result: dict[str, Any] = {
            "hits": rank_hits(candidates, group_by=self.group_by, limit=self.limit),
            "stages": list(self.seconds),
            "candidates": self.num_clips,
            "model_id": None if model is None else str(model.id),
            "model": None if model is None else model.name,
            "generation_id": str(serving.generation.id),
            "recall_model_id": str(serving.recall.id),
            "recall_model": serving.recall.name,
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
            "served_together": self.served_together,
        }
        SearchRepository(session).complete(
            self.job.claim.id,
            result,
            model_id=None if model is None else model.id,
            generation_id=serving.generation.id,
        )
        return Outcome(result)
