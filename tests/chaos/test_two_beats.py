"""Two beats ring and two workers look: each fire of a schedule happens once. Real processes."""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from policy.registration import ensure_default
from policy.schedules import ON_TIME, create_schedule
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind
from store.models.finetunes import FinetuneRepository
from store.models.schedules import ScheduleRepository
from store.models.tables import FireOutcome
from tests.workers.labelled import add_questions
from tests.workers.service import wait_for
from tests.workers.small_models import save_recall_model

PERIOD = timedelta(seconds=10)
NUM_FIRES = 4


def create(service, name, **columns):
    with service.sessions.begin() as session:
        return create_schedule(
            session,
            cron="*/10 * * * * *",
            finetune={"task": "qa"},
            columns={"name": name, **columns},
        ).id


def read_fires(service, schedule_id):
    """What the fires did, the first one first."""
    with service.sessions.begin() as session:
        return list(ScheduleRepository(session).fires(schedule_id).items)[::-1]


def end_finetunes(service):
    """Do as a worker that is quick: the next fire overlaps with nothing."""
    with service.sessions.begin() as session:
        for finetune, job in FinetuneRepository(session).list().items:
            if job.finished_at is None:
                JobRepository(session).request_cancel(finetune.id)


@pytest.mark.slow
def test_two_beats_fire_each_schedule_once_each_time(service, tmp_path):
    ensure_default(
        service.sessions, service.blobs, mini_folder=save_recall_model(tmp_path / "recall")
    )
    with service.sessions.begin() as session:
        add_questions(session, [f"t{index}" for index in range(4)], split="train")
        add_questions(session, ["h"], split="holdout")
    for _ in range(2):
        service.start_reconciler()
    wait_for(lambda: service.logs().count("worker.ready") == 2)
    eager = create(service, "eager")
    patient = create(service, "patient", min_new_labels=1000)
    began = datetime.now(UTC)

    wait_for(
        lambda: end_finetunes(service) or len(read_fires(service, eager)) >= NUM_FIRES, every=0.3
    )
    time.sleep(3)  # a second beat's ring for the same fire would come now

    eager_fires, patient_fires = read_fires(service, eager), read_fires(service, patient)
    times = [fire.fire_time for fire in eager_fires]
    # None is missing and none came twice; each came at its time.
    assert {later - earlier for earlier, later in pairwise(times)} == {PERIOD}
    assert began < times[0] <= began + PERIOD
    assert all(fire.created_at - fire.fire_time < ON_TIME for fire in eager_fires)
    assert [fire.fire_time for fire in patient_fires][:NUM_FIRES] == times[:NUM_FIRES]
    assert {(fire.outcome, fire.reason) for fire in patient_fires} == {
        (FireOutcome.SKIPPED, "not_enough_labels")
    }
    # As many finetunes as fires that started one. On a slow machine two fires may come together,
    # and then the second meets the first one's.
    started = [fire for fire in eager_fires if fire.outcome == FireOutcome.STARTED]
    assert {fire.reason for fire in eager_fires} <= {None, "overlap"}
    assert len(started) >= NUM_FIRES / 2
    jobs = service.jobs(JobKind.FINETUNE)
    assert sorted(job.id for job in jobs) == sorted(fire.finetune_id for fire in started)
