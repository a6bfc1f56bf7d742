"""Finetunes: asked for, followed, stopped for a while, looked at afterwards."""

import dataclasses
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.dependencies import IdempotencyKey, PageDep, Services, ServicesDep, WaitSeconds
from api.errors import ApiError
from api.responses.answers import accepted, fresh_or_304, wait_for_job
from api.responses.event_lists import EVENTS_ANSWER, AfterSeq, LastEventId, answer_with_events
from api.responses.finetune_refusals import DATA_CODES, SETTINGS_CODES, finetune_refused
from api.responses.problems import refusals
from api.schemas.events import EventResource
from api.schemas.finetunes import (
    Curves,
    FinetunePlan,
    FinetuneResource,
    NewFinetune,
    finetune_dataset,
    finetune_resource,
    model_title,
)
from api.schemas.resources import Page
from clipbert.runs.contract import CURVES_PICTURE
from policy.finetunes.admission import (
    FinetuneGate,
    FinetuneRefused,
    FinetuneRequest,
    check_finetune,
    request_finetune,
    warnings_of,
)
from store.errors import BlobNotFound
from store.jobs.events import JobEventRepository
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind
from store.jobs.tables import Job
from store.labels.datasets import DatasetRepository
from store.models.finetunes import FinetuneRepository
from store.models.repository import ModelRepository
from store.models.tables import Finetune
from store.table_base import Task
from store.videos.contents import curves_key

router = APIRouter(prefix="/v1/finetunes", tags=["finetunes"])

_METRICS: Final = "metrics"
_EVALUATION: Final = "evaluation"
_ACTS: Final = refusals("finetune_not_found", "illegal_state")


@router.post(
    "",
    status_code=202,
    response_model=FinetuneResource,
    responses={
        200: {"model": FinetunePlan, "description": "With `validate_only`: what would be trained"},
        202: {"description": "Accepted; follow it at Location"},
        **refusals(
            "malformed_json",
            "payload_too_large",
            "idempotency_conflict",
            *SETTINGS_CODES,
            *DATA_CODES,
        ),
    },
)
def create_finetune(
    services: ServicesDep,
    *,
    new: NewFinetune,
    validate_only: Annotated[
        bool, Query(description="only check, and answer what would be trained")
    ] = False,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Train a model on labels, compare it with the one that serves, promote it if it is better.

    All that can be checked is checked at once: labels, holdout, base model, recipe, videos. The
    labels are frozen as a data set, so that the finetune can be repeated whatever is labelled
    meanwhile.
    """
    try:
        if validate_only:
            return Response(
                _plan(services, new).model_dump_json().encode(), media_type="application/json"
            )
        with services.sessions.begin() as session:
            finetune_id = request_finetune(session, new, idempotency_key=idempotency_key).id
    except FinetuneRefused as error:
        raise finetune_refused(error) from error
    services.doorbell.ring(JobKind.FINETUNE, finetune_id)
    return accepted(_read(services, finetune_id), location=f"/v1/finetunes/{finetune_id}")


@router.get(
    "",
    response_model=Page[FinetuneResource],
    responses=refusals("invalid_page_token", "invalid_request"),
)
def list_finetunes(
    services: ServicesDep,
    page: PageDep,
    *,
    task: Task | None = None,
    schedule_id: Annotated[UUID | None, Query(description="started by this schedule")] = None,
) -> Page[FinetuneResource]:
    """List finetunes, the newest first."""
    with services.sessions() as session:
        found = FinetuneRepository(session).list(
            page_size=page.page_size,
            page_token=page.page_token,
            task=task,
            schedule_id=schedule_id,
        )
        items = _resources(session, found.items)
    return Page(items=items, next_page_token=found.next_page_token)


@router.get(
    "/{finetune_id}",
    response_model=FinetuneResource,
    responses={
        304: {"description": "nothing changed since the ETag of If-None-Match"},
        **refusals("finetune_not_found", "invalid_request"),
    },
)
async def get_finetune(
    request: Request,
    services: ServicesDep,
    *,
    finetune_id: UUID,
    wait: WaitSeconds = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Get a finetune: its progress, its outcome. With `wait`, the answer comes when it is over."""
    resource = await run_in_threadpool(_read, services, finetune_id)
    if not resource.done and wait > 0:
        await wait_for_job(services, request, job_id=finetune_id, wait_seconds=wait)
        resource = await run_in_threadpool(_read, services, finetune_id)
    return fresh_or_304(resource, if_none_match=if_none_match)


@router.post("/{finetune_id}:cancel", response_model=FinetuneResource, responses=_ACTS)
def cancel_finetune(services: ServicesDep, finetune_id: UUID) -> FinetuneResource:
    """Cancel a finetune. What serves stays as it is."""
    with services.sessions.begin() as session:
        FinetuneRepository(session).get(finetune_id)
        JobRepository(session).request_cancel(finetune_id)
    return _read(services, finetune_id)


@router.post("/{finetune_id}:pause", response_model=FinetuneResource, responses=_ACTS)
def pause_finetune(services: ServicesDep, finetune_id: UUID) -> FinetuneResource:
    """Pause a finetune: at once if it waits, else as soon as it has saved its work."""
    with services.sessions.begin() as session:
        FinetuneRepository(session).get(finetune_id)
        JobRepository(session).request_pause(finetune_id)
    return _read(services, finetune_id)


@router.post("/{finetune_id}:resume", response_model=FinetuneResource, responses=_ACTS)
def resume_finetune(services: ServicesDep, finetune_id: UUID) -> FinetuneResource:
    """Resume a paused finetune where it stopped."""
    with services.sessions.begin() as session:
        FinetuneRepository(session).get(finetune_id)
        JobRepository(session).resume(finetune_id)
    services.doorbell.ring(JobKind.FINETUNE, finetune_id)
    return _read(services, finetune_id)


@router.post("/{finetune_id}:retry", response_model=FinetuneResource, responses=_ACTS)
def retry_finetune(services: ServicesDep, finetune_id: UUID) -> FinetuneResource:
    """Retry a finetune that failed or was cancelled, on the same data set."""
    with services.sessions.begin() as session:
        FinetuneRepository(session).get(finetune_id)
        JobRepository(session).retry(finetune_id)
    services.doorbell.ring(JobKind.FINETUNE, finetune_id)
    return _read(services, finetune_id)


@router.get(
    "/{finetune_id}/curves",
    response_model=Curves,
    responses=refusals("finetune_not_found", "invalid_request"),
)
def get_finetune_curves(
    services: ServicesDep,
    *,
    finetune_id: UUID,
    max_points: Annotated[int, Query(ge=2, le=10_000)] = 1000,
) -> Curves:
    """Get the curves of a finetune as numbers, also while it runs."""
    points: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    with services.sessions() as session:
        _, job = FinetuneRepository(session).get(finetune_id)
        total_steps = job.progress_total
        events = JobEventRepository(session).of_types(finetune_id, (_METRICS, _EVALUATION))
        for event in events:
            (points if event.type == _METRICS else evaluations).append(event.data)
    return Curves(
        finetune_id=finetune_id,
        total_steps=total_steps,
        num_points=len(points),
        points=_thinned(points, max_points),
        evaluations=evaluations,
    )


@router.get(
    "/{finetune_id}/curves.png",
    response_class=Response,
    responses={
        200: {"description": "A PNG", "content": {"image/png": {}}},
        **refusals("finetune_not_found", "curves_not_ready"),
    },
)
def get_finetune_picture(services: ServicesDep, finetune_id: UUID) -> Response:
    """Get the curves of a finetune as a picture, drawn anew at each checkpoint."""
    with services.sessions() as session:
        FinetuneRepository(session).get(finetune_id)
    key = curves_key(finetune_id, CURVES_PICTURE)
    try:
        with services.blobs.open_read(key) as file:
            content = file.read()
    except BlobNotFound as error:
        raise ApiError(
            HTTPStatus.NOT_FOUND,
            "curves_not_ready",
            "There are no curves yet: they are drawn at the first checkpoint.",
        ) from error
    return Response(content, media_type="image/png", headers={"Cache-Control": "private, no-cache"})


@router.get(
    "/{finetune_id}/events",
    response_model=Page[EventResource],
    responses={
        200: EVENTS_ANSWER,
        204: {"description": "text/event-stream: it is over and the client knows all"},
        **refusals(
            "finetune_not_found", "invalid_page_token", "invalid_request", "too_many_streams"
        ),
    },
)
async def list_finetune_events(
    request: Request,
    services: ServicesDep,
    *,
    page: PageDep,
    finetune_id: UUID,
    after: AfterSeq = 0,
    last_event_id: LastEventId = None,
) -> Response:
    """List what happened to a finetune, or stream it: as GET /v1/jobs/{id}/events does."""
    await run_in_threadpool(_require, services, finetune_id)
    return await answer_with_events(
        services, request, job_id=finetune_id, page=page, after=after, last_event_id=last_event_id
    )


def _require(services: Services, finetune_id: UUID) -> None:
    with services.sessions() as session:
        FinetuneRepository(session).get(finetune_id)


def _plan(services: Services, request: FinetuneRequest) -> FinetunePlan:
    """Check a finetune in a transaction that leaves nothing."""
    with services.sessions() as session:
        admission = check_finetune(session, request)
        plan = FinetunePlan(
            task=request.task,
            name=request.model_name,
            base_model_id=admission.base.id,
            base_model=model_title(admission.base),
            dataset=finetune_dataset(admission.dataset, is_kept=request.dataset_id is not None),
            recipe=dataclasses.asdict(admission.recipe),
            gate=request.gate.model_dump(mode="json"),
            warnings=list(admission.warnings),
        )
        session.rollback()
    return plan


def _read(services: Services, finetune_id: UUID) -> FinetuneResource:
    with services.sessions() as session:
        return _resources(session, [FinetuneRepository(session).get(finetune_id)])[0]


def _resources(session: Session, found: Sequence[tuple[Finetune, Job]]) -> list[FinetuneResource]:
    ids = [finetune.id for finetune, _ in found]
    metrics = JobEventRepository(session).latest(ids, _METRICS, field="loss")
    models, datasets = ModelRepository(session), DatasetRepository(session)
    resources = []
    for finetune, job in found:
        dataset = datasets.get(finetune.dataset_id)  # the session knows each after the first time
        gate = FinetuneGate.model_validate(finetune.gate)
        # Once it is decided, the decision says it.
        warnings = [] if finetune.report is not None else warnings_of(gate, dataset)
        resources.append(
            finetune_resource(
                finetune,
                job,
                base=models.get(finetune.base_model_id),
                dataset=dataset,
                metrics=metrics.get(finetune.id),
                warnings=warnings,
            )
        )
    return resources


def _thinned(points: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Choose so many points evenly; the first and the last are always among them."""
    if len(points) <= most:
        return list(points)
    last = len(points) - 1
    return [points[round(index * last / (most - 1))] for index in range(most)]
