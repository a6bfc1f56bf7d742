"""Labels as the API takes and shows them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    field_validator,
)
from pydantic.config import JsonDict

from api.schemas.player_clock import show_moment
from api.schemas.resources import RequestBody, Resource, never_null
from api.schemas.text import MAX_CHOICES, Choices, QueryText, refuse_boolean
from clipbert.datasets.kinds import write_line
from policy.texts import Metadata, Name, check_said
from policy.video_references import describe_superseded
from store.labels.tables import Label, LabelRevision
from store.table_base import Task
from store.videos.names import NamedVideo
from store.videos.tables import Video, VideoState

MAX_LABEL_LENGTH: Final = 10_000  # the captions of a long video are a paragraph

NEW_LABEL_EXAMPLE: JsonDict = {
    "video": "parrot.mp4",
    "question": "What colour is the parrot?",
    "answer": "green",
    "split": "train",
    "source": "review",
}
LABEL_EXAMPLE: JsonDict = {
    "id": "0198c0f0-1111-7aaa-8bbb-1234567890ab",
    "video_id": "0198c0de-8b52-7d0f-8a43-0c9e5d7f1b22",
    "filename": "parrot.mp4",
    "task": "qa",
    "question": "What colour is the parrot?",
    "caption": None,
    "answer": "green",
    "choices": None,
    "right_choice": None,
    "start_seconds": None,
    "end_seconds": None,
    "split": "train",
    "source": "review",
    "provenance": {},
    "note": None,
    "revision": 1,
    "created_at": "2026-01-05T10:00:00Z",
    "updated_at": "2026-01-05T10:00:00Z",
}
LABEL_CHANGES_EXAMPLE: JsonDict = {"answer": "green and yellow"}
REVISION_EXAMPLE: JsonDict = {
    "revision": 1,
    "action": "created",
    "by": None,
    "created_at": "2026-01-05T10:00:00Z",
    "question": "What colour is the parrot?",
    "caption": None,
    "answer": "green",
    "choices": None,
    "right_choice": None,
    "start_seconds": None,
    "end_seconds": None,
    "split": "train",
    "source": "review",
    "provenance": {},
}
IMPORT_EXAMPLE: JsonDict = {
    "num_lines": 3,
    "num_inserted": 1,
    "num_unchanged": 1,
    "num_refused": 1,
    "errors": [
        {"line": 3, "code": "unknown_video", "message": "video: no video is named 'pigeon.mp4'"}
    ],
    "warnings": [],
}
ANSWERS_EXAMPLE: JsonDict = {
    "items": [{"answer": "green", "count": 12}, {"answer": "red", "count": 7}],
    "num_labels": 19,
}
LINES_EXAMPLE: Final = (
    '{"video": "parrot.mp4", "question": "What colour is the parrot?", "answer": "green"}\n'
    '{"video_id": "video7010", "question": "who plays?", "answer": "girl", "answer_type": "who"}\n'
)

LabelText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_LABEL_LENGTH),
    AfterValidator(check_said),
]
# In JSON `true` is not 1, which pydantic would take it for.
WholeNumber = Annotated[int, Strict()]
Seconds = Annotated[
    float, BeforeValidator(refuse_boolean), Field(ge=0, le=1e9, allow_inf_nan=False)
]


class NewLabel(RequestBody):
    """What somebody says is true of a video: an answer, the right choice, or a caption."""

    model_config = ConfigDict(json_schema_extra={"examples": [NEW_LABEL_EXAMPLE]})

    video: LabelText = Field(
        description="its id, sha256, uri or path, a folder and a name, or a file name, of which "
        "alone the ending may be left out"
    )
    question: LabelText | None = None
    answer: QueryText | WholeNumber | None = Field(
        default=None, description="of a question; of one with choices also the right one's index"
    )
    choices: Choices | None = Field(default=None, description="of a multiple-choice question")
    caption: LabelText | None = Field(default=None, description="instead of a question")
    start_seconds: Seconds | None = Field(default=None, description="null: from the beginning")
    end_seconds: Seconds | None = Field(default=None, description="null: to the end")
    split: Name | None = Field(
        default=None,
        description="train or holdout (also val, test...); null: that of the video, which its "
        "first label settles, by the hash of its content",
    )
    source: Name | None = Field(default=None, description="who or what says it")
    provenance: Metadata = Field(default={}, description="its exact origin")


class LabelChanges(RequestBody):
    """Changes to a label; fields that are left out stay as they are."""

    model_config = ConfigDict(
        json_schema_extra=never_null("question", "caption", "split", example=LABEL_CHANGES_EXAMPLE)
    )

    question: LabelText | None = None
    caption: LabelText | None = None
    answer: QueryText | None = Field(default=None, description="also the text of the right choice")
    choices: Choices | None = None
    right_choice: WholeNumber | None = Field(default=None, ge=0, lt=MAX_CHOICES)
    start_seconds: Seconds | None = Field(default=None, description="null: from the beginning")
    end_seconds: Seconds | None = Field(default=None, description="null: to the end")
    split: Name | None = None
    source: Name | None = None
    provenance: Metadata | None = None

    @field_validator("question", "caption", "split")
    @classmethod
    def _cannot_go(cls, value: str | None) -> str | None:
        if value is None:
            raise ValueError("cannot be taken away: leave it out to keep it")
        return value


class LabelResource(Resource):
    """A label as it is now."""

    model_config = ConfigDict(json_schema_extra={"examples": [LABEL_EXAMPLE]})

    id: UUID
    video_id: UUID
    filename: str | None = Field(description="of the video")
    task: Task
    question: str | None
    caption: str | None
    answer: str | None = Field(description="of a question with choices: the right one")
    choices: list[str] | None
    right_choice: int | None
    start_seconds: float | None
    end_seconds: float | None
    split: str
    source: str | None
    provenance: dict[str, Any]
    note: str | None = Field(description="why it trains nothing now: its video was superseded")
    revision: int = Field(description="1, and one more with each change")
    created_at: datetime
    updated_at: datetime


class RevisionResource(Resource):
    """What a label said from one change to the next."""

    model_config = ConfigDict(json_schema_extra={"examples": [REVISION_EXAMPLE]})

    revision: int
    action: str = Field(description="created, edited or deleted")
    by: str | None = Field(description="name of the API key that did it")
    created_at: datetime
    question: str | None
    caption: str | None
    answer: str | None
    choices: list[str] | None
    right_choice: int | None
    start_seconds: float | None
    end_seconds: float | None
    split: str
    source: str | None
    provenance: dict[str, Any]


class RefusedLine(Resource):
    """A line that was not taken."""

    line: int = Field(description="from 1, counting empty lines too")
    code: str
    message: str


class LabelsImported(Resource):
    """The outcome of an import."""

    model_config = ConfigDict(json_schema_extra={"examples": [IMPORT_EXAMPLE]})

    num_lines: int = Field(description="without empty ones")
    num_inserted: int
    num_unchanged: int = Field(description="labels that were there already")
    num_refused: int
    errors: list[RefusedLine] = Field(description="of the first refused lines")
    warnings: list[str] = Field(
        description="what may be wrong with labels that are kept: contradicting answers to one "
        "question, one answer to all questions, an answer in the holdout that no label to train "
        "from has"
    )


class AnswerCount(Resource):
    """An answer, and how many labels give it."""

    answer: str
    count: int


class AnswerCounts(Resource):
    """The answers that a finetune would learn, the most frequent first."""

    model_config = ConfigDict(json_schema_extra={"examples": [ANSWERS_EXAMPLE]})

    items: list[AnswerCount]
    num_labels: int


NEW_LABELS_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/NewLabel"},
            "example": NEW_LABEL_EXAMPLE,
        },
        "application/x-ndjson": {
            "schema": {
                "type": "string",
                "description": "a NewLabel on each line, or a line of the paper's annotation files",
            },
            "example": LINES_EXAMPLE,
        },
    },
}


def label_resource(label: Label, video: Video | None) -> LabelResource:
    """Show a label of a video, its moment on the player's clock."""
    starts_at = 0.0 if video is None else video.starts_at_seconds
    span = show_moment(
        {"start_seconds": label.start_seconds, "end_seconds": label.end_seconds}, starts_at
    )
    return LabelResource(
        id=label.id,
        video_id=label.video_id,
        filename=None if video is None else video.filename,
        task=label.task,
        start_seconds=span["start_seconds"],
        end_seconds=span["end_seconds"],
        split=label.split,
        source=label.source,
        provenance=label.provenance,
        note=_note(video),
        revision=label.revision,
        created_at=label.created_at,
        updated_at=label.updated_at,
        **_said(label.task, label.text, label.answer, label.choices, label.right_choice),
    )


def revision_resource(revision: LabelRevision, video: Video | None) -> RevisionResource:
    """Show what a label of a video has said, its moment on the player's clock."""
    content = show_moment(revision.content, 0.0 if video is None else video.starts_at_seconds)
    return RevisionResource(
        revision=revision.revision,
        action=revision.action,
        by=revision.by,
        created_at=revision.created_at,
        start_seconds=content.get("start_seconds"),
        end_seconds=content.get("end_seconds"),
        split=content["split"],
        source=content.get("source"),
        provenance=content.get("provenance") or {},
        **_said(
            Task(content["task"]),
            content["text"],
            content.get("answer"),
            content.get("choices") or [],
            content.get("right_choice"),
        ),
    )


def label_line(
    content: Mapping[str, Any], *, video: str, split: str, starts_at_seconds: float = 0.0
) -> dict[str, Any]:
    """Write a label as a line that can be imported again and trained from.

    Args:
        content: text, answer, choices, right_choice, start_seconds, end_seconds and source.
        video: what names the video in it.
        split: of the video.
        starts_at_seconds: of the video: its moment is written on the player's clock.
    """
    return write_line(show_moment(content, starts_at_seconds), video=video, split=split)


def _note(video: Video | None) -> str | None:
    if video is None or video.state != VideoState.SUPERSEDED:
        return None
    return describe_superseded(NamedVideo(video.id, video.uri, video.state, video.superseded_by_id))


def _said(
    task: Task, text: str, answer: str | None, choices: list[str], right_choice: int | None
) -> dict[str, Any]:
    is_caption = task == Task.RETRIEVAL
    return {
        "question": None if is_caption else text,
        "caption": text if is_caption else None,
        "answer": answer,
        "choices": choices or None,
        "right_choice": right_choice,
    }
