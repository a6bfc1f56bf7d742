from uuid import uuid4

import pytest
from failed_videos import fail_video
from sqlalchemy.exc import DataError, IntegrityError

from store.errors import GenerationNotFound, ModelNotFound
from store.models.repository import Coverage, GenerationRepository, ModelRepository
from store.models.tables import Generation, GenerationState
from store.table_base import Task
from store.videos.records import NewClip
from store.videos.repository import VideoRepository


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def models(session):
    return ModelRepository(session)


@pytest.fixture
def generations(session):
    return GenerationRepository(session)


def register(models, version="1", tasks=("recall", "retrieval")):
    return models.register(
        name="clipbert-mini",
        version=version,
        heads=["recall"],
        tasks=tasks,
        folder_key="models/1",
        sha256="s",
        visual_sha256="v",
        config={"hidden": 384},
    )


def create(generations, model, **values):
    return generations.create(
        model_id=model.id, recall_model_id=model.id, plan={"name": "segments"}, **values
    )


def test_registering_twice_gives_the_same_model(models):
    first = register(models)

    assert register(models).id == first.id
    assert register(models, version="2").id != first.id
    assert models.find("clipbert-mini", "1").config == {"hidden": 384}


def test_promotion_changes_who_serves_and_nothing_else(models):
    old, new = register(models), register(models, version="2")
    models.promote(old.id, [Task.RECALL, Task.RETRIEVAL])

    models.promote(new.id, ["retrieval"])

    assert models.serving(Task.RECALL).id == old.id
    assert models.serving("retrieval").id == new.id
    assert models.serving(Task.QA) is None
    assert {task: model.id for task, (model, _) in models.all_serving().items()} == {
        Task.RECALL: old.id,
        Task.RETRIEVAL: new.id,
    }


def test_a_model_is_not_promoted_for_what_it_cannot_do(models):
    model = register(models)

    with pytest.raises(ValueError, match="can do recall, retrieval, not qa"):
        models.promote(model.id, ["qa"])


def test_unknown_models_and_generations_are_not_found(models, generations):
    with pytest.raises(ModelNotFound):
        models.promote(uuid4(), ["qa"])
    with pytest.raises(GenerationNotFound):
        generations.activate(uuid4())


def test_one_generation_is_active_at_a_time(models, generations):
    model = register(models)
    none = generations.active()
    first, second = create(generations, model), create(generations, model)

    generations.activate(first.id)
    generations.activate(second.id)
    generations.activate(second.id)

    assert none is None
    assert generations.active().id == second.id
    assert generations.get(first.id).state == GenerationState.RETIRED
    assert generations.get(second.id).activated_at is not None


def test_two_active_generations_are_impossible(models, generations, session):
    model = register(models)
    generations.activate(create(generations, model).id)
    session.add(
        Generation(
            model_id=model.id, recall_model_id=model.id, plan={}, state=GenerationState.ACTIVE
        )
    )

    with pytest.raises(IntegrityError, match="uq_generations_active"):
        session.flush()


def test_vectors_of_another_length_are_refused_once_there_is_an_index(models, generations, session):
    generation = create(generations, register(models))
    generations.ensure_index(generation.id, 3)
    generations.ensure_index(generation.id, 3)  # it is there
    generation = generations.get(generation.id)
    videos = VideoRepository(session)
    video, _ = videos.create(uri="file:///a.mp4", sha256="a")

    assert generation.recall_dim == 3
    with pytest.raises(DataError, match="expected 3 dimensions, not 2"):
        videos.replace_clips(video.id, generation.id, clips=[NewClip(0, 0, 1, [0.5], (1, 0), "k")])


@pytest.mark.parametrize("dim", [0, 4001])
def test_an_impossible_dimension_is_refused(models, generations, dim):
    generation = create(generations, register(models))

    with pytest.raises(ValueError, match="1 to 4000"):
        generations.ensure_index(generation.id, dim)


def test_coverage_counts_sound_videos_and_those_with_clips(models, generations, session):
    generation = create(generations, register(models))
    videos = VideoRepository(session)
    ids = [videos.create(uri=f"file:///{n}", sha256=str(n))[0].id for n in range(3)]
    fail_video(session, ids[2])
    clips = [NewClip(n, n, n + 1, [n], None, "k") for n in range(5)]
    videos.replace_clips(ids[0], generation.id, clips=clips)

    assert generations.coverage(generation.id) == Coverage(num_videos=2, num_indexed=1)
