"""What somebody asks for who wants a model finetuned, and why it may be refused. Pure.

The one form of such a request: the body of POST /v1/finetunes, what a schedule keeps as JSON, and
the input of the job.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from policy.errors import PolicyError
from policy.field_errors import field_errors
from policy.texts import Metadata, Name
from store.labels.records import LABEL_TASKS
from store.labels.repository import LabelFilter
from store.models.repository import MAX_NAME_LENGTH, MODEL_NAME_RULE, is_model_name

_MAX_IDS: Final = 1000


class FinetuneRefused(PolicyError):
    """A finetune that cannot be done as it was asked for; found out before it begins.

    Attributes:
        code: stable, such as `holdout_empty`.
        fields: what the sentence speaks of, for programs.
    """

    def __init__(self, code: str, message: str, **fields: object) -> None:
        super().__init__(message)
        self.code = code
        self.fields = fields


class _Request(BaseModel):
    """A request; a field that is not known is an error, not a silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class FinetuneLabels(_Request):
    """Which labels of the task are used; what is left out asks for nothing."""

    sources: list[Name] = Field(default=[], max_length=_MAX_IDS, description="from one of these")
    tags: list[Name] = Field(
        default=[], max_length=_MAX_IDS, description="of a video with one of these"
    )
    video_ids: list[UUID] = Field(
        default=[], max_length=_MAX_IDS, description="of one of these videos"
    )
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None

    def as_filter(self, task: str | None = None) -> LabelFilter:
        """Return the same as a filter on the rows of labels, of one task if it is given."""
        return LabelFilter(task=task, **self.model_dump())


class FinetuneGate(_Request):
    """When the finetuned model takes the place of the one that serves."""

    min_holdout: int = Field(
        default=50, ge=1, le=2**31 - 1, description="on fewer examples nothing is promoted"
    )
    min_gain: _Share = Field(default=0.0, description="least gain in the share of right answers")
    max_drop: _Share = Field(default=0.02, description="most loss on the regression data set")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="of the gain's interval")
    require_significance: bool = Field(
        default=True, description="the whole interval of the gain must be above zero"
    )
    promote: bool = Field(default=True, description="false: compare only")
    regression_dataset_id: UUID | None = Field(
        default=None, description="a data set on which it may not get much worse"
    )


class FinetuneRequest(_Request):
    """A finetune to be done."""

    task: str = Field(
        json_schema_extra={"enum": ["qa", "retrieval", "multiple_choice"]},
        max_length=50,
    )
    base_model_id: UUID | None = Field(
        default=None, description="null: the model of the active generation"
    )
    name: Annotated[Name, Field(max_length=MAX_NAME_LENGTH)] | None = Field(
        default=None, description="of the new model; null: clipbert-TASK"
    )
    recipe: Metadata = Field(
        default={}, description="fields of the recipe that differ from the defaults"
    )
    labels: FinetuneLabels = FinetuneLabels()
    dataset_id: UUID | None = Field(
        default=None, description="train on this data set again instead of the labels as they are"
    )
    gate: FinetuneGate = FinetuneGate()

    @property
    def model_name(self) -> str:
        """What the finetuned model will be called."""
        return self.name or f"clipbert-{self.task}"

    @property
    def label_filter(self) -> LabelFilter:
        """The labels wanted, of this task only."""
        return self.labels.as_filter(self.task)

    def check(self) -> None:
        """Check what the types of the fields do not say.

        Raises:
            FinetuneRefused: `unknown_task` or `invalid_request`, naming the field.
        """
        if self.task not in LABEL_TASKS:
            able = ", ".join(LABEL_TASKS)
            sentence = f"task is {self.task!r}: must be one of {able}"
            raise FinetuneRefused("unknown_task", sentence, field="task")
        if self.name is not None and not is_model_name(self.name):
            raise _invalid("name", f"name is {self.name!r}: must be {MODEL_NAME_RULE}")
        if self.dataset_id is not None and self.labels.as_filter() != LabelFilter():
            raise _invalid(
                "labels", "labels are chosen and so is dataset_id: a data set is taken as it is"
            )

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Read and check the body of a request; a value of another type is not converted.

        Raises:
            FinetuneRefused: `unknown_task`, `invalid_gate` or `invalid_request`, naming the field.
        """
        try:
            request = cls.model_validate_json(json.dumps(body), strict=True)
        except ValidationError as error:
            raise _refusal_of(error) from error
        request.check()
        return request

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads: equal requests give equal JSON."""
        return self.model_dump(mode="json") | {"labels": self.labels.as_filter().to_json()}


def _refusal_of(error: ValidationError) -> FinetuneRefused:
    """Name the first field that is wrong, and what is wrong with it."""
    (first, *_) = field_errors(error.errors(include_url=False))
    where, sentence = first.field.split(".") if first.field else [], str(first)
    match where[:1]:
        case ["task"]:
            return FinetuneRefused("unknown_task", sentence, field="task")
        case ["gate"]:
            return FinetuneRefused("invalid_gate", sentence, field=".".join(where[:2]))
        case [name]:
            return _invalid(name, sentence)
        case _:
            return _invalid("finetune", sentence)


def _invalid(field_name: str, message: str) -> FinetuneRefused:
    return FinetuneRefused("invalid_request", message, field=field_name)
