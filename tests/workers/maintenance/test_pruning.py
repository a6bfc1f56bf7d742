from datetime import timedelta

from policy.registration import register_model, remove_model_files
from store.models.deletion import ModelDeletion
from store.models.repository import ModelRepository
from tests.workers.small_models import save_tiny
from workers.maintenance.pruning import prune
from workers.maintenance.sweeping import sweep


def files_of(blobs, model_id):
    return list(blobs.keys(f"models/{model_id}"))


def delete(sessions, model_id):
    with sessions.begin() as session:
        ModelDeletion(session).delete(model_id)


def test_files_go_after_the_commit_and_what_a_crash_left_goes_with_the_sweep(
    context, sessions, blobs, tmp_path
):
    folder = save_tiny(tmp_path / "tiny")
    removed, left, kept = (
        register_model(sessions, blobs, folder, name="t", version=str(number))
        for number in range(3)
    )
    remove_model_files(sessions, blobs, model_id=removed)
    assert files_of(blobs, removed)  # it was not deleted
    delete(sessions, removed)
    delete(sessions, left)

    remove_model_files(sessions, blobs, model_id=removed)
    before = files_of(blobs, left)
    sweep(context)

    assert before
    assert files_of(blobs, removed) == files_of(blobs, left) == []
    assert files_of(blobs, kept)
    with sessions.begin() as session:
        assert ModelDeletion(session).with_files() == []
        assert [model.id for model in ModelRepository(session).list()] == [kept]


def test_retention_is_on_and_can_be_turned_off(context):
    settings = context.settings

    assert settings.event_retention == timedelta(days=30)
    assert settings.job_retention == timedelta(days=90)
    assert settings.candidates_kept == 10
    off = {"event_retention": None, "job_retention": None, "candidates_kept": None}
    context.settings = settings.model_copy(update=off)
    prune(context)
