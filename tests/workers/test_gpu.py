"""The jobs of the other tests on a CUDA device, in a real worker process."""

import pytest
import torch

from policy.registration import ensure_default, promote, register_model
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.models.repository import GenerationRepository
from store.results.searches import SearchRepository
from tests.workers.library import read_clips
from tests.workers.service import SAMPLES, wait_for
from tests.workers.small_models import save_recall_model, save_tiny
from workers.models.loaded_models import LoadedModels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

# Weights in bfloat16, on another device: the numbers differ in their third digit.
TOLERANCE = 2e-2


@pytest.fixture
def gpu_service(service, tmp_path):
    """Samples indexed by a worker on the GPU, for a model with retrieval and QA heads."""
    ensure_default(
        service.sessions, service.blobs, mini_folder=save_recall_model(tmp_path / "recall")
    )
    model_id = register_model(
        service.sessions, service.blobs, save_tiny(tmp_path / "tiny"), name="tiny", version="1"
    )
    promote(service.sessions, model_id)
    with service.sessions.begin() as session:
        (generation,) = [
            generation
            for generation in GenerationRepository(session).list()
            if generation.model_id == model_id
        ]
        assert generation.state == "active"
    service.start_worker("ingest")
    service.start_worker("interactive,embed", device="cuda:0")
    names = ["cockatoo.mp4", "squirrel.mp4", "city_night.mpg"]
    for name in names:
        service.enqueue_ingest(SAMPLES / name)
    wait_for(
        lambda: sum(job.state == JobState.SUCCEEDED for job in service.jobs(JobKind.EMBED)) == 3,
    )
    return service


def test_a_worker_on_the_gpu_indexes_searches_and_answers(gpu_service, context):
    (job, *_) = gpu_service.jobs(JobKind.EMBED)
    wanted = {
        JobKind.SEARCH: {"text": "a dog", "limit": 10},
        JobKind.QUESTION: {"text": "what?", "video_id": str(job.video_id), "top_k": 3},
    }
    done = {}
    for kind, input_ in wanted.items():
        with gpu_service.sessions.begin() as session:
            row = JobRepository(session).enqueue(NewJob(kind=kind, input=input_))
            if kind == JobKind.SEARCH:
                SearchRepository(session).create(row, text="a dog")
            else:
                from store.results.questions import QuestionRepository

                QuestionRepository(session).create(row, text="what?")
        context.doorbell.ring(kind)
        done[kind] = gpu_service.wait_for_state(row.id, JobState.SUCCEEDED).result

    from clipbert.inference.clipbert import ClipBert
    from clipbert.inference.requests import MatchRequest
    from store.models.repository import ModelRepository

    with gpu_service.sessions.begin() as session:
        row = ModelRepository(session).serving("retrieval")
    on_cpu = context.own(LoadedModels).cache.get(row)
    assert isinstance(on_cpu, ClipBert)
    assert done[JobKind.SEARCH]["stages"] == ["recall", "rerank"]
    for hit in done[JobKind.SEARCH]["hits"]:
        clips = read_clips(gpu_service, hit["video_id"])
        tokens = context.own(LoadedModels).tokens.get(clips[0].tokens_key)
        (match,) = on_cpu.match([MatchRequest(tokens=tokens, text="a dog")])
        assert hit["match_score"] == pytest.approx(match.score, abs=TOLERANCE)
    assert len(done[JobKind.QUESTION]["answers"]) == 3
    assert "cuda:0" in gpu_service.logs()
