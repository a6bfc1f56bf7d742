"""Questions as the API takes and shows them."""

from datetime import datetime
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.jobs import failure_of
from api.schemas.player_clock import show_answer
from api.schemas.resources import Failure, RequestBody, Resource
from api.schemas.text import Choices, QueryText
from store.jobs.state import JobState, is_terminal
from store.jobs.tables import Job
from store.results.tables import Question
from store.videos.tables import Video

NEW_QUESTION_EXAMPLE: JsonDict = {
    "video_id": "0198c0de-8b52-7d0f-8a43-0c9e5d7f1b22",
    "text": "What animal is this?",
    "choices": ["a parrot", "a dog", "a squirrel"],
}
QUESTION_EXAMPLE: JsonDict = {
    "id": "0198c0e0-4444-7aaa-8bbb-1234567890ab",
    "state": "succeeded",
    "done": True,
    "video_id": "0198c0de-8b52-7d0f-8a43-0c9e5d7f1b22",
    "text": "What animal is this?",
    "choices": ["a parrot", "a dog", "a squirrel"],
    "top_k": 5,
    "result": {
        "answer": "a parrot",
        "answers": [
            {"answer": "a parrot", "probability": 0.61, "logit": 4.2},
            {"answer": "a dog", "probability": 0.22, "logit": 3.2},
            {"answer": "a squirrel", "probability": 0.17, "logit": 2.9},
        ],
        "zero_shot": True,
        "abstained": False,
        "task": "multiple_choice",
        "aggregation": "lse",
        "evidence": [
            {
                "clip_index": 0,
                "start_seconds": 0.0,
                "end_seconds": 3.1,
                "instants": [1.56],
                "share": 0.4,
                "logit": 4.4,
            }
        ],
        "uncertainty": {
            "score": 0.88,
            "entropy": 0.86,
            "disagreement": 0.12,
            "start_seconds": 0.0,
            "end_seconds": 3.1,
        },
        "model_id": "0198c0d0-3333-7aaa-8bbb-1234567890ab",
        "model": "clipbert-mini",
        "generation_id": "0198c0d0-2222-7aaa-8bbb-1234567890ab",
        "starts_at_seconds": 0.0,
        "served_together": 1,
    },
    "error": None,
    "created_at": "2026-01-05T09:02:00Z",
    "finished_at": "2026-01-05T09:02:00.2Z",
}


class NewQuestion(RequestBody):
    """A question about one video: with choices, or open-ended where a QA model serves."""

    model_config = ConfigDict(json_schema_extra={"examples": [NEW_QUESTION_EXAMPLE]})

    video_id: UUID
    text: QueryText
    choices: Choices | None = Field(
        default=None, description="null asks the serving QA model for an answer of its own"
    )
    top_k: int = Field(default=5, ge=1, le=100)


class Answer(Resource):
    """A possible answer, and how likely the model finds it."""

    answer: str
    probability: float
    logit: float


class Evidence(Resource):
    """What one clip said for the best answer."""

    clip_index: int
    start_seconds: float = Field(description="on a player's clock, as all seconds of an answer")
    end_seconds: float
    instants: list[float]
    share: float = Field(description="of the clip in the aggregated score, 0 to 1")
    logit: float


class AnswerUncertainty(Resource):
    """How unsure an answer is, from 0 to 1, and where in the video."""

    score: float = Field(
        description="1 - (1 - entropy) * (1 - disagreement): how much a label is worth"
    )
    entropy: float = Field(description="of the answer over all that it could be; 1: all alike")
    disagreement: float = Field(
        description="Jensen-Shannon divergence of what the clips say; 1: as much as can be"
    )
    start_seconds: float = Field(
        description="where the shortest run of clips begins that holds half of the doubt"
    )
    end_seconds: float


class QuestionResult(Resource):
    """The answer, the runners-up and the moments that speak for it."""

    answer: str
    answers: list[Answer]
    zero_shot: bool = Field(description="ranked by vectors, no trained head took part")
    abstained: bool = False
    task: str
    aggregation: str | None = None
    evidence: list[Evidence] = Field(default=[])
    uncertainty: AnswerUncertainty | None = Field(
        default=None, description="null for answers given before it was measured"
    )
    model_id: UUID | None = None
    model: str | None = None
    generation_id: UUID | None = None
    starts_at_seconds: float = Field(
        default=0.0, description="what a player's clock shows at the video's first frame"
    )
    served_together: int = 1


class QuestionResource(Resource):
    """A question; its id is its job's."""

    model_config = ConfigDict(json_schema_extra={"examples": [QUESTION_EXAMPLE]})

    id: UUID
    state: JobState
    done: bool
    video_id: UUID | None = Field(description="null when the video was deleted")
    text: str
    choices: list[str] | None
    top_k: int
    result: QuestionResult | None
    error: Failure | None
    created_at: datetime
    finished_at: datetime | None


def question_resource(question: Question, job: Job, *, video: Video | None) -> QuestionResource:
    """Show a question about a video, which may have been deleted."""
    asked = question.input  # as it was taken then: what is refused by now is shown all the same
    return QuestionResource(
        id=question.id,
        state=job.state,
        done=is_terminal(job.state),
        video_id=question.video_id,
        text=asked["text"],
        choices=asked.get("choices"),
        top_k=asked.get("top_k", NewQuestion.model_fields["top_k"].default),
        result=None
        if question.result is None
        else QuestionResult.model_validate(show_answer(question.result, video)),
        error=failure_of(job.error_code, job.error_message),
        created_at=question.created_at,
        finished_at=job.finished_at,
    )
