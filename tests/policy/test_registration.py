import subprocess
import sys
import threading

import pytest
import torch

from clipbert.errors import CheckpointError
from clipbert.inference.clipbert import ClipBert
from policy.registration import ensure_default, promote, register_model
from store.errors import InvalidModelFolder
from store.jobs.repository import JobRepository
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import GenerationState
from store.table_base import Task
from store.videos.repository import VideoRepository
from tests.workers.service import wait_for
from tests.workers.small_models import save_recall_model, save_tiny
from workers.models.model_cache import ModelCache
from workers.models.ready_models import ReadyModels


@pytest.fixture
def recall_folder(tmp_path):
    return save_recall_model(tmp_path / "recall")


def generations(sessions):
    with sessions.begin() as session:
        return GenerationRepository(session).list()


def test_the_default_model_serves_and_its_generation_is_searched(sessions, blobs, recall_folder):
    model_id = ensure_default(sessions, blobs, mini_folder=recall_folder)
    again = ensure_default(sessions, blobs, mini_folder=recall_folder)

    assert again == model_id
    (generation,) = generations(sessions)
    assert generation.state == GenerationState.ACTIVE
    assert (generation.model_id, generation.recall_model_id) == (model_id, model_id)
    assert generation.recall_dim == 48
    with sessions.begin() as session:
        assert ModelRepository(session).serving(Task.RECALL).id == model_id


def test_a_promoted_model_is_not_replaced_by_the_default(sessions, blobs, recall_folder, tmp_path):
    ensure_default(sessions, blobs, mini_folder=recall_folder)
    other = register_model(
        sessions, blobs, save_recall_model(tmp_path / "b", seed=5), name="b", version="1"
    )
    promote(sessions, other)

    ensure_default(sessions, blobs, mini_folder=recall_folder)

    with sessions.begin() as session:
        assert ModelRepository(session).serving(Task.RECALL).id == other


def test_a_model_that_sees_otherwise_builds_a_new_generation(
    sessions, blobs, recall_folder, tmp_path
):
    ensure_default(sessions, blobs, mini_folder=recall_folder)
    with sessions.begin() as session:
        VideoRepository(session).create(uri="file:///v.mp4", sha256="a")
    tiny = register_model(sessions, blobs, save_tiny(tmp_path / "tiny"), name="t", version="1")

    promote(sessions, tiny)
    promote(sessions, tiny)

    building, active = generations(sessions)
    assert (building.state, active.state) == (GenerationState.BUILDING, GenerationState.ACTIVE)
    assert (building.model_id, building.recall_model_id) == (tiny, active.recall_model_id)
    with sessions.begin() as session:
        (job,) = JobRepository(session).list().items
    assert job.input["generation_id"] == str(building.id)


def test_a_model_with_the_same_eyes_keeps_the_generation(sessions, blobs, recall_folder, tmp_path):
    ensure_default(sessions, blobs, mini_folder=recall_folder)
    model = ClipBert.from_pretrained(recall_folder)
    with torch.no_grad():
        next(model.network.cross_encoder.parameters()).add_(1.0)  # finetuned behind the eyes only
    model.save_pretrained(tmp_path / "finetuned")
    finetuned = register_model(sessions, blobs, tmp_path / "finetuned", name="f", version="1")

    with sessions.begin() as session:
        models = ModelRepository(session)
        old = models.serving(Task.RECALL)
        assert models.get(finetuned).visual_sha256 == old.visual_sha256
        assert models.get(finetuned).sha256 != old.sha256


def test_taking_a_promotion_back_abandons_its_generation(sessions, blobs, recall_folder, tmp_path):
    first = ensure_default(sessions, blobs, mini_folder=recall_folder)
    with sessions.begin() as session:
        VideoRepository(session).create(uri="file:///v.mp4", sha256="a")
    other = register_model(
        sessions, blobs, save_recall_model(tmp_path / "b", seed=5), name="b", version="1"
    )
    promote(sessions, other)
    promote(sessions, first)

    abandoned, active = generations(sessions)
    assert abandoned.state == GenerationState.RETIRED
    assert (active.state, active.model_id) == (GenerationState.ACTIVE, first)


def test_nothing_serves_before_something_makes_recall_vectors(sessions, blobs, tmp_path):
    tiny = register_model(sessions, blobs, save_tiny(tmp_path / "tiny"), name="t", version="1")

    with pytest.raises(ValueError, match="recall"):
        promote(sessions, tiny)


def test_a_name_and_version_stand_for_one_set_of_files(sessions, blobs, recall_folder, tmp_path):
    register_model(sessions, blobs, recall_folder, name="m", version="1")

    with pytest.raises(ValueError, match="other files"):
        register_model(sessions, blobs, save_tiny(tmp_path / "tiny"), name="m", version="1")
    with pytest.raises(InvalidModelFolder, match="is not a model folder"):
        register_model(sessions, blobs, tmp_path, name="n", version="1")


def test_a_tampered_model_does_not_load(sessions, blobs, recall_folder):
    model_id = ensure_default(sessions, blobs, mini_folder=recall_folder)
    with sessions.begin() as session:
        model = ModelRepository(session).get(model_id)
    weights = blobs.local_path(f"{model.folder_key}/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")

    with pytest.raises(CheckpointError, match="not what was registered"):
        ModelCache(blobs, device="cpu", capacity=1, folder=None).get(model)


def test_the_cache_keeps_the_models_used_last(sessions, blobs, recall_folder, tmp_path):
    ids = [
        register_model(sessions, blobs, folder, name=folder.name, version="1")
        for folder in (
            recall_folder,
            save_tiny(tmp_path / "tiny"),
            save_tiny(tmp_path / "t2", seed=2),
        )
    ]
    with sessions.begin() as session:
        first, second, third = (ModelRepository(session).get(id_) for id_ in ids)
    cache = ModelCache(blobs, device="cpu", capacity=2, folder=None)

    loaded = cache.get(first), cache.get(second)
    cache.get(first)
    cache.get(third)

    assert cache.get(first) is loaded[0]
    assert cache.get(second) is not loaded[1]


def test_deployment_needs_no_torch():
    code = "import sys, policy.registration; print('torch' in sys.modules)"

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "False"


@pytest.fixture
def two_models(sessions, blobs, recall_folder, tmp_path):
    """Two finetuned models behind the same eyes."""
    rows = []
    for seed in (1, 2):
        model = ClipBert.from_pretrained(recall_folder)
        with torch.no_grad():
            next(model.network.cross_encoder.parameters()).add_(float(seed))
        model.save_pretrained(tmp_path / f"f{seed}")
        model_id = register_model(
            sessions, blobs, tmp_path / f"f{seed}", name="f", version=str(seed)
        )
        with sessions.begin() as session:
            rows.append(ModelRepository(session).get(model_id))
    return rows


class SlowCache(ModelCache):
    """Loads in the background only when a test lets it."""

    def __init__(self, blobs, **settings):
        super().__init__(blobs, folder=None, device="cpu", **settings)
        self.may_load = threading.Event()

    def _load(self, model):
        if threading.current_thread() is not threading.main_thread():
            assert self.may_load.wait(120)
        return super()._load(model)


def test_the_old_model_goes_on_while_the_new_one_is_loaded(blobs, two_models):
    old, new = two_models
    cache = SlowCache(blobs, capacity=2)
    ready = ReadyModels(cache)
    cache.get(ready.choose(Task.QA, old))

    meanwhile = [ready.choose(Task.QA, new) for _ in range(3)]
    cache.may_load.set()
    wait_for(lambda: cache.has(new))

    assert meanwhile == [old, old, old]
    assert ready.choose(Task.QA, new) == new
    assert ready.choose(Task.QA, old) == old  # still in memory: no wait to go back


def test_whoever_asks_for_the_first_time_gets_the_model_that_serves(blobs, two_models):
    cache = SlowCache(blobs, capacity=2)

    assert ReadyModels(cache).choose(Task.QA, two_models[0]) == two_models[0]
    assert ReadyModels(cache).choose(Task.QA, None) is None


def test_without_room_for_two_models_the_new_one_is_waited_for(blobs, two_models):
    old, new = two_models
    cache = SlowCache(blobs, capacity=1)
    ready = ReadyModels(cache)
    cache.get(ready.choose(Task.QA, old))

    chosen = ready.choose(Task.QA, new)

    assert chosen == new
    assert cache.get(chosen) is cache.get(new)
    assert not cache.has(old)


def test_a_model_that_cannot_be_loaded_fails_where_it_is_asked_for(blobs, two_models):
    old, new = two_models
    weights = blobs.local_path(f"{new.folder_key}/model.safetensors")
    weights.write_bytes(b"x")
    cache = SlowCache(blobs, capacity=3)
    cache.may_load.set()
    ready = ReadyModels(cache)
    cache.get(ready.choose(Task.QA, old))

    wait_for(lambda: ready.choose(Task.QA, new) == new)

    with pytest.raises(CheckpointError):
        cache.get(new)
