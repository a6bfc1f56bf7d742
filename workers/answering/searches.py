"""Find moments by text: nearest clips by vector, then the cross-encoder on their tokens.

A search is begun (its text's vector, its candidates, in one step) and then scored in slices that
workers.answering.interactive takes in turn with those of others. An exhaustive search reads the
library video by video, in the order of their ids, holds no more than a few numbers for each clip,
and keeps what it has scored, so that another worker goes on from there. Imports torch.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Final
from uuid import UUID

from torch import Tensor

from clipbert.inference.clipbert import ClipBert
from clipbert.inference.results import sum_up_match
from policy.serving import Serving
from store.models.tables import Model
from store.videos.nearest_clips import (
    FoundClip,
    clips_after,
    clips_at,
    clips_nearest_in_videos,
    count_matching,
    nearest_clips,
)
from store.videos.tables import Clip
from workers.answering.clip_scores import Candidate, match_probabilities, place_in
from workers.answering.library_scores import LibraryScores, VideoScores, read_scores
from workers.answering.searches_at_work import Search
from workers.child.context import WorkerContext
from workers.errors import JobError
from workers.jobs.batching import forward_each
from workers.jobs.group import JobGroup
from workers.jobs.lease import RunningJob
from workers.models.loaded_models import LoadedModels
from workers.models.pair_slices import PairRow, score_slice

_SPARE_VIDEOS: Final = 4  # take the places of videos that are deleted while they are scored
_PAGE_VIDEOS: Final = 32  # of an exhaustive search, read at once


class SearchDesk:
    """Works on the searches of one process.

    Args:
        context: of the process.
        group: of the jobs that people wait for.
    """

    def __init__(self, context: WorkerContext, group: JobGroup) -> None:
        self._context = context
        self._group = group

    @property
    def _models(self) -> LoadedModels:
        return self._context.own(LoadedModels)

    def begin(self, jobs: Sequence[RunningJob], serving: Serving) -> list[Search]:
        """Find the candidates of searches; those that need no model more are finished.

        One pass of the text encoder serves all.

        Returns:
            Those that are to be scored, slice by slice.
        """
        if not jobs:  # the text encoder need not be loaded
            return []
        searches = []
        for job in jobs:
            search = self._group.attempt(partial(Search.of, job, serving, len(jobs)), job)
            if search is not None and self._group.advance(job):
                searches.append(search)
        self._group.attempt(
            partial(self._encode, searches, serving), *(search.job for search in searches)
        )
        to_score = []
        for search in searches:
            if search.vector and self._group.is_open(search.job):
                self._group.attempt(partial(self._find_candidates, search), search.job)
                if search.is_long or search.rows:
                    to_score.append(search)
                else:
                    self._finish(search)
        return [search for search in to_score if self._group.is_open(search.job)]

    def score(self, searches: Sequence[Search]) -> list[Search]:
        """Score a slice of some searches' pairs, those of the first search first.

        Returns:
            The searches that go on.
        """
        serving = searches[0].retrieval
        if serving is None:
            return []
        together = [each for each in searches if each.retrieval and each.retrieval.id == serving.id]
        search_of = {search.job.claim.id: search for search in together}
        model = self._group.attempt(
            partial(self._models.cache.get, serving), *(search.job for search in together)
        )
        if model is not None:
            over = score_slice(
                self._rows(together),
                group=self._group,
                model=model,
                head="retrieval",
                limit=self._models.match_limit,
            )
            for row in over:
                search = search_of[row.job.claim.id]
                self._group.attempt(partial(self._take_in, search, row, model), search.job)
        for search in together:
            if self._group.is_open(search.job):
                if not search.rows and (search.library is None or search.library.is_complete):
                    self._finish(search)
                elif search.library is not None:
                    self._keep_at_times(search)
        return [search for search in searches if self._group.is_open(search.job)]

    def keep(self, search: Search) -> None:
        """Store what an exhaustive search has scored and not stored yet."""
        if search.library is not None and self._group.is_open(search.job):
            self._group.attempt(
                partial(search.library.keep, self._context.sessions, search.job.claim),
                search.job,
            )

    def _encode(self, searches: Sequence[Search], serving: Serving) -> None:
        model = self._models.cache.get(serving.recall)

        def encode(batch: Sequence[Search]) -> list[Tensor]:
            return list(model.encode_texts([search.text for search in batch]))

        for search, vector in zip(searches, forward_each(searches, encode), strict=True):
            if isinstance(vector, Exception):
                self._group.settle(search.job, vector)
            else:
                search.vector = vector.tolist()

    def _find_candidates(self, search: Search) -> None:
        model = search.retrieval
        if model is not None and search.mode == "exhaustive":
            self._open_library(search, model)
        else:
            self._recall(search, reranks=model is not None)
        search.seconds["recall"] = time.monotonic() - search.begun_at

    def _open_library(self, search: Search, model: Model) -> None:
        settings, serving = self._context.settings, search.serving
        with self._context.sessions.begin() as session:
            search.num_clips = count_matching(
                session,
                serving.generation.id,
                limit=settings.exhaustive_clips + 1,
                **search.filters,
            )
            if search.num_clips > settings.exhaustive_clips:
                raise JobError(
                    "too_many_clips",
                    f"an exhaustive search compares at most {settings.exhaustive_clips} clips, and "
                    "more match its filters",
                )
            about = {
                "generation_id": str(serving.generation.id),
                "model_id": str(model.id),
                "recall_model_id": str(serving.recall.id),
            }
            search.library = read_scores(session, search.job.claim.id, about=about)

    def _recall(self, search: Search, *, reranks: bool) -> None:
        """Find the videos whose clips are nearest, and which of their clips are to be scored."""
        settings, generation_id = self._context.settings, search.serving.generation.id
        num_videos = max(settings.rerank_videos, search.limit) if reranks else search.limit
        with self._context.sessions.begin() as session:
            found = nearest_clips(
                session,
                generation_id,
                vector=search.vector,
                limit=max(settings.recall_clips, search.limit),
                num_videos=num_videos + (_SPARE_VIDEOS if reranks else 0),
                **search.filters,
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
            if reranks:
                considered = search.candidates[: num_videos + _SPARE_VIDEOS]
                clips = clips_nearest_in_videos(
                    session,
                    generation_id,
                    vector=search.vector,
                    video_ids=[candidate.video_id for candidate in considered],
                    limit=settings.rerank_clips_per_video,
                )
        if reranks:
            by_video = _by_video(clips)
            for candidate in considered:
                chosen = by_video.get(candidate.video_id, [])
                candidate.clips = {each.clip.index: each.clip for each in chosen}
                candidate.similarities = {each.clip.index: each.similarity for each in chosen}
                candidate.places = [place_in(each.clip, each.video_end_seconds) for each in chosen]
            search.spare = deque(candidate for candidate in considered if candidate.clips)
            search.candidates = []
            for _ in range(min(num_videos, len(search.spare))):
                self._add_row(search, search.spare.popleft())

    def _add_row(self, search: Search, candidate: Candidate) -> None:
        row = PairRow(
            search.job,
            search.text,
            places=candidate.places,
            load=partial(
                self._load_tokens, search, candidate.video_id, list(candidate.clips.values())
            ),
        )
        search.candidates.append(candidate)
        search.candidate_of[id(row)] = candidate
        search.rows.append(row)

    def _rows(self, searches: Sequence[Search]) -> Iterator[PairRow]:
        """Yield the rows to score next; those of the library are read when their turn comes."""
        for search in searches:
            yield from [row for row in search.rows if row.num_left]
            library = search.library
            while library and not library.is_complete and self._group.is_open(search.job):
                self._group.attempt(partial(self._turn_page, search, library), search.job)
                yield from [row for row in search.rows if row.num_left]

    def _turn_page(self, search: Search, library: LibraryScores) -> None:
        with self._context.sessions.begin() as session:
            clips = clips_after(
                session,
                search.serving.generation.id,
                vector=search.vector,
                after=library.read_to,
                num_videos=_PAGE_VIDEOS,
                **search.filters,
            )
        for video_id, found in _by_video(clips).items():
            library.read_to = video_id
            candidate = Candidate(
                video_id,
                "",
                clips={each.clip.index: each.clip for each in found},
                similarities={each.clip.index: each.similarity for each in found},
                places=[place_in(each.clip, each.video_end_seconds) for each in found],
            )
            self._add_row(search, candidate)
        search.candidates.clear()  # the library's are held as numbers
        library.is_complete = not clips

    def _load_tokens(self, search: Search, video_id: UUID, clips: Sequence[Clip]) -> Tensor | None:
        """Read the tokens of clips; None if their video was deleted since they were found."""
        key, indices = clips[0].tokens_key, [clip.index for clip in clips]
        try:
            return self._models.tokens.rows(key, indices, keep=not search.is_long)
        except JobError:
            # A deletion removes rows first, then blobs: while there are rows, the blob is lost.
            with self._context.sessions.begin() as session:
                places = [(video_id, index) for index in indices]
                if clips_at(session, search.serving.generation.id, places=places):
                    raise
            return None

    def _take_in(self, search: Search, row: PairRow, model: ClipBert) -> None:
        search.rows.remove(row)
        candidate = search.candidate_of.pop(id(row))
        if row.is_dropped:
            search.candidates = [other for other in search.candidates if other is not candidate]
            if search.spare:
                self._add_row(search, search.spare.popleft())
            return
        match = sum_up_match(row.logits, aggregation=model.config.aggregation)
        candidate.match_score = match.score
        candidate.clip_scores = dict(
            zip(candidate.clips, match_probabilities(match.clip_logits), strict=True)
        )
        if search.library is not None:
            search.library.add(VideoScores.of(candidate))

    def _keep_at_times(self, search: Search) -> None:
        now = time.monotonic()
        # One that was lost with a worker is tried alone, until it is seen to get further.
        is_suspect = search.job.claim.worker_losses > 0
        patience = self._context.settings.keep_seconds
        if now - search.kept_at < (min(1.0, patience) if is_suspect else patience):
            return
        search.kept_at = now
        self.keep(search)
        if search.library is not None and self._group.is_open(search.job):
            report = partial(
                self._context.leases.report_progress,
                search.job,
                done=search.library.num_clips,
                total=search.num_clips,
                stage="exhaustive",
            )
            self._group.attempt(report, search.job)

    def _finish(self, search: Search) -> None:
        if search.library is not None:
            search.num_clips = search.library.num_clips
            search.seconds["exhaustive"] = time.monotonic() - search.begun_at
        elif search.retrieval is not None:
            search.seconds["rerank"] = time.monotonic() - search.begun_at
        self._group.finish(search.job, search.write)


def _by_video(clips: Sequence[FoundClip]) -> dict[UUID, list[FoundClip]]:
    return {id_: list(some) for id_, some in groupby(clips, key=lambda each: each.clip.video_id)}
