"""Models: listed, promoted, rolled back; and the generations of clips that they make."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Header, Query, Response
from sqlalchemy.orm import Session

from api.dependencies import KeyName, Services, ServicesDep
from api.errors import ApiError
from api.responses.answers import fresh_or_304
from api.responses.problems import refusals
from api.schemas.models import (
    TASKS_EXAMPLE,
    GenerationResource,
    ModelResource,
    PromotedTasks,
    PromotionResource,
    generation_resource,
    model_resource,
    promotion_resource,
)
from api.schemas.resources import Page
from policy.registration import follow_up, promote_in, remove_model_files, rollback_in
from policy.serving import read_serving
from store.jobs.state import JobKind
from store.models.deletion import ModelDeletion
from store.models.finetunes import FinetuneRepository
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Generation, GenerationState, Model
from store.table_base import Task

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models", response_model=Page[ModelResource], responses=refusals())
def list_models(services: ServicesDep) -> Page[ModelResource]:
    """List all models, the newest first, each with the tasks it serves. There is one page."""
    with services.sessions() as session:
        items = _resources(session, ModelRepository(session).list())
    return Page(items=items, next_page_token=None)


@router.get(
    "/models/{model_id}",
    response_model=ModelResource,
    responses={
        304: {"description": "nothing changed since the ETag of If-None-Match"},
        **refusals("model_not_found"),
    },
)
def get_model(
    services: ServicesDep, *, model_id: UUID, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """Get a model: what it serves, how it was evaluated, where it comes from."""
    return fresh_or_304(_read(services, model_id), if_none_match=if_none_match)


@router.get(
    "/models/{model_id}/promotions",
    response_model=Page[PromotionResource],
    responses=refusals("model_not_found", "invalid_request"),
)
def list_model_promotions(
    services: ServicesDep,
    *,
    model_id: UUID,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Page[PromotionResource]:
    """List when a model started and stopped serving, the latest first. There is one page."""
    with services.sessions() as session:
        models = ModelRepository(session)
        models.live(model_id)
        items = [promotion_resource(each) for each in models.promotions(None, model_id, limit)]
    return Page(items=items, next_page_token=None)


@router.delete(
    "/models/{model_id}",
    status_code=204,
    responses=refusals("model_not_found", "model_needed"),
)
def delete_model(services: ServicesDep, model_id: UUID) -> None:
    """Delete a model with its files.

    Refused while it serves, a rollback would bring it back, an index that is kept was made by it,
    or a finetune or schedule starts from it.
    """
    with services.sessions.begin() as session:
        ModelDeletion(session).delete(model_id)
    remove_model_files(services.sessions, services.blobs, model_id=model_id)


@router.post(
    "/models/{model_id}:promote",
    response_model=ModelResource,
    responses=refusals(
        "malformed_json",
        "model_not_found",
        "cannot_promote",
        "payload_too_large",
        "invalid_request",
    ),
)
def promote_model(
    services: ServicesDep,
    *,
    model_id: UUID,
    key_name: KeyName,
    wanted: Annotated[
        PromotedTasks | None, Body(openapi_examples={"qa": {"value": TASKS_EXAMPLE}})
    ] = None,
) -> ModelResource:
    """Make a model serve, whatever its evaluation said; workers have it within seconds.

    One that looks at pixels in another way than the index was made serves as soon as its
    generation is built; until then what served before goes on.
    """
    tasks = None if wanted is None else wanted.tasks
    try:
        with services.sessions.begin() as session:
            promote_in(session, model_id, tasks=tasks, reason=_by_hand(key_name))
    except ValueError as error:
        raise _conflict("cannot_promote", error) from error
    follow_up(services.sessions)
    services.doorbell.ring(JobKind.EMBED)
    return _read(services, model_id)


@router.post(
    "/models/{model_id}:rollback",
    response_model=ModelResource,
    responses=refusals("model_not_found", "illegal_rollback"),
)
def roll_back_model(services: ServicesDep, *, model_id: UUID, key_name: KeyName) -> ModelResource:
    """Make what served before a model serve again, for each task that this one serves."""
    try:
        with services.sessions.begin() as session:
            rollback_in(session, model_id, reason=_by_hand(key_name))
    except ValueError as error:
        raise _conflict("illegal_rollback", error) from error
    follow_up(services.sessions)
    services.doorbell.ring(JobKind.EMBED)
    return _read(services, model_id)


@router.get("/generations", response_model=Page[GenerationResource], responses=refusals())
def list_generations(services: ServicesDep) -> Page[GenerationResource]:
    """List generations, the newest first, and how much of the library each holds. One page."""
    with services.sessions() as session:
        items = [_generation(session, each) for each in GenerationRepository(session).list()]
    return Page(items=items, next_page_token=None)


@router.get(
    "/generations/{generation_id}",
    response_model=GenerationResource,
    responses=refusals("generation_not_found"),
)
def get_generation(services: ServicesDep, generation_id: UUID) -> GenerationResource:
    """Get a generation; while it is being built, `num_indexed` tells how far that is."""
    with services.sessions() as session:
        return _generation(session, GenerationRepository(session).get(generation_id))


def _read(services: Services, model_id: UUID) -> ModelResource:
    with services.sessions() as session:
        return _resources(session, [ModelRepository(session).live(model_id)])[0]


def _resources(session: Session, found: Sequence[Model]) -> list[ModelResource]:
    models, finetunes = ModelRepository(session), FinetuneRepository(session)
    serving, states = models.all_serving(), models.states([model.id for model in found])
    readable = _newest_readable(session)
    answering = _answering(session)
    resources = []
    for model in found:
        serves = [task for task, (promoted, _) in serving.items() if promoted.id == model.id]
        finetune = finetunes.of_model(model.id)
        resources.append(
            model_resource(
                model,
                state=states[model.id],
                serves=serves,
                waiting_for=[
                    task
                    for task in serves
                    if task in model.heads and answering.get(task) != model.id
                ],
                finetune_id=None if finetune is None else finetune.id,
                generation_id=readable.get(model.visual_sha256),
            )
        )
    return resources


def _answering(session: Session) -> dict[Task, UUID]:
    """Return which model answers each task with a head of its own now."""
    serving = read_serving(session)
    if serving is None:
        return {}
    heads = {
        Task.QA: serving.qa,
        Task.RETRIEVAL: serving.retrieval,
        Task.MULTIPLE_CHOICE: serving.multiple_choice,
    }
    return {task: model.id for task, model in heads.items() if model is not None}


def _newest_readable(session: Session) -> dict[str, UUID]:
    """Find for each visual side the newest generation that is not retired."""
    models = ModelRepository(session)
    found: dict[str, UUID] = {}
    for generation in GenerationRepository(session).list():
        if generation.state != GenerationState.RETIRED:
            found.setdefault(models.get(generation.model_id).visual_sha256, generation.id)
    return found


def _generation(session: Session, generation: Generation) -> GenerationResource:
    models = ModelRepository(session)
    return generation_resource(
        generation,
        GenerationRepository(session).coverage(generation.id),
        model=models.get(generation.model_id),
        recall_model=models.get(generation.recall_model_id),
    )


def _by_hand(key_name: str | None) -> str:
    return "by hand" if key_name is None else f"by hand, with the key {key_name}"


def _conflict(code: str, error: ValueError) -> ApiError:
    text = str(error)
    return ApiError(HTTPStatus.CONFLICT, code, f"{text[:1].upper()}{text[1:]}.")
