"""Find moments by text: nearest clips by vector, then the cross-encoder on the best videos' tokens.

Searches claimed together share their forward passes. Imports torch.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import torch
from sqlalchemy.orm import Session
from torch import Tensor

from clipbert.inference import MatchRequest, MatchResult, Predictor
from store.nearest_clips import nearest_clips
from store.searches import SearchRepository
from store.videos import VideoRepository
from workers.batching import batches_by_cost, forward_each
from workers.clip_scores import Candidate, places_of, rank_hits
from workers.errors import Interrupted, JobError
from workers.lease import Hold, Outcome
from workers.lifecycle import Workplace, leave_if_device_lost
from workers.ready_models import read_ready
from workers.serving import Serving

_DEFAULT_LIMIT: Final = 10


@dataclass
class _Search:
    """One search job at work."""

    hold: Hold
    text: str
    mode: str
    limit: int
    group_by: str
    video_ids: list[UUID] | None
    tags: list[str] | None
    candidates: list[Candidate] = field(default_factory=list)
    num_clips: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # by stage, in the order they ran
    is_open: bool = True

    @classmethod
    def of(cls, hold: Hold) -> "_Search":
        """Read a job's input."""
        wanted = hold.claim.input
        filters = wanted.get("filters") or {}
        return cls(
            hold=hold,
            text=wanted["text"],
            mode=wanted.get("mode") or "auto",
            limit=wanted.get("limit") or _DEFAULT_LIMIT,
            group_by=wanted.get("group_by") or "video",
            video_ids=[UUID(str(id_)) for id_ in filters.get("video_ids") or ()] or None,
            tags=filters.get("tags") or None,
        )


@dataclass(frozen=True)
class _Pair:
    """A search and one of its candidates, on their way to the cross-encoder."""

    search: _Search
    candidate: Candidate
    clips: list[int]  # indices, one for each row of the request's tokens
    request: MatchRequest


def run_searches(workplace: Workplace, holds: Sequence[Hold]) -> None:
    """Do search jobs together, each with its own outcome."""
    if not holds:
        return
    run = _Run(workplace)
    try:
        run.search(holds)
    except Exception as error:  # noqa: BLE001  what concerns all alike; settle logs it
        for hold in holds:
            run.settle(hold, error)
        leave_if_device_lost(error)


class _Run:
    """Searches that share their forward passes."""

    def __init__(self, workplace: Workplace) -> None:
        self._workplace = workplace
        self._settled: set[UUID] = set()

    def search(self, holds: Sequence[Hold]) -> None:
        """Run the stages, all searches together, and store what each found."""
        serving = read_ready(self._workplace)
        if serving is None:
            raise JobError(
                "no_active_generation", "nothing is indexed yet: no generation is active"
            )
        searches = [search for hold in holds if (search := self._read(hold)) is not None]
        self._recall(searches, serving)
        if serving.retrieval is not None:
            reranked = [search for search in searches if search.is_open and search.mode != "recall"]
            self._rerank(reranked, serving, self._workplace.models.get(serving.retrieval))
        for search in searches:
            if search.is_open:
                self._finish(search, serving, served_together=len(searches))

    def settle(self, hold: Hold, error: BaseException) -> None:
        """Give a job its outcome, once."""
        if hold.claim.id not in self._settled:
            self._settled.add(hold.claim.id)
            self._workplace.leases.settle(hold, error)

    def _read(self, hold: Hold) -> _Search | None:
        try:
            return _Search.of(hold)
        except (KeyError, TypeError, ValueError) as error:
            self.settle(hold, JobError("invalid_request", f"the search is malformed: {error!r}"))
            return None

    def _recall(self, searches: Sequence[_Search], serving: Serving) -> None:
        """Find each search's candidates by vector; one pass of the text encoder serves all."""
        begun = time.monotonic()
        predictor = self._workplace.models.get(serving.recall)

        def encode(batch: Sequence[_Search]) -> list[Tensor]:
            return list(predictor.encode_texts([search.text for search in batch]))

        for search, vector in zip(searches, forward_each(searches, encode), strict=True):
            if isinstance(vector, Exception):
                self._close(search, vector)
                continue
            try:
                search.hold.advance()
                with self._workplace.sessions.begin() as session:
                    self._find_candidates(session, search, vector, serving)
            except Exception as error:  # noqa: BLE001  the edge of a job: settle logs it
                self._close(search, error)
            search.seconds["recall"] = time.monotonic() - begun

    def _find_candidates(
        self, session: Session, search: _Search, vector: Tensor, serving: Serving
    ) -> None:
        settings = self._workplace.settings
        limit = max(settings.recall_clips, search.limit)
        takes_all = search.mode == "exhaustive" and serving.retrieval is not None
        found = nearest_clips(
            session,
            serving.generation.id,
            vector.tolist(),
            settings.exhaustive_clips + 1 if takes_all else limit,
            video_ids=search.video_ids,
            tags=search.tags,
        )
        if takes_all and len(found) > settings.exhaustive_clips:
            raise JobError(
                "too_many_clips",
                f"an exhaustive search compares at most {settings.exhaustive_clips} clips, and "
                "more match its filters",
            )
        search.num_clips = len(found)
        candidates: dict[UUID, Candidate] = {}
        for clip, uri, similarity in found:  # the most similar first, so videos come in order
            candidate = candidates.setdefault(
                clip.video_id, Candidate(clip.video_id, uri, clips={}, similarities={})
            )
            candidate.clips[clip.index] = clip
            candidate.similarities[clip.index] = similarity
        search.candidates = list(candidates.values())

    def _rerank(self, searches: Sequence[_Search], serving: Serving, predictor: Predictor) -> None:
        """Score candidates with the cross-encoder: pairs of all searches share its passes."""
        begun = time.monotonic()
        for search in searches:
            if search.mode != "exhaustive":
                most = max(self._workplace.settings.rerank_videos, search.limit)
                search.candidates = search.candidates[:most]
        pairs = self._pairs(searches, serving)
        limit = self._workplace.match_limit
        for batch in batches_by_cost(pairs, lambda pair: len(pair.clips), limit):
            going_on = [pair for pair in batch if self._goes_on(pair.search)]
            outcomes = forward_each(
                going_on,
                lambda some: predictor.match([pair.request for pair in some]),
                on_out_of_memory=lambda some: limit.lower_below(
                    sum(len(pair.clips) for pair in some)
                ),
            )
            for pair, outcome in zip(going_on, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    self._close(pair.search, outcome)
                else:
                    _note_match(pair, outcome)
        for search in searches:
            stage = "exhaustive" if search.mode == "exhaustive" else "rerank"
            search.seconds[stage] = time.monotonic() - begun

    def _pairs(self, searches: Sequence[_Search], serving: Serving) -> Iterator[_Pair]:
        for search in searches:
            for candidate in tuple(search.candidates):
                if not search.is_open:
                    break
                try:
                    pair = self._pair(search, candidate, serving)
                except Exception as error:  # noqa: BLE001  the edge of a job: settle logs it
                    self._close(search, error)
                    break
                if pair is not None:
                    yield pair

    def _pair(self, search: _Search, candidate: Candidate, serving: Serving) -> _Pair | None:
        """Load the tokens of a candidate's clips: all, or those nearest to the text if too many.

        None if the video was deleted since it was found.
        """
        most = self._workplace.settings.rerank_clips_per_video
        if search.mode != "exhaustive":
            with self._workplace.sessions.begin() as session:
                clips = VideoRepository(session).clips(candidate.video_id, serving.generation.id)
            if not clips:
                search.candidates = [other for other in search.candidates if other is not candidate]
                return None
            candidate.clips = {clip.index: clip for clip in clips}
        indices = sorted(candidate.clips)
        places = places_of([candidate.clips[index] for index in indices])
        place_of = dict(zip(indices, places, strict=True))
        if len(indices) > most and search.mode != "exhaustive":
            # Clips that recall did not return are less similar than those it did.
            known = candidate.similarities
            nearest = sorted(indices, key=lambda index: (-known.get(index, -1.0), index))
            indices = sorted(nearest[:most])
        key = candidate.clips[indices[0]].tokens_key
        tokens = self._workplace.tokens.get(key)[torch.tensor(indices)]  # (K, h, w, D)
        request = MatchRequest(tokens, search.text, tuple(place_of[index] for index in indices))
        return _Pair(search, candidate, indices, request)

    def _finish(self, search: _Search, serving: Serving, *, served_together: int) -> None:
        model = serving.retrieval if len(search.seconds) > 1 else None
        hits = rank_hits(search.candidates, group_by=search.group_by, limit=search.limit)
        result: dict[str, Any] = {
            "hits": hits,
            "stages": list(search.seconds),
            "candidates": search.num_clips,
            "model_id": None if model is None else str(model.id),
            "model": None if model is None else model.name,
            "generation_id": str(serving.generation.id),
            "recall_model_id": str(serving.recall.id),
            "recall_model": serving.recall.name,
            "seconds": {stage: round(value, 4) for stage, value in search.seconds.items()},
            "served_together": served_together,
        }

        def write(session: Session) -> Outcome:
            SearchRepository(session).complete(
                search.hold.claim.id,
                result,
                model_id=None if model is None else model.id,
                generation_id=serving.generation.id,
            )
            return Outcome(result)

        try:
            self._workplace.leases.finish(search.hold, write)
            self._settled.add(search.hold.claim.id)
        except Exception as error:  # noqa: BLE001  the edge of a job: settle logs it
            self._close(search, error)

    def _goes_on(self, search: _Search) -> bool:
        if search.is_open:
            try:
                search.hold.advance()
            except Interrupted as interruption:
                self._close(search, interruption)
        return search.is_open

    def _close(self, search: _Search, error: BaseException) -> None:
        search.is_open = False
        self.settle(search.hold, error)


def _note_match(pair: _Pair, match: MatchResult) -> None:
    pair.candidate.match_score = match.score
    pair.candidate.clip_scores = dict(
        zip(pair.clips, match_probabilities(match.clip_logits), strict=True)
    )


def match_probabilities(clip_logits: Tensor) -> list[float]:
    """Turn each clip's logits, (K, 2) or (K, 1), into its own P(match)."""
    logits = clip_logits.float()
    if logits.shape[1] == 1:
        return [float(value) for value in logits[:, 0].sigmoid()]
    return [float(value) for value in logits.softmax(dim=1)[:, 1]]
