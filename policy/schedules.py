"""Start finetunes when their schedules say so, each fire once. Never imports torch.

Beat rings every second; what is due stands in PostgreSQL. Any number of beats and workers may look
at once: a due schedule is locked while its fires are done, and a fire is a row that can be written
once. What a fire did, or why it did nothing, stands in that row.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from policy.finetunes.admission import (
    FinetuneRefused,
    FinetuneRequest,
    check_settings,
    request_finetune,
)
from policy.fire_times import InvalidSchedule, last_fire, next_fire
from store.database import Sessions
from store.jobs.state import JobKind
from store.labels.datasets import DatasetRepository
from store.models.finetunes import FinetuneRepository
from store.models.schedules import ScheduleRepository
from store.models.tables import FireOutcome, MisfirePolicy, OverlapPolicy, Schedule, ScheduleFire

log = structlog.get_logger(__name__)

ON_TIME: Final = timedelta(seconds=60)
"""A fire that is later than this was missed: nothing ran that could have done it."""

_WHEN: Final = ("cron", "time_zone", "enabled")
_MOST_QUEUED: Final = 2  # one runs, one waits


@dataclass(frozen=True)
class _Deed:
    """What a fire did."""

    outcome: FireOutcome
    reason: str | None = None
    detail: str | None = None
    finetune_id: UUID | None = None


def create_schedule(
    session: Session, *, cron: str, finetune: Mapping[str, Any], columns: Mapping[str, Any]
) -> Schedule:
    """Write a schedule that fires from now on.

    Args:
        session: in a transaction of the caller's.
        cron: when; see `policy.fire_times`.
        finetune: what; the body of POST /v1/finetunes.
        columns: others of its row, by name; `name` is needed.

    Raises:
        InvalidSchedule: `invalid_cron` or `invalid_time_zone`.
        FinetuneRefused: the finetune can never be done as it is written.
        ScheduleExists: another one has this name.
    """
    others: dict[str, Any] = {"time_zone": "UTC", "enabled": True, **columns}
    first = next_fire(cron, others["time_zone"], after=_now(session))
    return ScheduleRepository(session).create(
        cron=cron,
        finetune=_checked(finetune),
        next_fire_at=first if others["enabled"] else None,
        **others,
    )


def change_schedule(session: Session, schedule_id: UUID, *, changes: Mapping[str, Any]) -> Schedule:
    """Change a schedule. What it missed while it was paused is not made up for.

    Args:
        session: in a transaction of the caller's.
        schedule_id: the schedule.
        changes: of its columns, by name.

    Raises:
        ScheduleNotFound: there is none with this id.
        InvalidSchedule, FinetuneRefused, ScheduleExists: as `create_schedule`.
    """
    schedules = ScheduleRepository(session)
    schedule = _lock(session, schedule_id)
    values = dict(changes)
    if "finetune" in values:
        values["finetune"] = _checked(values["finetune"])
    if any(values.get(name, getattr(schedule, name)) != getattr(schedule, name) for name in _WHEN):
        when = {name: values.get(name, getattr(schedule, name)) for name in _WHEN}
        following = next_fire(when["cron"], when["time_zone"], after=_now(session))
        values["next_fire_at"] = following if when["enabled"] else None
    return schedules.update(schedule_id, values) if values else schedule


def run_schedule_now(session: Session, schedule_id: UUID) -> ScheduleFire:
    """Fire a schedule because a person asks for it, however few new labels there are.

    Args:
        session: in a transaction of the caller's; after its commit `finetune` may be rung.
        schedule_id: the schedule; it may be paused.

    Returns:
        What the fire did.

    Raises:
        ScheduleNotFound: there is none with this id.
    """
    schedule = _lock(session, schedule_id)
    fire_time = _now(session)
    _fire(session, schedule, fire_time, is_manual=True)
    return session.get_one(ScheduleFire, (schedule_id, fire_time))


def fire_due(
    sessions: Sessions, *, ring: Callable[[JobKind], object], is_stopping: Callable[[], bool]
) -> int:
    """Do all fires that are due.

    Args:
        sessions: for transactions of its own, one for each schedule.
        ring: called after the commit if a job of this kind was started.
        is_stopping: whether what is still due is to be left to the next look.

    Returns:
        How many finetunes they started.
    """
    num_started = 0
    failed: set[UUID] = set()
    while not is_stopping():
        schedule_id: UUID | None = None
        try:
            # One schedule a transaction: what goes wrong with one keeps no other from firing.
            with sessions.begin() as session:
                now = _now(session)
                # Only one is held: freezing a million labels takes long, and others are due too.
                due = ScheduleRepository(session).lock_due(now, limit=1, without=failed)
                if not due:
                    break
                schedule_id = due[0].id
                num_started += _fire_schedule(session, due[0], now)
        except Exception:  # an edge: the next look tries again
            if schedule_id is None:
                raise
            failed.add(schedule_id)
            log.exception("schedule.failed", schedule_id=str(schedule_id))
    if num_started:
        ring(JobKind.FINETUNE)
    return num_started


def _fire_schedule(session: Session, schedule: Schedule, now: datetime) -> int:
    """Do the fires of one due schedule and say when it is due next; returns how many started."""
    try:
        due = list(_due_fires(schedule, now))
        following = next_fire(schedule.cron, schedule.time_zone, after=now)
    except InvalidSchedule as error:  # such as a time zone that no longer exists
        _record(session, schedule, now, _Deed(FireOutcome.FAILED, error.code, str(error)))
        ScheduleRepository(session).update(schedule.id, {"next_fire_at": None, "enabled": False})
        return 0
    num_started = 0
    for fire_time, is_missed in due:
        if is_missed and schedule.misfire_policy == MisfirePolicy.SKIP:
            deed = _Deed(FireOutcome.SKIPPED, "misfire", _missed_sentence(schedule, fire_time))
            _record(session, schedule, fire_time, deed)
        else:
            num_started += _fire(session, schedule, fire_time)
    ScheduleRepository(session).update(schedule.id, {"next_fire_at": following})
    return num_started


def _due_fires(schedule: Schedule, now: datetime) -> Iterator[tuple[datetime, bool]]:
    """Yield the fires that are due, each with whether it was missed: all missed ones are one."""
    fire_time = schedule.next_fire_at
    if fire_time is None:
        return
    fire_time = fire_time.astimezone(UTC)
    if fire_time < now - ON_TIME:
        last = last_fire(schedule.cron, schedule.time_zone, until=now - ON_TIME)
        fire_time = max(fire_time, last)
        yield fire_time, True
        fire_time = next_fire(schedule.cron, schedule.time_zone, after=fire_time)
    while fire_time <= now:
        yield fire_time, False
        fire_time = next_fire(schedule.cron, schedule.time_zone, after=fire_time)


def _fire(
    session: Session, schedule: Schedule, fire_time: datetime, *, is_manual: bool = False
) -> bool:
    """Do one fire and write down what it did; returns whether it started a finetune."""
    with session.begin_nested() as savepoint:
        deed = _start_or_skip(session, schedule, is_manual=is_manual)
        if not _record(session, schedule, fire_time, deed, is_manual=is_manual):
            savepoint.rollback()  # it was done already; nothing is started a second time
            return False
    return deed.outcome == FireOutcome.STARTED


def _start_or_skip(session: Session, schedule: Schedule, *, is_manual: bool) -> _Deed:
    active = FinetuneRepository(session).active_of_schedule(schedule.id)
    most = _MOST_QUEUED if schedule.overlap_policy == OverlapPolicy.QUEUE else 1
    if len(active) >= most:
        why = f"finetune {active[-1].id} of this schedule is still {active[-1].state}"
        return _Deed(FireOutcome.SKIPPED, "overlap", why)
    try:
        request = FinetuneRequest.from_json(schedule.finetune)
        too_few = None if is_manual else _too_few_labels(session, schedule, request)
        if too_few is not None:
            return _Deed(FireOutcome.SKIPPED, "not_enough_labels", too_few)
        with session.begin_nested():  # a refused one leaves no data set behind
            finetune = request_finetune(session, request, schedule_id=schedule.id)
    except FinetuneRefused as error:
        return _Deed(FireOutcome.FAILED, f"refused:{error.code}", str(error))
    return _Deed(FireOutcome.STARTED, finetune_id=finetune.id)


def _too_few_labels(session: Session, schedule: Schedule, request: FinetuneRequest) -> str | None:
    """Describe how many labels are missing since the last finetune; None if there are enough."""
    if schedule.min_new_labels == 0:
        return None
    last = FinetuneRepository(session).last_of_schedule(schedule.id)
    count = DatasetRepository(session).count_new(
        None if last is None else last.dataset_id,
        request.task,
        filter=request.labels.as_filter(),
        only_ready=True,
    )
    if count >= schedule.min_new_labels:
        return None
    since = (
        " that this schedule has not trained on yet"
        if last is None
        else f" since this schedule's finetune of {last.created_at:%Y-%m-%d %H:%M} UTC"
    )
    labels = "1 new label" if count == 1 else f"{count} new labels"
    return f"{labels}{since}: at least {schedule.min_new_labels} are needed"


def _missed_sentence(schedule: Schedule, last: datetime) -> str:
    first = last if schedule.next_fire_at is None else schedule.next_fire_at
    if first >= last:
        return f"nothing ran at {last:%Y-%m-%d %H:%M:%S} UTC"
    return f"nothing ran from {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC"


def _record(
    session: Session,
    schedule: Schedule,
    fire_time: datetime,
    deed: _Deed,
    *,
    is_manual: bool = False,
) -> bool:
    is_first = ScheduleRepository(session).record_fire(
        schedule.id,
        fire_time,
        outcome=deed.outcome,
        reason=deed.reason,
        detail=deed.detail,
        finetune_id=deed.finetune_id,
        is_manual=is_manual,
    )
    if is_first:
        log.info(
            "schedule.fired",
            schedule=schedule.name,
            fire_time=fire_time.isoformat(),
            outcome=deed.outcome,
            reason=deed.reason,
        )
    return is_first


def _checked(finetune: Mapping[str, Any]) -> dict[str, Any]:
    request = FinetuneRequest.from_json(finetune)
    check_settings(request)
    return request.to_json()


def _lock(session: Session, schedule_id: UUID) -> Schedule:
    """Keep others from firing or changing a schedule until the commit."""
    session.execute(select(Schedule.id).where(Schedule.id == schedule_id).with_for_update())
    return ScheduleRepository(session).get(schedule_id)


def _now(session: Session) -> datetime:
    """Read the database's clock: the machines' may differ."""
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return now.astimezone(UTC)
