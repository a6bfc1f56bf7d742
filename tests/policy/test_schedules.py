from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from policy.finetunes.admission import FinetuneRefused
from policy.fire_times import InvalidSchedule
from policy.registration import ensure_default
from policy.schedules import change_schedule, create_schedule, fire_due, run_schedule_now
from store.errors import ScheduleExists, ScheduleNotFound
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind, JobState
from store.labels.tables import Dataset
from store.models.finetunes import FinetuneRepository
from store.models.schedules import ScheduleRepository
from store.models.tables import FireOutcome, Schedule
from store.table_base import Task
from tests.workers.labelled import add_questions
from tests.workers.small_models import save_recall_model

EVERY_TEN_SECONDS = "*/10 * * * * *"
DAILY = "30 2 * * *"


@pytest.fixture
def labelled(sessions, blobs, tmp_path):
    ensure_default(sessions, blobs, mini_folder=save_recall_model(tmp_path / "recall"))
    with sessions.begin() as session:
        add_questions(session, [f"t{index}" for index in range(4)], split="train")
        add_questions(session, ["h"], split="holdout")


def create(sessions, *, cron=DAILY, task="qa", **columns):
    with sessions.begin() as session:
        return create_schedule(
            session, cron=cron, finetune={"task": task}, columns={"name": "nightly"} | columns
        ).id


def make_due(sessions, schedule_id, *, ago=timedelta(seconds=1)):
    """Let a schedule be due since some time ago; gives that instant."""
    due_at = datetime.now(UTC).replace(microsecond=0) - ago
    with sessions.begin() as session:
        session.execute(
            update(Schedule).where(Schedule.id == schedule_id).values(next_fire_at=due_at)
        )
    return due_at


def read(sessions, schedule_id):
    with sessions.begin() as session:
        return ScheduleRepository(session).get(schedule_id)


def look(context):
    """Do what is due, as maintenance does; gives how many finetunes it started."""
    return fire_due(context.sessions, ring=context.doorbell.ring, is_stopping=context.is_stopping)


def fires(sessions, schedule_id):
    """What the fires did, the first one first."""
    with sessions.begin() as session:
        return list(ScheduleRepository(session).fires(schedule_id, page_size=500).items)[::-1]


def finish_jobs(sessions):
    """Let all finetunes have ended well."""
    with sessions.begin() as session:
        for job in JobRepository(session).list(kind=JobKind.FINETUNE).items:
            job.state, job.finished_at = JobState.SUCCEEDED, datetime.now(UTC)


def test_a_due_schedule_starts_its_finetune_once(context, sessions, labelled):
    schedule_id = create(sessions)
    due_at = make_due(sessions, schedule_id)

    started = [look(context), look(context)]

    assert started == [1, 0]
    (fire,) = fires(sessions, schedule_id)
    assert (fire.fire_time, fire.outcome, fire.reason) == (due_at, FireOutcome.STARTED, None)
    with sessions.begin() as session:
        finetune, job = FinetuneRepository(session).get(fire.finetune_id)
        assert (finetune.schedule_id, finetune.task) == (schedule_id, Task.QA)
        assert job.kind == JobKind.FINETUNE
    assert read(sessions, schedule_id).next_fire_at > datetime.now(UTC)
    assert context.doorbell.queue_length("finetune") == 1


def test_many_who_look_at_once_fire_once(service, sessions, labelled):
    ids = [create(sessions, name=f"schedule {index}") for index in range(3)]
    for schedule_id in ids:
        make_due(sessions, schedule_id)
    contexts = [service.context() for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(look, contexts))

    for context in contexts:
        context.close()
    assert sum(started) == 3
    assert [len(fires(sessions, schedule_id)) for schedule_id in ids] == [1, 1, 1]


def test_a_fire_that_is_recorded_starts_nothing_again(context, sessions, labelled):
    schedule_id = create(sessions)
    due_at = make_due(sessions, schedule_id)
    with sessions.begin() as session:
        ScheduleRepository(session).record_fire(schedule_id, due_at, outcome="started")

    assert look(context) == 0

    with sessions.begin() as session:
        assert JobRepository(session).list(kind=JobKind.FINETUNE).items == []
    assert len(fires(sessions, schedule_id)) == 1


def test_too_few_new_labels_are_recorded_as_skipped(context, sessions, labelled):
    schedule_id = create(sessions, min_new_labels=5)
    make_due(sessions, schedule_id, ago=timedelta(seconds=10))
    assert look(context) == 1  # all five are new to the first
    finish_jobs(sessions)
    with sessions.begin() as session:
        add_questions(session, ["n0", "n1"], split="train")
    make_due(sessions, schedule_id)

    assert look(context) == 0

    fire = fires(sessions, schedule_id)[-1]
    assert (fire.outcome, fire.reason) == (FireOutcome.SKIPPED, "not_enough_labels")
    assert "2 new labels since" in fire.detail
    assert "at least 5" in fire.detail


def test_labels_of_a_finetune_that_came_to_nothing_are_new_to_the_next(context, sessions, labelled):
    schedule_id = create(sessions, min_new_labels=5)
    make_due(sessions, schedule_id, ago=timedelta(seconds=10))
    look(context)
    with sessions.begin() as session:
        (job,) = JobRepository(session).list(kind=JobKind.FINETUNE).items
        JobRepository(session).request_cancel(job.id)
    make_due(sessions, schedule_id)

    assert look(context) == 1


def test_new_labels_are_counted_within_the_schedules_filter(context, sessions, labelled):
    schedule_id = create(sessions, min_new_labels=2)
    with sessions.begin() as session:
        body = {"task": "qa", "labels": {"sources": ["people"]}}
        change_schedule(session, schedule_id, changes={"finetune": body})
        add_questions(session, ["p"], split="train", source="people")
    make_due(sessions, schedule_id)

    look(context)

    (fire,) = fires(sessions, schedule_id)
    assert (fire.reason, fire.detail) == (
        "not_enough_labels",
        "1 new label that this schedule has not trained on yet: at least 2 are needed",
    )


def test_a_finetune_that_still_runs_skips_the_next_fire(context, sessions, labelled):
    schedule_id = create(sessions)
    for ago in (2, 1):
        make_due(sessions, schedule_id, ago=timedelta(seconds=ago))
        look(context)

    first, second = fires(sessions, schedule_id)
    assert (second.outcome, second.reason) == (FireOutcome.SKIPPED, "overlap")
    assert str(first.finetune_id) in second.detail


def test_with_the_policy_queue_one_finetune_waits_for_the_other(context, sessions, labelled):
    schedule_id = create(sessions, overlap_policy="queue")
    for ago in (3, 2, 1):
        make_due(sessions, schedule_id, ago=timedelta(seconds=ago))
        look(context)

    assert [fire.outcome for fire in fires(sessions, schedule_id)] == [
        FireOutcome.STARTED,
        FireOutcome.STARTED,
        FireOutcome.SKIPPED,  # one waits already
    ]


def test_a_refused_finetune_is_recorded_with_its_code_and_leaves_no_data_set(
    context, sessions, blobs, tmp_path
):
    ensure_default(sessions, blobs, mini_folder=save_recall_model(tmp_path / "recall"))
    with sessions.begin() as session:
        add_questions(session, ["a", "b"], split="train")
    schedule_id = create(sessions)
    make_due(sessions, schedule_id)

    look(context)

    (fire,) = fires(sessions, schedule_id)
    assert (fire.outcome, fire.reason) == (FireOutcome.FAILED, "refused:holdout_empty")
    assert "none of the 2 labels" in fire.detail
    with sessions.begin() as session:
        assert session.scalars(select(Dataset)).all() == []


def test_missed_fires_are_one_skipped_row(context, sessions, labelled):
    schedule_id = create(sessions, cron=EVERY_TEN_SECONDS, misfire_policy="skip")
    due_at = make_due(sessions, schedule_id, ago=timedelta(hours=1))

    look(context)

    missed, *on_time = fires(sessions, schedule_id)
    assert (missed.outcome, missed.reason) == (FireOutcome.SKIPPED, "misfire")
    assert f"from {due_at:%Y-%m-%d %H:%M:%S} to {missed.fire_time:%Y-%m-%d %H:%M:%S}" in (
        missed.detail
    )
    # Those of the last minute are late, not missed.
    assert [fire.reason for fire in on_time] == [None, *["overlap"] * (len(on_time) - 1)]
    assert 5 <= len(on_time) <= 7


def test_missed_fires_run_once_where_that_is_wanted(context, sessions, labelled):
    schedule_id = create(sessions, misfire_policy="run_once")
    due_at = make_due(sessions, schedule_id, ago=timedelta(hours=70))

    assert look(context) == 1

    (fire,) = fires(sessions, schedule_id)
    assert fire.outcome == FireOutcome.STARTED
    assert due_at < fire.fire_time < datetime.now(UTC)  # the last of two or three


def test_run_now_needs_no_new_labels_but_no_running_finetune_either(context, sessions, labelled):
    schedule_id = create(sessions, min_new_labels=1000, enabled=False)

    with sessions.begin() as session:
        first = run_schedule_now(session, schedule_id)
    with sessions.begin() as session:
        second = run_schedule_now(session, schedule_id)

    assert (first.outcome, first.is_manual) == (FireOutcome.STARTED, True)
    assert (second.outcome, second.reason) == (FireOutcome.SKIPPED, "overlap")
    assert read(sessions, schedule_id).next_fire_at is None  # still paused


def test_a_paused_schedule_does_not_make_up_for_what_it_missed(context, sessions, labelled):
    schedule_id = create(sessions, cron=EVERY_TEN_SECONDS)
    with sessions.begin() as session:
        paused = change_schedule(session, schedule_id, changes={"enabled": False})
        assert paused.next_fire_at is None
    assert look(context) == 0

    with sessions.begin() as session:
        before = datetime.now(UTC)
        resumed = change_schedule(session, schedule_id, changes={"enabled": True})

    assert before < resumed.next_fire_at <= before + timedelta(seconds=11)
    assert fires(sessions, schedule_id) == []


def test_another_cron_or_zone_moves_the_next_fire(sessions, labelled):
    schedule_id = create(sessions, cron="0 12 1 1 *")
    before = read(sessions, schedule_id).next_fire_at
    with sessions.begin() as session:
        tokyo = change_schedule(
            session, schedule_id, changes={"time_zone": "Asia/Tokyo"}
        ).next_fire_at
        renamed = change_schedule(session, schedule_id, changes={"name": "other"}).next_fire_at

    assert before - tokyo == timedelta(hours=9)
    assert renamed == tokyo


def test_a_schedule_that_could_never_start_anything_is_refused(sessions, labelled):
    with pytest.raises(InvalidSchedule):
        create(sessions, cron="never")
    with pytest.raises(InvalidSchedule):
        create(sessions, time_zone="Mars/Olympus")
    with pytest.raises(FinetuneRefused):
        create(sessions, task="recall")
    schedule_id = create(sessions)
    with pytest.raises(ScheduleExists):
        create(sessions)
    wrong = {"finetune": {"task": "qa", "recipe": {"clps": 3}}}
    with sessions.begin() as session, pytest.raises(FinetuneRefused):
        change_schedule(session, schedule_id, changes=wrong)
    with sessions.begin() as session, pytest.raises(ScheduleNotFound):
        run_schedule_now(session, uuid4())


def test_a_schedule_that_breaks_keeps_no_other_from_firing(context, sessions, labelled):
    broken = create(sessions, name="broken")
    with sessions.begin() as session:
        session.execute(update(Schedule).where(Schedule.id == broken).values(cron="never"))
    sound = create(sessions, name="sound")
    make_due(sessions, broken, ago=timedelta(seconds=2))
    make_due(sessions, sound)

    assert look(context) == 1

    assert fires(sessions, broken)[-1].reason == "invalid_cron"
    assert not read(sessions, broken).enabled
    assert [fire.outcome for fire in fires(sessions, sound)] == [FireOutcome.STARTED]
