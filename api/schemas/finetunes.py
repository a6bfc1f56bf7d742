"""Finetunes as the API takes and shows them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.jobs import Progress, failure_of
from api.schemas.resources import Failure, RequestBody, Resource
from policy.finetunes.request import FinetuneRequest
from store.jobs.state import JobState, is_terminal
from store.jobs.tables import Job, JobEvent
from store.labels.tables import Dataset
from store.models.tables import Finetune, Model
from store.table_base import Task

MAX_LISTED_ANSWERS: Final = 100

NEW_FINETUNE_EXAMPLE: JsonDict = {
    "task": "qa",
    "recipe": {"epochs": 4},
    "labels": {"sources": ["review"]},
    "gate": {"min_holdout": 50, "min_gain": 0.01},
}
_DATASET_EXAMPLE: JsonDict = {
    "id": "0198c0f1-1111-7aaa-8bbb-1234567890ab",
    "num_train": 812,
    "num_holdout": 203,
    "num_videos": 120,
    "num_answers": 2,
    "answers": ["green", "red"],
}
_DECISION_EXAMPLE: JsonDict = {
    "promoted": True,
    "code": "promoted",
    "reason": "94.1% right of 203, clipbert-qa 5d1f0e2a617a 88.2% (+5.9%)",
    "holdout": {
        "candidate": 0.941,
        "reference": 0.882,
        "difference": 0.059,
        "low": 0.02,
        "high": 0.1,
        "num_examples": 203,
    },
    "regression": None,
}
FINETUNE_EXAMPLE: JsonDict = {
    "id": "0198c0f2-1111-7aaa-8bbb-1234567890ab",
    "state": "succeeded",
    "done": True,
    "name": "clipbert-qa",
    "task": "qa",
    "base_model_id": "0198c0d0-3333-7aaa-8bbb-1234567890ab",
    "base_model": "clipbert-mini 1",
    "dataset": _DATASET_EXAMPLE,
    "recipe": {"task": "qa", "visual": "frozen", "epochs": 4.0},
    "gate": {"min_holdout": 50, "min_gain": 0.01, "promote": True},
    "warnings": [],
    "schedule_id": None,
    "stage": "evaluating",
    "progress": {"done": 400, "total": 400},
    "loss": 0.12,
    "learning_rate": 1e-06,
    "clips_per_second": 210.0,
    "seconds_left": None,
    "attempt": 1,
    "cancel_requested": False,
    "pause_requested": False,
    "model_id": "0198c0f2-2222-7aaa-8bbb-1234567890ab",
    "decision": _DECISION_EXAMPLE,
    "report": {
        "candidate": {"name": "the candidate", "metric": "accuracy", "metrics": {"accuracy": 0.941}}
    },
    "error": None,
    "created_at": "2026-01-05T11:00:00Z",
    "started_at": "2026-01-05T11:00:01Z",
    "finished_at": "2026-01-05T11:12:00Z",
}
PLAN_EXAMPLE: JsonDict = {
    "task": "qa",
    "name": "clipbert-qa",
    "base_model_id": "0198c0d0-3333-7aaa-8bbb-1234567890ab",
    "base_model": "clipbert-mini 1",
    "dataset": {**_DATASET_EXAMPLE, "id": None},
    "recipe": {"task": "qa", "visual": "frozen", "epochs": 4.0},
    "gate": {"min_holdout": 50, "min_gain": 0.01, "promote": True},
    "warnings": [
        "the holdout has 12 labels and the gate wants at least 50: the model will be kept as a "
        "candidate and not be promoted by itself"
    ],
}
CURVES_EXAMPLE: JsonDict = {
    "finetune_id": "0198c0f2-1111-7aaa-8bbb-1234567890ab",
    "total_steps": 400,
    "num_points": 2,
    "points": [
        {"step": 2, "loss": 0.69, "learning_rate": 5e-06},
        {"step": 4, "loss": 0.41, "learning_rate": 1e-05},
    ],
    "evaluations": [{"candidate": {"metrics": {"accuracy": 0.941}}}],
}


class NewFinetune(FinetuneRequest, RequestBody):
    """A model to be trained on labels, judged on held-out ones, and promoted if it is better."""

    model_config = ConfigDict(json_schema_extra={"examples": [NEW_FINETUNE_EXAMPLE]})


class FinetuneDataset(Resource):
    """What a finetune learns from."""

    id: UUID | None = Field(description="null where it was only checked")
    num_train: int
    num_holdout: int
    num_videos: int
    num_answers: int
    answers: list[str] = Field(description=f"the {MAX_LISTED_ANSWERS} most frequent ones")


class Difference(Resource):
    """Candidate minus reference, on the same examples, with the interval of the difference."""

    candidate: float = Field(description="share of examples it got right")
    reference: float
    difference: float
    low: float
    high: float
    num_examples: int


class Decision(Resource):
    """The decision on the finetuned model, with its reason."""

    promoted: bool
    code: str = Field(
        description="promoted, too_few_examples, no_gain, not_significant, regression, "
        "promotion_off or below_baseline"
    )
    reason: str = Field(description="a sentence with the figures")
    holdout: Difference | None = None
    regression: Difference | None = None


class FinetunePlan(Resource):
    """What would be trained; it was not started."""

    model_config = ConfigDict(json_schema_extra={"examples": [PLAN_EXAMPLE]})

    task: Task
    name: str
    base_model_id: UUID
    base_model: str
    dataset: FinetuneDataset
    recipe: dict[str, Any] = Field(description="complete, defaults and changes together")
    gate: dict[str, Any]
    warnings: list[str]


class FinetuneResource(Resource):
    """A finetune; its id is its job's."""

    model_config = ConfigDict(json_schema_extra={"examples": [FINETUNE_EXAMPLE]})

    id: UUID
    state: JobState
    done: bool
    name: str = Field(description="of the model that comes of it")
    task: Task
    base_model_id: UUID
    base_model: str = Field(description="name and version")
    dataset: FinetuneDataset
    recipe: dict[str, Any]
    gate: dict[str, Any]
    warnings: list[str] = Field(
        description="why it will not be promoted although it can be trained"
    )
    schedule_id: UUID | None
    stage: str | None
    progress: Progress = Field(description="steps")
    loss: float | None = Field(description="the last that was told; so for the next three")
    learning_rate: float | None
    clips_per_second: float | None
    seconds_left: float | None = Field(description="of the training; null unless it runs")
    attempt: int
    cancel_requested: bool
    pause_requested: bool
    model_id: UUID | None = Field(description="set when it has succeeded")
    decision: Decision | None = Field(description="set when it has been evaluated")
    report: dict[str, Any] | None = Field(description="all figures of the evaluation")
    error: Failure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Curves(Resource):
    """The course of a training, as numbers."""

    model_config = ConfigDict(json_schema_extra={"examples": [CURVES_EXAMPLE]})

    finetune_id: UUID
    total_steps: int | None
    num_points: int = Field(description="that there are; `points` may have fewer, evenly chosen")
    points: list[dict[str, Any]] = Field(
        description="by step: loss, learning_rate, clips_per_second...; those of validations have "
        "its figures instead"
    )
    evaluations: list[dict[str, Any]] = Field(description="on the holdout, once it is trained")


def finetune_dataset(dataset: Dataset, *, is_kept: bool = True) -> FinetuneDataset:
    """Show the data set of a finetune; one that was made for a check only has no id."""
    return FinetuneDataset(
        id=dataset.id if is_kept else None,
        num_train=dataset.num_train,
        num_holdout=dataset.num_holdout,
        num_videos=dataset.num_videos,
        num_answers=len(dataset.answers),
        answers=dataset.answers[:MAX_LISTED_ANSWERS],
    )


def model_title(model: Model) -> str:
    """Call a model by name and version."""
    return f"{model.name} {model.version}"


def finetune_resource(
    finetune: Finetune,
    job: Job,
    *,
    base: Model,
    dataset: Dataset,
    metrics: JobEvent | None,
    warnings: list[str],
) -> FinetuneResource:
    """Show a finetune.

    Args:
        finetune: its row.
        job: its job.
        base: the model that it starts from.
        dataset: what it learns from.
        metrics: the last event with a loss.
        warnings: what keeps it from being promoted.
    """
    reported: Mapping[str, Any] = {} if metrics is None else metrics.data
    report = finetune.report
    decision = None if report is None else report.get("decision")
    return FinetuneResource(
        id=finetune.id,
        state=job.state,
        done=is_terminal(job.state),
        name=finetune.name,
        task=finetune.task,
        base_model_id=finetune.base_model_id,
        base_model=model_title(base),
        dataset=finetune_dataset(dataset),
        recipe=finetune.recipe,
        gate=finetune.gate,
        warnings=warnings,
        schedule_id=finetune.schedule_id,
        stage=job.stage,
        progress=Progress(done=job.progress_done, total=job.progress_total),
        loss=reported.get("loss"),
        learning_rate=reported.get("learning_rate"),
        clips_per_second=reported.get("clips_per_second"),
        seconds_left=reported.get("seconds_left") if job.state == JobState.RUNNING else None,
        attempt=job.attempt,
        cancel_requested=job.cancel_requested_at is not None,
        pause_requested=job.pause_requested_at is not None,
        model_id=finetune.model_id,
        decision=None if decision is None else Decision.model_validate(decision),
        report=report,
        error=failure_of(job.error_code, job.error_message),
        created_at=finetune.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
