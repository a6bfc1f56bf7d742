"""Schedules: finetunes that start by themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Response

from api.dependencies import IdempotencyKey, PageDep, Services, ServicesDep
from api.responses.answers import fresh, fresh_or_304, require_match
from api.responses.finetune_refusals import SETTINGS_CODES, finetune_refused, schedule_refused
from api.responses.problems import refusals
from api.schemas.resources import Page
from api.schemas.schedules import (
    FireResource,
    NewSchedule,
    ScheduleChanges,
    ScheduleResource,
    fire_resource,
    schedule_resource,
)
from policy.finetunes.admission import FinetuneRefused
from policy.finetunes.request import FinetuneRequest
from policy.fire_times import InvalidSchedule
from policy.schedules import change_schedule, create_schedule, run_schedule_now
from store.errors import ScheduleExists
from store.jobs.state import JobKind
from store.models.schedules import ScheduleRepository
from store.models.tables import FireOutcome, Schedule

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])

_WRONG: Final = ("malformed_json", "payload_too_large", "schedule_exists", "invalid_cron")
_WRONG_TOO: Final = ("invalid_time_zone", *SETTINGS_CODES)
IfMatch = Annotated[str | None, Header(description="the ETag of the schedule as seen")]


@router.post(
    "",
    status_code=201,
    response_model=ScheduleResource,
    responses={
        200: {
            "model": ScheduleResource,
            "description": "With an Idempotency-Key: this schedule was made before",
        },
        **refusals(*_WRONG, *_WRONG_TOO),
    },
)
def add_schedule(
    services: ServicesDep, *, new: NewSchedule, idempotency_key: IdempotencyKey = None
) -> Response:
    """Create a schedule: finetunes start by a cron expression and when there are new labels.

    Names are unique: another schedule of the same name is refused. With an Idempotency-Key the
    very same schedule again is answered with the one that is there.
    """
    columns = {
        "name": new.name,
        "time_zone": new.time_zone,
        "enabled": new.enabled,
        "min_new_labels": new.min_new_labels,
        "misfire_policy": new.misfire_policy,
        "overlap_policy": new.overlap_policy,
    }
    status = HTTPStatus.CREATED
    with _refusing(), services.sessions.begin() as session:
        try:
            schedule = create_schedule(
                session, cron=new.cron, finetune=new.finetune.to_json(), columns=columns
            )
        except ScheduleExists:
            known = ScheduleRepository(session).find(new.name)
            if idempotency_key is None or known is None or not _is_same(known, new, columns):
                raise
            schedule, status = known, HTTPStatus.OK
        resource = schedule_resource(schedule)
    return fresh(resource, status=status, location=f"/v1/schedules/{resource.id}")


@router.get("", response_model=Page[ScheduleResource], responses=refusals())
def list_schedules(services: ServicesDep) -> Page[ScheduleResource]:
    """List all schedules by name, each with when it fires next. There is one page."""
    with services.sessions() as session:
        items = [schedule_resource(each) for each in ScheduleRepository(session).list()]
    return Page(items=items, next_page_token=None)


@router.get(
    "/{schedule_id}",
    response_model=ScheduleResource,
    responses={
        304: {"description": "nothing changed since the ETag of If-None-Match"},
        **refusals("schedule_not_found"),
    },
)
def get_schedule(
    services: ServicesDep,
    *,
    schedule_id: UUID,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Get a schedule."""
    with services.sessions() as session:
        resource = schedule_resource(ScheduleRepository(session).get(schedule_id))
    return fresh_or_304(resource, if_none_match=if_none_match)


@router.patch(
    "/{schedule_id}",
    response_model=ScheduleResource,
    responses=refusals("schedule_not_found", "precondition_failed", *_WRONG, *_WRONG_TOO),
)
def update_schedule(
    services: ServicesDep,
    *,
    schedule_id: UUID,
    changes: ScheduleChanges,
    if_match: IfMatch = None,
) -> Response:
    """Change a schedule. When cron, time zone or `enabled` change, it fires anew from now on."""
    asked: dict[str, Any] = changes.model_dump(exclude_unset=True)
    if changes.finetune is not None:
        asked["finetune"] = changes.finetune.to_json()
    with _refusing(), services.sessions.begin() as session:
        # Held until the commit: what If-Match was compared with is what is changed.
        session.get(Schedule, schedule_id, with_for_update=True)
        before = ScheduleRepository(session).get(schedule_id)
        require_match(schedule_resource(before), if_match)
        return fresh(schedule_resource(change_schedule(session, schedule_id, changes=asked)))


@router.delete(
    "/{schedule_id}",
    status_code=204,
    responses=refusals("schedule_not_found", "precondition_failed"),
)
def delete_schedule(services: ServicesDep, *, schedule_id: UUID, if_match: IfMatch = None) -> None:
    """Delete a schedule and its fires. The finetunes that it started stay."""
    with services.sessions.begin() as session:
        session.get(Schedule, schedule_id, with_for_update=True)
        schedules = ScheduleRepository(session)
        require_match(schedule_resource(schedules.get(schedule_id)), if_match)
        schedules.delete(schedule_id)


@router.post(
    "/{schedule_id}:pause",
    response_model=ScheduleResource,
    responses=refusals("schedule_not_found"),
)
def pause_schedule(services: ServicesDep, schedule_id: UUID) -> ScheduleResource:
    """Pause a schedule: it starts nothing until it is resumed. What it started goes on."""
    return _enable(services, schedule_id, enabled=False)


@router.post(
    "/{schedule_id}:resume",
    response_model=ScheduleResource,
    responses=refusals("schedule_not_found", "invalid_cron", "invalid_time_zone"),
)
def resume_schedule(services: ServicesDep, schedule_id: UUID) -> ScheduleResource:
    """Resume a paused schedule; what it missed meanwhile is not made up for."""
    return _enable(services, schedule_id, enabled=True)


@router.post(
    "/{schedule_id}:unpause",
    response_model=ScheduleResource,
    responses=refusals("schedule_not_found", "invalid_cron", "invalid_time_zone"),
)
def unpause_schedule(services: ServicesDep, schedule_id: UUID) -> ScheduleResource:
    """Resume a paused schedule: another word for `:resume`."""
    return _enable(services, schedule_id, enabled=True)


@router.post(
    "/{schedule_id}:run_now",
    response_model=FireResource,
    responses=refusals("schedule_not_found"),
)
def run_schedule(services: ServicesDep, schedule_id: UUID) -> FireResource:
    """Fire a schedule once, now, however few new labels there are, and tell what that did.

    Its own times stay as they are. A finetune that is refused is a fire that `failed`, with the
    reason; so is one that was skipped because the one before is not over.
    """
    with services.sessions.begin() as session:
        resource = fire_resource(run_schedule_now(session, schedule_id))
    if resource.outcome == FireOutcome.STARTED:
        services.doorbell.ring(JobKind.FINETUNE, resource.finetune_id)
    return resource


@router.get(
    "/{schedule_id}/fires",
    response_model=Page[FireResource],
    responses=refusals("schedule_not_found", "invalid_page_token", "invalid_request"),
)
def list_schedule_fires(
    services: ServicesDep, *, page: PageDep, schedule_id: UUID
) -> Page[FireResource]:
    """List what the fires of a schedule did, and why one did nothing, the latest first."""
    with services.sessions() as session:
        found = ScheduleRepository(session).fires(
            schedule_id, page_size=page.page_size, page_token=page.page_token
        )
        items = [fire_resource(fire) for fire in found.items]
    return Page(items=items, next_page_token=found.next_page_token)


def _enable(services: Services, schedule_id: UUID, *, enabled: bool) -> ScheduleResource:
    with _refusing(), services.sessions.begin() as session:
        return schedule_resource(
            change_schedule(session, schedule_id, changes={"enabled": enabled})
        )


def _is_same(known: Schedule, new: NewSchedule, columns: dict[str, Any]) -> bool:
    same = all(getattr(known, name) == value for name, value in columns.items())
    return (
        same and known.cron == new.cron and _kept(known.finetune) == _kept(new.finetune.to_json())
    )


def _kept(finetune: dict[str, Any]) -> dict[str, Any]:
    """Return a finetune as it is kept, in which the order of what is listed does not count."""
    return FinetuneRequest.from_json(finetune).to_json()


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what the workers refuse into problems."""
    try:
        yield
    except InvalidSchedule as error:
        raise schedule_refused(error) from error
    except FinetuneRefused as error:
        raise finetune_refused(error, within="body.finetune") from error
