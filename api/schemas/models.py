"""Models and generations as the API shows them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.schemas.resources import RequestBody, Resource
from store.models.repository import Coverage
from store.models.tables import Generation, GenerationState, Model, Promotion, PromotionAction
from store.table_base import Task

_GENERATION_ID = "0198c0d0-2222-7aaa-8bbb-1234567890ab"
_MINI_ID = "0198c0d0-3333-7aaa-8bbb-1234567890ab"
MODEL_EXAMPLE: JsonDict = {
    "id": "0198c0f2-2222-7aaa-8bbb-1234567890ab",
    "name": "clipbert-qa",
    "version": "5d1f0e2a617a",
    "state": "serving",
    "heads": ["qa"],
    "tasks": ["qa"],
    "serves": ["qa"],
    "waiting_for": [],
    "sha256": "9d1c3b5e7f80912a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f809102",
    "visual_sha256": "4b1d3f0e2a617a117c3e9f5a4b1d3f0e2a617a117c3e9f5a4b1d3f0e2a617a11",
    "metrics": {"metric": "accuracy", "accuracy": 0.941},
    "num_answers": 2,
    "parent_id": _MINI_ID,
    "finetune_id": "0198c0f2-1111-7aaa-8bbb-1234567890ab",
    "generation_id": _GENERATION_ID,
    "created_at": "2026-01-05T11:12:00Z",
}
PROMOTION_EXAMPLE: JsonDict = {
    "task": "qa",
    "action": "promote",
    "model_id": "0198c0f2-2222-7aaa-8bbb-1234567890ab",
    "previous_model_id": None,
    "reason": "94.1% right of 203, clipbert-qa 5d1f0e2a617a 88.2% (+5.9%)",
    "finetune_id": "0198c0f2-1111-7aaa-8bbb-1234567890ab",
    "created_at": "2026-01-05T11:12:00Z",
}
GENERATION_EXAMPLE: JsonDict = {
    "id": _GENERATION_ID,
    "state": "active",
    "model_id": _MINI_ID,
    "model": "clipbert-mini 1",
    "recall_model_id": _MINI_ID,
    "recall_model": "clipbert-mini 1",
    "plan": {"name": "segments", "num_clips": 4, "frames_per_clip": 1},
    "recall_dim": 384,
    "num_videos": 12,
    "num_indexed": 11,
    "created_at": "2026-01-05T08:59:00Z",
    "activated_at": "2026-01-05T08:59:00Z",
    "retired_at": None,
}
TASKS_EXAMPLE: JsonDict = {"tasks": ["qa"]}


class PromotedTasks(RequestBody):
    """What a model is to serve."""

    model_config = ConfigDict(json_schema_extra={"examples": [TASKS_EXAMPLE]})

    tasks: list[Task] | None = Field(
        default=None, min_length=1, max_length=len(Task), description="null: all that it can"
    )


class ModelResource(Resource):
    """A registered model, what it serves and where it comes from."""

    model_config = ConfigDict(json_schema_extra={"examples": [MODEL_EXAMPLE]})

    id: UUID
    name: str
    version: str
    state: Literal["serving", "candidate", "retired"] = Field(
        description="candidate: was never promoted; retired: served once"
    )
    heads: list[str] = Field(description="the trained ones")
    tasks: list[str] = Field(description="what it can be promoted for")
    serves: list[str] = Field(description="what it is promoted for now")
    waiting_for: list[str] = Field(
        description="of these, what another model answers until this one's generation is built"
    )
    sha256: str
    visual_sha256: str = Field(description="models with the same one share visual tokens")
    metrics: dict[str, Any] = Field(description="how it did, with the decision on it")
    num_answers: int = Field(description="that it can choose from")
    parent_id: UUID | None = Field(description="the model it was finetuned from")
    finetune_id: UUID | None = Field(description="the finetune that it came of")
    generation_id: UUID | None = Field(
        description="the newest one not retired whose tokens it can read"
    )
    created_at: datetime


class PromotionResource(Resource):
    """A change of which model serves a task."""

    model_config = ConfigDict(json_schema_extra={"examples": [PROMOTION_EXAMPLE]})

    task: Task
    action: PromotionAction
    model_id: UUID | None = Field(description="serves from then on; null: none does")
    previous_model_id: UUID | None
    reason: str | None
    finetune_id: UUID | None
    created_at: datetime


class GenerationResource(Resource):
    """The library as one model sees it: filled, then searched, then replaced."""

    model_config = ConfigDict(json_schema_extra={"examples": [GENERATION_EXAMPLE]})

    id: UUID
    state: GenerationState
    model_id: UUID = Field(description="makes the visual tokens")
    model: str
    recall_model_id: UUID = Field(description="makes the recall vectors")
    recall_model: str
    plan: dict[str, Any] = Field(description="how clips are sampled")
    recall_dim: int | None
    num_videos: int = Field(description="whose files are sound")
    num_indexed: int = Field(description="of these, how many have clips in it")
    created_at: datetime
    activated_at: datetime | None
    retired_at: datetime | None


def model_resource(
    model: Model,
    *,
    state: Literal["serving", "candidate", "retired"],
    serves: Sequence[Task],
    waiting_for: Sequence[Task],
    finetune_id: UUID | None,
    generation_id: UUID | None,
) -> ModelResource:
    return ModelResource(
        id=model.id,
        name=model.name,
        version=model.version,
        state=state,
        heads=model.heads,
        tasks=model.tasks,
        serves=sorted(serves),
        waiting_for=sorted(waiting_for),
        sha256=model.sha256,
        visual_sha256=model.visual_sha256,
        metrics=model.metrics,
        num_answers=len(model.config.get("answers") or ()),
        parent_id=model.parent_id,
        finetune_id=finetune_id,
        generation_id=generation_id,
        created_at=model.created_at,
    )


def promotion_resource(promotion: Promotion) -> PromotionResource:
    return PromotionResource(
        task=promotion.task,
        action=promotion.action,
        model_id=promotion.model_id,
        previous_model_id=promotion.previous_model_id,
        reason=promotion.reason,
        finetune_id=promotion.finetune_id,
        created_at=promotion.created_at,
    )


def generation_resource(
    generation: Generation, coverage: Coverage, *, model: Model, recall_model: Model
) -> GenerationResource:
    return GenerationResource(
        id=generation.id,
        state=generation.state,
        model_id=generation.model_id,
        model=f"{model.name} {model.version}",
        recall_model_id=generation.recall_model_id,
        recall_model=f"{recall_model.name} {recall_model.version}",
        plan=generation.plan,
        recall_dim=generation.recall_dim,
        num_videos=coverage.num_videos,
        num_indexed=coverage.num_indexed,
        created_at=generation.created_at,
        activated_at=generation.activated_at,
        retired_at=generation.retired_at,
    )
