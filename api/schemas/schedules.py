"""Schedules as the API takes and shows them."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import ConfigDict, Field, field_validator
from pydantic.config import JsonDict

from api.schemas.finetunes import NEW_FINETUNE_EXAMPLE, NewFinetune
from api.schemas.resources import RequestBody, Resource, never_null
from policy.texts import Name
from store.models.tables import FireOutcome, MisfirePolicy, OverlapPolicy, Schedule, ScheduleFire

NEW_SCHEDULE_EXAMPLE: JsonDict = {
    "name": "every night",
    "cron": "30 2 * * *",
    "time_zone": "Europe/Berlin",
    "min_new_labels": 20,
    "finetune": NEW_FINETUNE_EXAMPLE,
}
SCHEDULE_EXAMPLE: JsonDict = {
    "id": "0198c0f3-1111-7aaa-8bbb-1234567890ab",
    "name": "every night",
    "cron": "30 2 * * *",
    "time_zone": "Europe/Berlin",
    "enabled": True,
    "min_new_labels": 20,
    "misfire_policy": "run_once",
    "overlap_policy": "skip",
    "finetune": NEW_FINETUNE_EXAMPLE,
    "next_fire_at": "2026-01-06T01:30:00Z",
    "created_at": "2026-01-05T11:20:00Z",
    "updated_at": "2026-01-05T11:20:00Z",
}
SCHEDULE_CHANGES_EXAMPLE: JsonDict = {"cron": "0 4 * * *", "min_new_labels": 50}
FIRE_EXAMPLE: JsonDict = {
    "schedule_id": "0198c0f3-1111-7aaa-8bbb-1234567890ab",
    "fire_time": "2026-01-06T01:30:00Z",
    "outcome": "skipped",
    "reason": "not_enough_labels",
    "detail": "3 new labels since the finetune of 2026-01-05 01:30 UTC: at least 20 are needed",
    "finetune_id": None,
    "is_manual": False,
    "created_at": "2026-01-06T01:30:01Z",
}

Cron = Annotated[Name, Field(description="five fields as in crontab, or six: seconds first")]
TimeZone = Annotated[Name, Field(description="of the IANA database, such as Europe/Berlin")]
NumLabels = Annotated[
    int,
    Field(
        ge=0,
        le=2**31 - 1,
        description="do nothing unless there are so many labels that its own last finetune "
        "(one that did not fail and was not cancelled) did not have",
    ),
]


class NewSchedule(RequestBody):
    """When to finetune, and how."""

    model_config = ConfigDict(json_schema_extra={"examples": [NEW_SCHEDULE_EXAMPLE]})

    name: Name
    cron: Cron
    time_zone: TimeZone = "UTC"
    enabled: bool = True
    min_new_labels: NumLabels = 1
    misfire_policy: MisfirePolicy = Field(
        default=MisfirePolicy.RUN_ONCE,
        description="of times that passed while nothing ran: skip, or run once for all of them",
    )
    overlap_policy: OverlapPolicy = Field(
        default=OverlapPolicy.SKIP,
        description="while its last finetune is not over: skip, or queue another",
    )
    finetune: NewFinetune = Field(description="as for POST /v1/finetunes")


class ScheduleChanges(RequestBody):
    """Changes to a schedule; what is left out stays. `finetune` is replaced as a whole."""

    model_config = ConfigDict(json_schema_extra=never_null(example=SCHEDULE_CHANGES_EXAMPLE))

    name: Name | None = None
    cron: Cron | None = None
    time_zone: TimeZone | None = None
    enabled: bool | None = None
    min_new_labels: NumLabels | None = None
    misfire_policy: MisfirePolicy | None = None
    overlap_policy: OverlapPolicy | None = None
    finetune: NewFinetune | None = None

    @field_validator("*")
    @classmethod
    def _cannot_go(cls, value: object) -> object:
        if value is None:
            raise ValueError("cannot be null: leave it out to keep it")
        return value


class ScheduleResource(Resource):
    """A schedule, and when it fires next."""

    model_config = ConfigDict(json_schema_extra={"examples": [SCHEDULE_EXAMPLE]})

    id: UUID
    name: str
    cron: str
    time_zone: str
    enabled: bool
    min_new_labels: int
    misfire_policy: MisfirePolicy
    overlap_policy: OverlapPolicy
    finetune: dict[str, Any]
    next_fire_at: datetime | None = Field(description="null while it is paused")
    created_at: datetime
    updated_at: datetime


class FireResource(Resource):
    """What one fire of a schedule did, or why it did nothing."""

    model_config = ConfigDict(json_schema_extra={"examples": [FIRE_EXAMPLE]})

    schedule_id: UUID
    fire_time: datetime = Field(description="when it was due")
    outcome: FireOutcome
    reason: str | None = Field(
        description="not_enough_labels, overlap, misfire, or refused: and a code of POST "
        "/v1/finetunes"
    )
    detail: str | None = Field(description="the same as a sentence")
    finetune_id: UUID | None
    is_manual: bool = Field(description="somebody asked for it with :run_now")
    created_at: datetime


def schedule_resource(schedule: Schedule) -> ScheduleResource:
    return ScheduleResource(
        id=schedule.id,
        name=schedule.name,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        enabled=schedule.enabled,
        min_new_labels=schedule.min_new_labels,
        misfire_policy=schedule.misfire_policy,
        overlap_policy=schedule.overlap_policy,
        finetune=schedule.finetune,
        next_fire_at=schedule.next_fire_at,
        created_at=schedule.created_at,
        updated_at=schedule.updated_at,
    )


def fire_resource(fire: ScheduleFire) -> FireResource:
    return FireResource(
        schedule_id=fire.schedule_id,
        fire_time=fire.fire_time,
        outcome=fire.outcome,
        reason=fire.reason,
        detail=fire.detail,
        finetune_id=fire.finetune_id,
        is_manual=fire.is_manual,
        created_at=fire.created_at,
    )
