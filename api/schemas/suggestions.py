"""Suggestions of what to label, as the API shows them."""

from typing import Literal, cast
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.player_clock import show_answer
from api.schemas.questions import Answer, QuestionResult
from api.schemas.resources import Resource
from store.results.suggestions import Suggestion
from store.results.trials import TrialSource

SUGGESTION_EXAMPLE: JsonDict = {
    "task": "qa",
    "source": "unlabelled",
    "video_id": "0198c0de-8b52-7d0f-8a43-0c9e5d7f1b22",
    "uri": "file:///videos/parrot.mp4",
    "filename": "parrot.mp4",
    "question": "What animal is this?",
    "choices": None,
    "score": 0.88,
    "entropy": 0.86,
    "disagreement": 0.12,
    "start_seconds": 3.1,
    "end_seconds": 6.2,
    "answers": [
        {"answer": "a parrot", "probability": 0.41, "logit": 4.2},
        {"answer": "a dog", "probability": 0.37, "logit": 4.1},
    ],
    "zero_shot": False,
    "question_id": "0198c0e0-4444-7aaa-8bbb-1234567890ab",
    "model_id": "0198c0d0-3333-7aaa-8bbb-1234567890ab",
    "is_current": True,
    "label": {
        "video": "0198c0de-8b52-7d0f-8a43-0c9e5d7f1b22",
        "question": "What animal is this?",
        "choices": None,
        "answer": None,
        "start_seconds": None,
        "end_seconds": None,
    },
}

SuggestedTask = Literal["qa", "multiple_choice"]


class LabelToFill(Resource):
    """A body for POST /v1/labels; what is missing is the answer, which only a person knows."""

    video: UUID
    question: str
    choices: list[str] | None
    answer: None = Field(default=None, description="to be filled in")
    start_seconds: None = Field(
        default=None, description="null: the label is about the whole video"
    )
    end_seconds: None = None


class SuggestionResource(Resource):
    """A question about a video whose answer by a person would teach the model much."""

    model_config = ConfigDict(json_schema_extra={"examples": [SUGGESTION_EXAMPLE]})

    task: SuggestedTask
    source: TrialSource = Field(
        description="asked: somebody asked it; unlabelled: often labelled or asked elsewhere, and "
        "put by the service to a video without labels"
    )
    video_id: UUID
    uri: str
    filename: str | None
    question: str
    choices: list[str] | None
    score: float = Field(
        description="what a label is worth, 0 to 1: 1 - (1 - entropy) * (1 - disagreement)"
    )
    entropy: float
    disagreement: float
    start_seconds: float = Field(description="of the moment to look at: it holds half of the doubt")
    end_seconds: float
    answers: list[Answer] = Field(description="what the model finds likeliest, the best first")
    zero_shot: bool
    question_id: UUID = Field(description="has the answer with its evidence")
    model_id: UUID | None
    is_current: bool = Field(
        description="whether the model that serves now gave the answer; if not, the service asks "
        "it as soon as it has nothing else to do"
    )
    label: LabelToFill


def suggestion_resource(suggestion: Suggestion, *, serving_id: UUID | None) -> SuggestionResource:
    """Show a suggestion.

    Args:
        suggestion: with an answer whose uncertainty is known.
        serving_id: the model that answers such questions now; None if none does.
    """
    question, video = suggestion.question, suggestion.video
    result = QuestionResult.model_validate(show_answer(question.result or {}, video))
    if result.uncertainty is None:
        raise ValueError(f"question {question.id} has a rating and no measurement")
    choices = question.input.get("choices")
    return SuggestionResource(
        task=cast("SuggestedTask", result.task),
        source=suggestion.source,
        video_id=video.id,
        uri=video.uri,
        filename=video.filename,
        question=question.text,
        choices=choices,
        score=result.uncertainty.score,
        entropy=result.uncertainty.entropy,
        disagreement=result.uncertainty.disagreement,
        start_seconds=result.uncertainty.start_seconds,
        end_seconds=result.uncertainty.end_seconds,
        answers=result.answers,
        zero_shot=result.zero_shot,
        question_id=question.id,
        model_id=question.model_id,
        is_current=serving_id is not None and question.model_id == serving_id,
        label=LabelToFill(video=video.id, question=question.text, choices=choices),
    )
