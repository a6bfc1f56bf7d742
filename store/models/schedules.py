"""Schedules: when to finetune anew, and what each of their fires did."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.errors import ScheduleExists, ScheduleNotFound
from store.identifiers import new_id
from store.models.tables import FireOutcome, Schedule, ScheduleFire
from store.pages import Page, PageTokens, clamp_page_size


class ScheduleRepository:
    """Every query about schedules.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, **columns: object) -> Schedule:
        """Insert a schedule.

        Args:
            columns: of its row, by name; `name`, `cron` and `finetune` are needed.

        Raises:
            ScheduleExists: another one has this name.
        """
        schedule = Schedule(**({"id": new_id()} | columns))
        try:
            with self._session.begin_nested():
                self._session.add(schedule)
        except IntegrityError as error:
            raise ScheduleExists(str(columns.get("name"))) from error
        return self.get(schedule.id)

    def get(self, schedule_id: UUID) -> Schedule:
        """Get a schedule as it is now.

        Raises:
            ScheduleNotFound: there is none with this id.
        """
        schedule = self._session.get(Schedule, schedule_id, populate_existing=True)
        if schedule is None:
            raise ScheduleNotFound(schedule_id)
        return schedule

    def find(self, name: str) -> Schedule | None:
        """Find a schedule by its name."""
        return self._session.scalar(select(Schedule).where(Schedule.name == name))

    def list(self) -> Sequence[Schedule]:
        """List all schedules, by name."""
        return self._session.scalars(select(Schedule).order_by(Schedule.name)).all()

    def update(self, schedule_id: UUID, changes: Mapping[str, Any]) -> Schedule:
        """Change columns of a schedule, by name.

        Raises:
            ScheduleNotFound: there is none with this id.
            ScheduleExists: another one has this name.
        """
        changed = (
            update(Schedule)
            .where(Schedule.id == schedule_id)
            .values(**changes, updated_at=func.now())
            .execution_options(synchronize_session=False)
        )
        try:
            with self._session.begin_nested():
                self._session.execute(changed)
        except IntegrityError as error:
            raise ScheduleExists(changes.get("name", "")) from error
        return self.get(schedule_id)

    def delete(self, schedule_id: UUID) -> None:
        """Delete a schedule and what its fires did; its finetunes stay.

        Raises:
            ScheduleNotFound: there is none with this id.
        """
        self.get(schedule_id)
        self._session.execute(delete(Schedule).where(Schedule.id == schedule_id))

    def lock_due(
        self,
        now: datetime | None = None,
        *,
        limit: int | None = None,
        without: Collection[UUID] = (),
    ) -> Sequence[Schedule]:
        """Return the schedules that are to fire, as nobody else gets them before the commit.

        Args:
            now: None is the database's clock.
            limit: at most so many, those that are due for the longest time; None gives all.
            without: leave out these.
        """
        query = (
            select(Schedule)
            .where(
                Schedule.enabled,
                Schedule.next_fire_at <= (func.clock_timestamp() if now is None else now),
                Schedule.id.not_in(without),
            )
            .order_by(Schedule.next_fire_at, Schedule.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return self._session.scalars(query.execution_options(populate_existing=True)).all()

    def record_fire(
        self,
        schedule_id: UUID,
        fire_time: datetime,
        *,
        outcome: FireOutcome | str,
        reason: str | None = None,
        detail: str | None = None,
        finetune_id: UUID | None = None,
        is_manual: bool = False,
    ) -> bool:
        """Write down what a fire did, unless that is written already.

        Args:
            schedule_id: the schedule.
            fire_time: the instant that it was due at, not when somebody came to it.
            outcome: what it did.
            reason: why it did nothing, as a code.
            detail: the same as a sentence.
            finetune_id: what it started.
            is_manual: a person asked for it.

        Returns:
            False if this fire is recorded already.
        """
        inserted = (
            insert(ScheduleFire)
            .values(
                schedule_id=schedule_id,
                fire_time=fire_time,
                outcome=FireOutcome(outcome),
                reason=reason,
                detail=detail,
                finetune_id=finetune_id,
                is_manual=is_manual,
            )
            .on_conflict_do_nothing()
            .returning(ScheduleFire.schedule_id)
        )
        return self._session.scalar(inserted) is not None

    def fires(
        self, schedule_id: UUID, *, page_size: int = 50, page_token: str | None = None
    ) -> Page[ScheduleFire]:
        """List what the fires of a schedule did, the latest first.

        Raises:
            ScheduleNotFound: there is none with this id.
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        self.get(schedule_id)
        size, tokens = clamp_page_size(page_size), PageTokens("fires", schedule_id=schedule_id)
        query = select(ScheduleFire).where(ScheduleFire.schedule_id == schedule_id)
        if page_token is not None:
            query = query.where(ScheduleFire.fire_time < tokens.instant_of(page_token))
        query = query.order_by(ScheduleFire.fire_time.desc()).limit(size + 1)
        rows = self._session.scalars(query.execution_options(populate_existing=True)).all()
        more = len(rows) > size
        return Page(rows[:size], tokens.of_instant(rows[size - 1].fire_time) if more else None)
