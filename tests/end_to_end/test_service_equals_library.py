"""What the service answers, through queue and worker processes, is what the library answers."""

import os
from pathlib import Path

import psutil
import pytest
import torch

from clipbert.inference.clipbert import ClipBert
from clipbert.inference.clips import decode_clips
from clipbert.inference.requests import MatchRequest, QuestionRequest
from clipbert.sampling.plan import INDEX_PLAN
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import probe_video
from policy.registration import ensure_default, promote, register_model
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.models.repository import GenerationRepository
from store.results.questions import QuestionRepository
from store.results.searches import SearchRepository
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState
from tests.workers.conftest import begins_at, media_folder, service
from tests.workers.service import REPOSITORY, SAMPLES, child_of, wait_for
from tests.workers.small_models import save_tiny

__all__ = ["begins_at", "media_folder", "service"]

NAMES = ["cockatoo.mp4", "samoyed.mp4", "city_night.mpg", "coin_and_pen.mov", "bicycle.avi"]
TEXT = "a white parrot"
QUESTION = "what colour is the bird?"


@pytest.fixture(scope="session")
def mini_folder() -> Path:
    given = os.environ.get("CLIPBERT_MINI")
    folder = Path(given) if given else REPOSITORY / ".cache" / "clipbert-mini"
    if not (folder / "config.json").exists():
        from clipbert.checkpoints.mini.build import build_mini

        build_mini(folder)
    return folder


@pytest.fixture
def indexed(service, mini_folder, tmp_path):
    """The samples, indexed by worker processes for a promoted clipbert-tiny; its folder."""
    service.starts_cold = True
    ensure_default(service.sessions, service.blobs, mini_folder=mini_folder)
    for name in NAMES:
        service.enqueue_ingest(SAMPLES / name)
    # No message was ever sent: a worker looks for what is due when it starts.
    ingest = service.start_worker("ingest")
    gpu = service.start_worker("interactive,embed")
    service.start_reconciler()
    wait_for(lambda: num_succeeded(service, JobKind.EMBED) == len(NAMES))
    with service.sessions.begin() as session:
        assert VideoRepository(session).counts() == {VideoState.READY: len(NAMES)}
    # One operation of torch in the parent would make the children's models hang.
    assert loaded_torch(gpu.pid) == loaded_torch(ingest.pid) == []
    assert loaded_torch(child_of(gpu).pid) != []

    folder = save_tiny(tmp_path / "tiny")
    tiny = register_model(service.sessions, service.blobs, folder, name="tiny", version="1")
    promote(service.sessions, tiny)
    wait_for(lambda: active_model(service) == tiny)
    return folder


def num_succeeded(service, kind):
    return sum(job.state == JobState.SUCCEEDED for job in service.jobs(kind))


def loaded_torch(pid):
    """List the shared libraries of torch in a process."""
    return [found.path for found in psutil.Process(pid).memory_maps() if "torch" in found.path]


def active_model(service):
    with service.sessions.begin() as session:
        return GenerationRepository(session).active().model_id


def library_clips(name, model):
    path = SAMPLES / name
    clips = plan_clips(probe_video(path), INDEX_PLAN)
    frames = decode_clips(path, clips, max_side_px=model.config.max_side_px)
    return clips, model.encode_clips(frames)


def request(service, kind, repository, **wanted):
    """Do what the API does: the rows in one transaction."""
    with service.sessions.begin() as session:
        job = JobRepository(session).enqueue(NewJob(kind=kind, input=wanted, priority=0))
        repository(session).create(job, text=wanted["text"])
        return job.id


def test_searches_and_questions_through_the_queue_equal_the_library(service, indexed, mini_folder):
    video_ids = {
        Path(job.input["uri"]).name: job.result["video_id"] for job in service.jobs(JobKind.INGEST)
    }
    searches = {
        mode: request(service, JobKind.SEARCH, SearchRepository, text=TEXT, mode=mode)
        for mode in ("auto", "recall", "exhaustive")
    }
    questions = {
        name: request(
            service,
            JobKind.QUESTION,
            QuestionRepository,
            text=QUESTION,
            video_id=video_ids[name],
            top_k=4,
        )
        for name in NAMES
    }

    mini, tiny = ClipBert.for_serving(mini_folder), ClipBert.for_serving(indexed)
    (text,) = mini.encode_texts([TEXT])
    matches, recalls, answers = {}, {}, {}
    for name in NAMES:
        clips, encoded = library_clips(name, tiny)
        (match,) = tiny.score_all([MatchRequest(tokens=encoded.tokens, text=TEXT)])
        (answer,) = tiny.answer_all(
            [QuestionRequest(tokens=encoded.tokens, question=QUESTION)], top_k=4
        )
        matches[name], answers[name] = match, (clips, answer)
        recalls[name] = float((library_clips(name, mini)[1].recall @ text).max())

    for mode, scores in (
        ("recall", recalls),
        ("auto", {name: match.score for name, match in matches.items()}),
        ("exhaustive", {name: match.score for name, match in matches.items()}),
    ):
        result = service.wait_for_state(searches[mode], JobState.SUCCEEDED).result
        found = {Path(hit["uri"]).name: hit for hit in result["hits"]}
        assert set(found) == set(NAMES)
        assert (result["model"], result["recall_model"]) == (
            None if mode == "recall" else "tiny",
            "clipbert-mini",
        )
        for name, hit in found.items():
            assert hit["score"] == pytest.approx(scores[name], abs=1e-3), (mode, name)
            assert hit["recall_score"] == pytest.approx(recalls[name], abs=1e-3), (mode, name)
    recall_job = service.job(searches["recall"])
    assert Path(recall_job.result["hits"][0]["uri"]).name == "cockatoo.mp4"

    for name, job_id in questions.items():
        result = service.wait_for_state(job_id, JobState.SUCCEEDED).result
        clips, answer = answers[name]
        probabilities = {a.answer: a.probability for a in answer.answers}
        logits = {a.answer: a.logit for a in answer.answers}
        assert len(result["answers"]) == 4
        for got in result["answers"]:
            assert got["probability"] == pytest.approx(probabilities[got["answer"]], abs=1e-3)
            assert got["logit"] == pytest.approx(logits[got["answer"]], abs=1e-3)
        shares = torch.tensor([evidence["share"] for evidence in result["evidence"]])
        torch.testing.assert_close(shares, answer.clip_shares, atol=1e-3, rtol=0)
        assert [evidence["instants"] for evidence in result["evidence"]] == [
            list(clip.instants) for clip in clips
        ]
