"""What somebody asks for who wants a model finetuned, and why it may be refused. Pure."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from uuid import UUID

from policy.errors import PolicyError
from store.labels.repository import LabelFilter
from store.models.repository import MODEL_NAME_RULE, is_model_name
from store.table_base import Task

FINETUNE_TASKS: Final = (Task.QA, Task.RETRIEVAL, Task.MULTIPLE_CHOICE)


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


@dataclass(frozen=True)
class Gate:
    """When a finetuned model takes the place of the one that serves.

    Attributes:
        min_holdout: on fewer held-out examples nothing is promoted.
        min_gain: least difference of the share of right ones, candidate - serving, 0 to 1.
        max_drop: most that may be lost on the regression data set, 0 to 1.
        confidence: of the interval around the difference, above 0 and below 1.
        require_significance: the interval's low end must be above 0.
        promote: False only compares.
        regression_dataset_id: a frozen data set on which nothing may get much worse; None for none.
    """

    min_holdout: int = 50
    min_gain: float = 0.0
    max_drop: float = 0.02
    confidence: float = 0.95
    require_significance: bool = True
    promote: bool = True
    regression_dataset_id: UUID | None = None

    def __post_init__(self) -> None:
        if self.min_holdout < 1:
            raise ValueError(f"min_holdout is {self.min_holdout}: must be at least 1")
        for name in ("min_gain", "max_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: must be 0 to 1")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is {self.confidence}: must be above 0 and below 1")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read a gate.

        Raises:
            FinetuneRefused: `invalid_gate`, naming the field.
        """
        known = {known.name: known for known in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for name, value in fields.items():
            if name not in known:
                raise FinetuneRefused(
                    "invalid_gate",
                    f"gate.{name} is unknown: the fields are {', '.join(sorted(known))}",
                    field=f"gate.{name}",
                )
            values[name] = _read_gate_field(name, value, known[name].default)
        try:
            return cls(**values)
        except ValueError as error:
            raise FinetuneRefused("invalid_gate", f"gate: {error}", field="gate") from error

    def to_json(self) -> dict[str, Any]:
        """Give what `from_json` reads."""
        fields = dataclasses.asdict(self)
        if self.regression_dataset_id is not None:
            fields["regression_dataset_id"] = str(self.regression_dataset_id)
        return fields


@dataclass(frozen=True)
class FinetuneRequest:
    """A finetune to be done: the body of POST /v1/finetunes, and what a schedule keeps.

    Attributes:
        task: qa, retrieval or multiple_choice.
        base_model_id: what training starts from; None for the active generation's model.
        name: of the model that comes out; None for clipbert-<task>.
        recipe: fields of the recipe that are to differ from the defaults.
        labels: which labels are used; its task is the request's.
        dataset_id: a frozen data set instead of labels.
        gate: when the model is promoted.
    """

    task: Task
    base_model_id: UUID | None = None
    name: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    labels: LabelFilter = field(default_factory=LabelFilter)
    dataset_id: UUID | None = None
    gate: Gate = field(default_factory=Gate)

    @property
    def model_name(self) -> str:
        """What the finetuned model will be called."""
        return self.name or f"clipbert-{self.task}"

    @property
    def label_filter(self) -> LabelFilter:
        """The labels wanted, of this task only."""
        return dataclasses.replace(self.labels, task=str(self.task))

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Read the body of a request.

        Raises:
            FinetuneRefused: `unknown_task`, `invalid_gate` or `invalid_request`, naming the field.
        """
        known = [known.name for known in dataclasses.fields(cls)]
        for name in body:
            if name not in known:
                raise _invalid(name, f"{name} is unknown: the fields are {', '.join(known)}")
        try:
            labels = LabelFilter.from_json(_mapping(body, "labels"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _invalid("labels", f"labels cannot be read: {error}") from error
        if body.get("dataset_id") is not None and labels != LabelFilter():
            raise _invalid(
                "labels", "labels are chosen and so is dataset_id: a data set is taken as it is"
            )
        return cls(
            task=_read_task(body.get("task")),
            base_model_id=_read_id(body, "base_model_id"),
            name=_read_name(body.get("name")),
            recipe=_mapping(body, "recipe"),
            labels=labels,
            dataset_id=_read_id(body, "dataset_id"),
            gate=Gate.from_json(_mapping(body, "gate")),
        )

    def to_json(self) -> dict[str, Any]:
        """Give what `from_json` reads."""
        return {
            "task": str(self.task),
            "base_model_id": None if self.base_model_id is None else str(self.base_model_id),
            "name": self.name,
            "recipe": dict(self.recipe),
            "labels": self.labels.to_json(),
            "dataset_id": None if self.dataset_id is None else str(self.dataset_id),
            "gate": self.gate.to_json(),
        }


def _read_gate_field(name: str, value: object, default: object) -> object:
    """Check a value of the gate against the type of its default."""
    if name == "regression_dataset_id":
        return _read_id({name: value}, name)
    if isinstance(default, float) and isinstance(value, int | float):
        is_right = not isinstance(value, bool)
    else:
        is_right = type(value) is type(default)
    if not is_right:
        kind = {bool: "true or false", int: "an integer", float: "a number"}[type(default)]
        raise FinetuneRefused(
            "invalid_gate", f"gate.{name} is {value!r}: must be {kind}", field=f"gate.{name}"
        )
    return value


def _read_task(value: object) -> Task:
    if value not in FINETUNE_TASKS:
        able = ", ".join(FINETUNE_TASKS)
        raise FinetuneRefused(
            "unknown_task", f"task is {value!r}: must be one of {able}", field="task"
        )
    return Task(str(value))


def _read_name(value: object) -> str | None:
    if value is None:
        return None
    name = value.strip() if isinstance(value, str) else ""
    if not is_model_name(name):
        raise _invalid("name", f"name is {value!r}: must be {MODEL_NAME_RULE}")
    return name


def _read_id(body: Mapping[str, Any], name: str) -> UUID | None:
    value = body.get(name)
    try:
        return None if value is None else UUID(str(value))
    except ValueError as error:
        raise _invalid(name, f"{name} is {value!r}: must be an id") from error


def _mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _invalid(name, f"{name} is {value!r}: must be an object")
    return value


def _invalid(field_name: str, message: str) -> FinetuneRefused:
    return FinetuneRefused("invalid_request", message, field=field_name)
