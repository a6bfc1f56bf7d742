from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from store.errors import (
    FinetuneNotFound,
    IdempotencyConflict,
    InvalidPageToken,
    ScheduleExists,
    ScheduleNotFound,
)
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.labels.datasets import DatasetRepository
from store.models.finetunes import FinetuneRepository
from store.models.repository import ModelRepository
from store.models.schedules import ScheduleRepository

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def finetunes(session):
    return FinetuneRepository(session)


@pytest.fixture
def schedules(session):
    return ScheduleRepository(session)


def register(session, name="base"):
    return ModelRepository(session).register(
        name=name,
        version="1",
        heads=[],
        tasks=["qa"],
        folder_key="k",
        sha256="s",
        visual_sha256="v",
        config={},
    )


def start(session, *, key=None, asked="qa", **values):
    job = JobRepository(session).enqueue(
        NewJob(JobKind.FINETUNE, {"asked": asked}, idempotency_key=key)
    )
    columns = {
        "name": "clipbert-qa",
        "task": "qa",
        "base_model_id": register(session).id,
        "dataset_id": DatasetRepository(session).freeze("qa").id,
        "recipe": {"epochs": 1},
        "gate": {"min_gain": 0.0},
        "request": {"task": "qa"},
    }
    return FinetuneRepository(session).create(job, **(columns | values))


def add_schedule(schedules, name="nightly", **columns):
    values = {"name": name, "cron": "0 2 * * *", "finetune": {"task": "qa"}}
    return schedules.create(**(values | columns))


def test_a_finetune_has_its_jobs_id_and_what_was_asked(finetunes, session):
    made = start(session)

    finetune, job = finetunes.get(made.id)

    assert finetune.id == job.id
    assert (finetune.name, finetune.task, finetune.recipe) == ("clipbert-qa", "qa", {"epochs": 1})
    assert (finetune.model_id, finetune.report, finetune.completed_at) == (None, None, None)
    assert finetune.created_at is not None
    with pytest.raises(FinetuneNotFound):
        finetunes.get(uuid4())


def test_a_repeated_request_finds_its_finetune(session):
    first = start(session, key="k")

    assert start(session, key="k").id == first.id
    with pytest.raises(IdempotencyConflict):
        start(session, key="k", asked="retrieval")


def test_a_finetune_is_completed_with_its_model_and_report(finetunes, session):
    finetune = start(session)
    model = register(session, "candidate")

    finetunes.complete(finetune.id, model_id=model.id, report={"code": "no_gain"})

    done, _ = finetunes.get(finetune.id)
    assert (done.model_id, done.report) == (model.id, {"code": "no_gain"})
    assert done.completed_at is not None
    assert finetunes.of_model(model.id).id == finetune.id
    assert finetunes.of_model(uuid4()) is None
    with pytest.raises(FinetuneNotFound):
        finetunes.complete(uuid4(), model_id=None, report={})


def test_finetunes_are_listed_the_newest_first(finetunes, schedules, session):
    schedule = add_schedule(schedules)
    made = [start(session).id, start(session, schedule_id=schedule.id).id, start(session).id]

    first = finetunes.list(page_size=2)
    rest = finetunes.list(page_size=2, page_token=first.next_page_token)

    assert [row.id for row, _ in [*first.items, *rest.items]] == made[::-1]
    assert [row.id for row, _ in finetunes.list(schedule_id=schedule.id).items] == [made[1]]
    assert finetunes.list(task="retrieval").items == []


def test_a_schedules_finetunes_are_found(finetunes, schedules, session):
    schedule = add_schedule(schedules)
    first = start(session, schedule_id=schedule.id)
    second = start(session, schedule_id=schedule.id)
    start(session)
    JobRepository(session).request_cancel(first.id)

    assert [job.id for job in finetunes.active_of_schedule(schedule.id)] == [second.id]
    assert finetunes.last_of_schedule(schedule.id).id == second.id
    JobRepository(session).request_cancel(second.id)
    assert finetunes.last_of_schedule(schedule.id) is None  # nothing came of either
    assert finetunes.last_of_schedule(uuid4()) is None


def test_a_schedule_is_made_found_changed_and_deleted(finetunes, schedules, session):
    schedule = add_schedule(schedules)
    finetune = start(session, schedule_id=schedule.id)

    changed = schedules.update(schedule.id, {"enabled": False, "min_new_labels": 5})

    assert (schedule.enabled, schedule.time_zone) == (False, "UTC")
    assert (schedule.misfire_policy, schedule.overlap_policy) == ("run_once", "skip")
    assert (changed.min_new_labels, changed.name) == (5, "nightly")
    assert schedules.find("nightly").id == schedule.id
    schedules.delete(schedule.id)
    assert schedules.list() == []
    assert finetunes.get(finetune.id)[0].schedule_id is None
    for unknown in (schedules.get, schedules.delete, schedules.fires):
        with pytest.raises(ScheduleNotFound):
            unknown(schedule.id)
    with pytest.raises(ScheduleNotFound):
        schedules.update(schedule.id, {"enabled": True})


def test_two_schedules_cannot_have_one_name(schedules):
    add_schedule(schedules)
    other = add_schedule(schedules, "weekly")

    with pytest.raises(ScheduleExists):
        add_schedule(schedules)
    with pytest.raises(ScheduleExists):
        schedules.update(other.id, {"name": "nightly"})
    assert [schedule.name for schedule in schedules.list()] == ["nightly", "weekly"]


def test_only_enabled_schedules_whose_time_has_come_are_due(schedules):
    due = add_schedule(schedules, "due", next_fire_at=NOON)
    add_schedule(schedules, "later", next_fire_at=NOON + MINUTE)
    add_schedule(schedules, "off", next_fire_at=NOON, enabled=False)
    add_schedule(schedules, "never")

    assert [schedule.id for schedule in schedules.lock_due(NOON)] == [due.id]
    assert schedules.lock_due(NOON - MINUTE) == []
    assert [schedule.name for schedule in schedules.lock_due()] == ["due", "later"]


def test_a_due_schedule_is_locked_by_one(sessions):
    with sessions.begin() as session:
        add_schedule(ScheduleRepository(session), next_fire_at=NOON)
    with sessions.begin() as first, sessions.begin() as second:
        assert len(ScheduleRepository(first).lock_due()) == 1
        assert ScheduleRepository(second).lock_due() == []


def test_a_fire_is_recorded_once(schedules, session):
    schedule = add_schedule(schedules)
    finetune = start(session, schedule_id=schedule.id)

    first = schedules.record_fire(
        schedule.id, NOON, outcome="started", finetune_id=finetune.id, detail="12 new labels"
    )
    again = schedules.record_fire(schedule.id, NOON, outcome="skipped", reason="overlap")

    assert (first, again) == (True, False)
    [fire] = schedules.fires(schedule.id).items
    assert (fire.outcome, fire.reason, fire.is_manual) == ("started", None, False)
    assert (fire.finetune_id, fire.detail) == (finetune.id, "12 new labels")


def test_fires_are_listed_the_latest_first(schedules):
    schedule = add_schedule(schedules)
    times = [NOON + n * MINUTE + timedelta(microseconds=n) for n in range(5)]
    for fire_time in times:
        schedules.record_fire(schedule.id, fire_time, outcome="skipped", reason="overlap")

    first = schedules.fires(schedule.id, page_size=3)
    rest = schedules.fires(schedule.id, page_size=3, page_token=first.next_page_token)

    assert [fire.fire_time for fire in [*first.items, *rest.items]] == times[::-1]
    assert rest.next_page_token is None
    with pytest.raises(InvalidPageToken):
        schedules.fires(add_schedule(schedules, "b").id, page_token=first.next_page_token)
