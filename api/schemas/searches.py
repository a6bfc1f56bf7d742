"""Searches as the API takes and shows them."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.jobs import failure_of
from api.schemas.player_clock import show_search_result
from api.schemas.resources import Failure, RequestBody, Resource
from api.schemas.text import QueryText, Tags
from store.jobs.state import JobState, is_terminal
from store.jobs.tables import Job
from store.results.tables import Search
from store.videos.tables import Video

NEW_SEARCH_EXAMPLE: JsonDict = {
    "text": "a white parrot",
    "limit": 10,
    "filters": {"tags": ["birds"]},
}
SEARCH_EXAMPLE: JsonDict = {
    "id": "0198c0e0-1111-7aaa-8bbb-1234567890ab",
    "state": "succeeded",
    "done": True,
    "text": "a white parrot",
    "mode": "auto",
    "limit": 10,
    "group_by": "video",
    "filters": {"video_ids": [], "tags": ["birds"]},
    "result": {
        "hits": [
            {
                "rank": 1,
                "score": 0.41,
                "video_id": "0198c0de-8b52-7d0f-8a43-0c9e5d7f1b22",
                "uri": "file:///videos/parrot.mp4",
                "clip_index": 0,
                "start_seconds": 0.0,
                "end_seconds": 3.1,
                "instants": [1.56],
                "recall_score": 0.41,
                "match_score": None,
                "starts_at_seconds": 0.0,
                "is_missing": False,
                "moments": [
                    {"clip_index": 0, "start_seconds": 0.0, "end_seconds": 3.1, "score": 0.41}
                ],
            }
        ],
        "stages": ["recall"],
        "candidates": 37,
        "model_id": None,
        "model": None,
        "generation_id": "0198c0d0-2222-7aaa-8bbb-1234567890ab",
        "recall_model_id": "0198c0d0-3333-7aaa-8bbb-1234567890ab",
        "recall_model": "clipbert-mini",
        "seconds": {"recall": 0.012},
        "served_together": 1,
    },
    "error": None,
    "created_at": "2026-01-05T09:01:00Z",
    "finished_at": "2026-01-05T09:01:00.2Z",
}


class SearchFilters(RequestBody):
    """Which videos are looked at; an empty list sets no limit."""

    video_ids: list[UUID] = Field(default=[], max_length=1000)
    tags: Tags = Field(default=[], description="a video must have all of them")


class NewSearch(RequestBody):
    """A text to look for."""

    model_config = ConfigDict(json_schema_extra={"examples": [NEW_SEARCH_EXAMPLE]})

    text: QueryText
    mode: Literal["auto", "recall", "exhaustive"] = Field(
        default="auto",
        description="auto: recall, then the cross-encoder where a trained one serves; "
        "recall: vectors only; exhaustive: the cross-encoder on every clip, or as recall while no "
        "model with a trained retrieval head serves: `stages` says what was done",
    )
    limit: int = Field(default=10, ge=1, le=200)
    group_by: Literal["video", "clip"] = "video"
    filters: SearchFilters = SearchFilters()


class Moment(Resource):
    """A clip of a hit, with its own score."""

    clip_index: int
    start_seconds: float
    end_seconds: float
    score: float


class Hit(Resource):
    """A video, or a clip, that was found."""

    rank: int
    score: float = Field(description="match_score where there is one, else recall_score")
    video_id: UUID
    uri: str
    clip_index: int = Field(description="the best clip")
    start_seconds: float = Field(description="on a player's clock, as all seconds of a hit")
    end_seconds: float
    instants: list[float]
    recall_score: float | None = None
    match_score: float | None = Field(default=None, description="P(match) of the cross-encoder")
    starts_at_seconds: float = Field(
        default=0.0, description="what a player's clock shows at the video's first frame"
    )
    is_missing: bool = Field(
        default=False,
        description="the video was deleted, or its file was not there when last looked for",
    )
    moments: list[Moment] = Field(default=[])


class SearchResult(Resource):
    """What was found, by which stages and models."""

    hits: list[Hit]
    stages: list[str]
    candidates: int
    model_id: UUID | None = None
    model: str | None = None
    generation_id: UUID | None = None
    recall_model_id: UUID | None = None
    recall_model: str | None = None
    seconds: dict[str, float] = Field(default={})
    served_together: int = Field(default=1, description="jobs that shared the forward pass")


class FiltersUsed(Resource):
    """Which videos were looked at; an empty list set no limit."""

    video_ids: list[UUID] = Field(default=[])
    tags: list[str] = Field(default=[])


class SearchResource(Resource):
    """A search; its id is its job's."""

    model_config = ConfigDict(json_schema_extra={"examples": [SEARCH_EXAMPLE]})

    id: UUID
    state: JobState
    done: bool
    text: str
    mode: str
    limit: int
    group_by: str
    filters: FiltersUsed
    result: SearchResult | None
    error: Failure | None
    created_at: datetime
    finished_at: datetime | None


def found_video_ids(searches: Iterable[Search]) -> set[UUID]:
    """Return the ids of the videos that searches found."""
    hits = (hit for search in searches for hit in (search.result or {}).get("hits", []))
    return {UUID(hit["video_id"]) for hit in hits}


def search_resource(search: Search, job: Job, *, videos: Mapping[UUID, Video]) -> SearchResource:
    """Show a search.

    Args:
        search: its row.
        job: its job.
        videos: those that it found and that are there still.
    """
    asked = search.input  # as it was taken then: what is refused by now is shown all the same
    fields = NewSearch.model_fields
    return SearchResource(
        id=search.id,
        state=job.state,
        done=is_terminal(job.state),
        text=asked["text"],
        mode=asked.get("mode", fields["mode"].default),
        limit=asked.get("limit", fields["limit"].default),
        group_by=asked.get("group_by", fields["group_by"].default),
        filters=FiltersUsed.model_validate(asked.get("filters", {})),
        result=None
        if search.result is None
        else SearchResult.model_validate(show_search_result(search.result, videos)),
        error=failure_of(job.error_code, job.error_message),
        created_at=search.created_at,
        finished_at=job.finished_at,
    )
