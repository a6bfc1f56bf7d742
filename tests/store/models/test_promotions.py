import threading
from uuid import uuid4

import pytest

from store.errors import IllegalRollback, ModelNotFound
from store.models.repository import ModelRepository
from store.table_base import Task


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def models(session):
    return ModelRepository(session)


def register(models, name, visual="v", tasks=("qa", "retrieval")):
    return models.register(
        name=name,
        version="1",
        heads=[],
        tasks=tasks,
        folder_key=f"models/{name}",
        sha256=name,
        visual_sha256=visual,
        config={},
    )


def served(models, task="qa"):
    model = models.serving(task)
    return None if model is None else model.name


def test_a_promotion_is_written_down(models):
    first, second = register(models, "a"), register(models, "b")

    models.promote(first.id, ["qa"])
    models.promote(second.id, ["qa", "retrieval"], reason="better by 0.1")
    models.promote(second.id, ["qa"])

    changes = models.promotions()
    assert [(c.task, c.model_id, c.previous_model_id, c.action) for c in changes] == [
        (Task.RETRIEVAL, second.id, None, "promote"),
        (Task.QA, second.id, first.id, "promote"),
        (Task.QA, first.id, None, "promote"),
    ]
    assert changes[0].reason == "better by 0.1"
    assert len(models.promotions(task="qa")) == 2
    assert len(models.promotions(model_id=first.id)) == 2
    assert len(models.promotions(limit=1)) == 1


def test_rolling_back_goes_back_one_model_at_a_time(models):
    first, second, third = (register(models, name) for name in "abc")
    for model in (first, second, third):
        models.promote(model.id, ["qa"])

    [change] = models.rollback(third.id, reason="worse")
    after_first = served(models)
    models.rollback(second.id)
    after_second = served(models)
    [last] = models.rollback(first.id)

    assert (after_first, after_second, served(models)) == ("b", "a", None)
    assert (change.model_id, change.previous_model_id) == (second.id, third.id)
    assert (change.action, change.reason) == ("rollback", "worse")
    assert last.model_id is None
    assert models.all_serving() == {}


def test_a_promotion_after_a_rollback_has_what_served_then_below_it(models):
    first, second, third = (register(models, name) for name in "abc")
    models.promote(first.id, ["qa"])
    models.promote(second.id, ["qa"])
    models.rollback(second.id)
    models.promote(third.id, ["qa"])
    models.promote(first.id, ["qa"])

    models.rollback(first.id)
    after_first = served(models)
    models.rollback(third.id)

    assert after_first == "c"
    assert served(models) == "a"


def test_a_rollback_is_for_every_task_that_the_model_serves(models):
    first, second = register(models, "a"), register(models, "b")
    models.promote(first.id, ["qa"])
    models.promote(second.id, ["qa", "retrieval"])
    models.promote(first.id, ["retrieval"])

    changes = models.rollback(first.id)

    assert [change.task for change in changes] == [Task.RETRIEVAL]
    assert (served(models), served(models, "retrieval")) == ("b", "b")
    assert {c.task: c.model_id for c in models.rollback(second.id)} == {
        Task.QA: first.id,
        Task.RETRIEVAL: None,
    }


def test_a_model_that_serves_nothing_cannot_be_rolled_back(models):
    first, second = register(models, "a"), register(models, "b")
    models.promote(first.id, ["qa"])
    models.promote(second.id, ["qa"])

    with pytest.raises(IllegalRollback):
        models.rollback(first.id)
    with pytest.raises(ModelNotFound):
        models.rollback(uuid4())


def test_nothing_is_promoted_if_one_task_is_beyond_the_model(models):
    model = register(models, "a", tasks=["qa"])

    with pytest.raises(ValueError, match="can do qa, not retrieval"):
        models.promote(model.id, ["qa", "retrieval"])

    assert served(models) is None


def test_the_model_that_fits_the_tokens_answers_until_there_are_new_ones(models):
    first, second = register(models, "a", "old"), register(models, "b", "old")
    third, fourth = register(models, "c", "new"), register(models, "d", "old")
    for model in (first, second, third):
        models.promote(model.id, ["qa"])

    assert models.fitting("qa", "new").name == "c"
    assert models.fitting("qa", "old").name == "b"
    assert models.fitting("qa", "other") is None
    assert models.fitting("retrieval", "old") is None

    models.rollback(third.id)
    models.promote(fourth.id, ["qa"])
    models.rollback(fourth.id)
    assert models.fitting("qa", "new") is None
    assert models.fitting("qa", "old").name == "b"


def test_a_model_is_a_candidate_then_serves_then_retires(models):
    first, second, third = (register(models, name) for name in "abc")
    models.promote(first.id, ["qa"])
    models.promote(second.id, ["qa"])

    assert models.state(third) == "candidate"
    assert models.states([first.id, second.id]) == {first.id: "retired", second.id: "serving"}
    models.rollback(second.id)
    assert models.states([first.id, second.id]) == {first.id: "serving", second.id: "retired"}


def test_promotions_at_once_follow_one_another(sessions):
    with sessions.begin() as session:
        models = ModelRepository(session)
        ids = [register(models, f"m{n}").id for n in range(6)]

    def promote(model_id):
        with sessions.begin() as session:
            ModelRepository(session).promote(model_id, ["qa"])

    threads = [threading.Thread(target=promote, args=(id_,)) for id_ in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with sessions.begin() as session:
        models = ModelRepository(session)
        changes = models.promotions()[::-1]
        assert [c.previous_model_id for c in changes] == [None, *(c.model_id for c in changes[:-1])]
        assert models.serving("qa").id == changes[-1].model_id
