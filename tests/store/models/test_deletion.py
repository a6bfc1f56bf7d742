import pytest

from store.errors import ModelNeeded, ModelNotFound
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.labels.datasets import DatasetRepository
from store.models.deletion import ModelDeletion
from store.models.finetunes import FinetuneRepository
from store.models.repository import GenerationRepository, ModelRepository
from store.models.schedules import ScheduleRepository
from store.table_base import Task


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def models(session):
    return ModelRepository(session)


@pytest.fixture
def deletion(session):
    return ModelDeletion(session)


def register(models, version, tasks=("qa",)):
    return models.register(
        name="m",
        version=version,
        heads=["qa"],
        tasks=tasks,
        folder_key=f"models/{version}",
        sha256=version,
        visual_sha256="v",
        config={},
    )


def add_finetune(session, base, result=None, *, is_over=True):
    job = JobRepository(session).enqueue(NewJob(JobKind.FINETUNE, {}))
    dataset = DatasetRepository(session).freeze("qa")
    finetunes = FinetuneRepository(session)
    finetunes.create(
        job,
        name="m",
        task="qa",
        base_model_id=base.id,
        dataset_id=dataset.id,
        recipe={},
        gate={},
        request={},
    )
    finetunes.complete(job.id, model_id=result and result.id, report={})
    if is_over:
        JobRepository(session).request_cancel(job.id)
    return job.id


def test_a_deleted_model_is_gone_for_people_and_its_row_is_not(models, deletion):
    model = register(models, "1")

    deletion.delete(model.id)

    assert models.list() == []
    assert models.find("m", "1") is None
    with pytest.raises(ModelNotFound):
        models.live(model.id)
    with pytest.raises(ModelNotFound):
        models.promote(model.id, ["qa"])
    with pytest.raises(ModelNotFound):
        deletion.delete(model.id)
    assert models.get(model.id).name == "m"


def test_the_name_of_a_deleted_model_is_free(models, deletion):
    first = register(models, "1")
    deletion.delete(first.id)

    again = register(models, "1")

    assert again.id != first.id
    assert [model.id for model in models.list()] == [again.id]


def test_files_are_listed_until_they_are_removed(models, deletion):
    model = register(models, "1")
    assert deletion.with_files() == []
    deletion.delete(model.id)

    listed = deletion.with_files()
    deletion.note_files_removed(model.id)

    assert listed == [(model.id, "models/1")]
    assert deletion.with_files() == []


def test_what_serves_or_served_just_before_is_not_deleted(models, deletion):
    oldest, older, newest = (register(models, version) for version in "123")
    for model in (oldest, older, newest):
        models.promote(model.id, ["qa"])

    with pytest.raises(ModelNeeded, match="it serves qa"):
        deletion.delete(newest.id)
    with pytest.raises(ModelNeeded, match="a rollback of qa would bring it back"):
        deletion.delete(older.id)
    deletion.delete(oldest.id)

    models.rollback(newest.id)
    assert models.serving("qa").id == older.id
    models.rollback(older.id)  # what was before it was deleted: nobody serves
    assert models.serving("qa") is None


def test_the_maker_of_an_index_is_kept_as_long_as_the_index(models, deletion, session):
    model = register(models, "1")
    generations = GenerationRepository(session)
    generation = generations.create(model_id=model.id, recall_model_id=model.id, plan={})

    with pytest.raises(ModelNeeded, match=f"generation {generation.id}"):
        deletion.delete(model.id)

    generation.state = "deleted"
    session.flush()
    deletion.delete(model.id)


def test_a_model_at_work_in_a_finetune_or_named_by_a_schedule_is_kept(models, deletion, session):
    base, scheduled = register(models, "1"), register(models, "2")
    finetune = add_finetune(session, base, is_over=False)
    schedule = ScheduleRepository(session).create(
        name="nightly", cron="0 3 * * *", finetune={"base_model_id": str(scheduled.id)}
    )

    with pytest.raises(ModelNeeded, match=f"finetune {finetune}"):
        deletion.delete(base.id)
    with pytest.raises(ModelNeeded, match="nightly"):
        deletion.delete(scheduled.id)

    JobRepository(session).request_cancel(finetune)
    ScheduleRepository(session).delete(schedule.id)
    deletion.delete(base.id)
    deletion.delete(scheduled.id)


def test_surplus_are_old_candidates_of_finetunes_only(models, deletion, session):
    base = register(models, "base")
    by_hand = register(models, "by hand")
    candidates = [register(models, str(number)) for number in range(4)]
    other_task = register(models, "other", tasks=["retrieval"])
    for model in (*candidates, other_task):
        add_finetune(session, base, model)
    models.promote(candidates[0].id, [Task.QA])

    surplus = deletion.surplus_candidates(kept=1)

    assert surplus == [candidates[1].id, candidates[2].id]
    assert by_hand.id not in surplus
