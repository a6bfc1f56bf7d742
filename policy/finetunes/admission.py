"""Check a wanted finetune before it begins, and write its job. Never imports torch.

Whatever can be known beforehand is refused here, with what is missing: a finetune that is queued
has its labels, its holdout, a base that fits, and what it is to be trained from.
"""

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy.orm import Session

from clipbert.datasets.same_answers import merge_counts
from clipbert.errors import ConfigError
from clipbert.model.config_json import dataclass_from_json
from clipbert.model.head_names import HeadName
from clipbert.training.finetune_recipes import default_recipe
from clipbert.training.recipe import Recipe
from policy.finetunes.data import (
    check_enough,
    check_videos,
    count_of,
    doubts_about,
    no_active_generation,
)
from policy.finetunes.request import FinetuneGate, FinetuneRefused, FinetuneRequest
from store.errors import DatasetNotFound, ModelNotFound
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.labels.datasets import DatasetRepository
from store.labels.repository import LabelFilter, LabelRepository
from store.labels.tables import Dataset
from store.models.finetunes import FinetuneRepository
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Finetune, Model
from store.table_base import Task

__all__ = [
    "Admission",
    "FinetuneGate",
    "FinetuneRefused",
    "FinetuneRequest",
    "check_finetune",
    "check_settings",
    "request_finetune",
    "warnings_of",
]

_NUM_NEAREST: Final = 3
# A model that was only pretrained is a base for every task.
_HEADS_FOR_ALL: Final = frozenset({"pretraining"})


@dataclass(frozen=True)
class Admission:
    """A finetune that can begin.

    Attributes:
        request: what was asked for.
        base: what training starts from.
        dataset: the frozen labels.
        recipe: defaults and overrides together.
        warnings: what whoever asked should know, as sentences.
    """

    request: FinetuneRequest
    base: Model
    dataset: Dataset
    recipe: Recipe
    warnings: Sequence[str]


def check_settings(request: FinetuneRequest) -> None:
    """Check of a wanted finetune what no data can change; the rest is seen when it begins.

    Raises:
        FinetuneRefused: `unknown_recipe_field` or `invalid_recipe`.
    """
    request.check()
    _check_field_names(request)
    _make_recipe(request, num_examples=1)


def check_finetune(session: Session, request: FinetuneRequest) -> Admission:
    """Check a wanted finetune, and freeze its labels.

    Args:
        session: in a transaction of the caller's; to check only, roll it back afterwards.
        request: what is wanted.

    Returns:
        What it will be.

    Raises:
        FinetuneRefused: it cannot be done; the code is one of unknown_recipe_field,
            invalid_recipe, model_not_found, base_model_wrong_task, no_active_generation,
            visual_side_differs, no_labels, train_empty, one_answer, one_video, holdout_empty,
            dataset_not_found, dataset_wrong_task, video_deleted, tokens_missing.
    """
    request.check()
    _check_field_names(request)
    base = _find_base(session, request)
    dataset, num_left_out = _find_dataset(session, request)
    check_enough(session, dataset)
    recipe = _make_recipe(request, dataset.num_train)
    _check_sizes(recipe, base)
    check_videos(session, dataset, recipe, base)
    if request.gate.regression_dataset_id is not None:
        # Its videos need not all be there: what cannot be looked at is wrong for both models.
        _get_dataset(session, request.gate.regression_dataset_id, request.task)
    warnings = [*warnings_of(request.gate, dataset), *doubts_about(session, dataset)]
    if num_left_out:
        left_out = count_of(num_left_out, "label")
        warnings.append(f"{left_out} left out: the videos are not indexed (yet)")
    return Admission(request, base, dataset, recipe, warnings)


def request_finetune(
    session: Session,
    request: FinetuneRequest,
    *,
    idempotency_key: str | None = None,
    schedule_id: UUID | None = None,
) -> Finetune:
    """Check a wanted finetune and write its job; after the commit, ring `finetune`.

    Args:
        session: in a transaction of the caller's.
        request: what is wanted.
        idempotency_key: the same key gives the finetune that is there.
        schedule_id: the schedule that asks.

    Returns:
        The finetune; its id is its job's.

    Raises:
        FinetuneRefused: as `check_finetune`.
        IdempotencyConflict: the key is known from another request.
    """
    new = NewJob(JobKind.FINETUNE, request.to_json(), idempotency_key=idempotency_key)
    jobs, finetunes = JobRepository(session), FinetuneRepository(session)
    repeated = jobs.find_repeated(new)
    if repeated is not None:
        return finetunes.get(repeated.id)[0]
    admission = check_finetune(session, request)
    return finetunes.create(
        jobs.enqueue(new),
        name=request.model_name,
        task=Task(request.task),
        base_model_id=admission.base.id,
        dataset_id=admission.dataset.id,
        recipe=_recipe_json(admission.recipe),
        gate=request.gate.model_dump(mode="json"),
        request=request.to_json(),
        schedule_id=schedule_id,
    )


def warnings_of(gate: FinetuneGate, dataset: Dataset) -> list[str]:
    """List what keeps a finetune from being promoted although it can be trained."""
    if not gate.promote or dataset.num_holdout >= gate.min_holdout:
        return []
    return [
        f"the holdout has {count_of(dataset.num_holdout, 'label')} and the gate wants at least "
        f"{gate.min_holdout}: the model will be kept as a candidate and not be promoted by itself"
    ]


def _check_field_names(request: FinetuneRequest) -> None:
    names = [field.name for field in dataclasses.fields(Recipe)]
    for name in request.recipe:
        if name in names:
            continue
        nearest = difflib.get_close_matches(name, names, n=_NUM_NEAREST)
        hint = f"nearest: {', '.join(nearest)}" if nearest else f"fields: {', '.join(names)}"
        raise FinetuneRefused(
            "unknown_recipe_field",
            f"a recipe has no field {name!r} ({hint})",
            field=f"recipe.{name}",
            nearest=nearest,
        )
    task = request.recipe.get("task", request.task)
    if task != request.task:
        raise FinetuneRefused(
            "invalid_recipe",
            f"recipe.task is {task!r} and the finetune's task {request.task!r}: leave it out",
            field="recipe.task",
        )


def _find_base(session: Session, request: FinetuneRequest) -> Model:
    models = ModelRepository(session)
    if request.base_model_id is None:
        active = GenerationRepository(session).active()
        if active is None:
            raise no_active_generation("there is no model to start from")
        # Whatever it was trained for: there is no better one to this index.
        return models.get(active.model_id)
    try:
        base = models.live(request.base_model_id)
    except ModelNotFound as error:
        raise FinetuneRefused("model_not_found", str(error), field="base_model_id") from error
    heads = set(base.heads) - _HEADS_FOR_ALL
    if heads and request.task not in heads:
        raise FinetuneRefused(
            "base_model_wrong_task",
            f"{base.name} {base.version} was trained for {', '.join(sorted(heads))}, not for "
            f"{request.task}: name none, or a model without trained heads",
            field="base_model_id",
            heads=sorted(heads),
        )
    return base


def _find_dataset(session: Session, request: FinetuneRequest) -> tuple[Dataset, int]:
    """Return the data set, and how many labels are left out because their videos are not ready."""
    if request.dataset_id is not None:
        return _get_dataset(session, request.dataset_id, request.task), 0
    wanted = request.label_filter
    num_labels = LabelRepository(session).count(wanted)
    if num_labels == 0:
        others = LabelRepository(session).count(LabelFilter(task=request.task))
        sentence = (
            f"there is no label to train {request.task} from: none of the "
            f"{count_of(others, 'label')} for it fits the filter"
            if others
            else f"there is no label for {request.task} yet: import some with "
            "`clipbert label import` or POST /v1/labels"
        )
        raise FinetuneRefused("no_labels", sentence, task=request.task, num_labels=others)
    dataset = DatasetRepository(session).freeze(
        request.task, wanted, only_ready=True, merge=merge_counts
    )
    num_frozen = dataset.num_train + dataset.num_holdout
    if num_frozen == 0:
        raise FinetuneRefused(
            "no_labels",
            f"the videos of all {count_of(num_labels, 'label')} are not indexed: wait for them, or "
            "see `clipbert videos list` for what is wrong with them",
            task=request.task,
            num_labels=num_labels,
        )
    return dataset, num_labels - num_frozen


def _get_dataset(session: Session, dataset_id: UUID, task: str) -> Dataset:
    try:
        dataset = DatasetRepository(session).get(dataset_id)
    except DatasetNotFound as error:
        raise FinetuneRefused("dataset_not_found", str(error), dataset_id=str(dataset_id)) from (
            error
        )
    if dataset.task != task:
        raise FinetuneRefused(
            "dataset_wrong_task",
            f"data set {dataset_id} is for {dataset.task}, not for {task}",
            dataset_id=str(dataset_id),
        )
    return dataset


def _make_recipe(request: FinetuneRequest, num_examples: int) -> Recipe:
    try:
        defaults = default_recipe(cast("HeadName", request.task), num_examples)
        return dataclass_from_json(Recipe, dataclasses.asdict(defaults) | dict(request.recipe))
    except ConfigError as error:
        raise FinetuneRefused("invalid_recipe", f"recipe: {error}", field="recipe") from error


def _check_sizes(recipe: Recipe, base: Model) -> None:
    """Refuse sizes that the trainer would find out about minutes later."""
    side, positions = base.config.get("max_side_px"), base.config.get("num_positions")
    wrong = None
    if recipe.visual == "frozen" and recipe.max_side_px not in (None, side):
        wrong = (
            f"max_side_px is {recipe.max_side_px}: with visual 'frozen' it is the base model's, "
            f"{side}, or left out"
        )
    if positions is not None and (recipe.max_text_tokens or 0) > positions:
        wrong = f"max_text_tokens is {recipe.max_text_tokens}: the base model has {positions}"
    if wrong is not None:
        raise FinetuneRefused("invalid_recipe", f"recipe: {wrong}", field="recipe")


def _recipe_json(recipe: Recipe) -> dict[str, Any]:
    fields: Mapping[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return dict(fields)
