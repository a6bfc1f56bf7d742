"""Searches and questions in one process, with small real models; see also tests/end_to_end."""

from contextlib import closing
from itertools import pairwise

import pytest
import torch
from videos import rubbish_in, write_counting_video

from clipbert.inference.clipbert import ClipBert
from clipbert.inference.requests import MatchRequest, QuestionRequest
from policy.registration import ensure_default, promote, register_model
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.models.repository import ModelRepository
from store.results.questions import QuestionRepository
from store.results.searches import SearchRepository
from store.table_base import Task
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState
from tests.workers.library import add_video, embed_all, read_clips, read_video
from tests.workers.small_models import save_recall_model, save_tiny
from tests.workers.snapshots import snapshot_of
from workers.answering.interactive import serve_interactive, warm_up
from workers.maintenance.reconciler import switch_generation
from workers.models.loaded_models import LoadedModels


def index_three_videos(service, context, media_folder):
    """Index three videos; recall serves."""
    ensure_default(
        service.sessions,
        service.blobs,
        mini_folder=save_recall_model(media_folder.with_name("recall")),
    )
    videos = {
        name: add_video(
            service,
            write_counting_video(media_folder / f"{name}.mp4", frames, fps=10),
            tags=(name,),
        )[0]
        for name, frames in {"a": 30, "b": 60, "c": 400}.items()
    }
    embed_all(context)
    return videos


@pytest.fixture(scope="module")
def indexed(services):
    with snapshot_of(services, index_three_videos) as snapshot:
        yield snapshot


@pytest.fixture(scope="module")
def promoted(services, indexed, tmp_path_factory):
    folder = save_tiny(tmp_path_factory.mktemp("tiny"))

    def build(service, context, _media_folder):
        model_id = register_model(service.sessions, service.blobs, folder, name="tiny", version="1")
        promote(service.sessions, model_id)
        embed_all(context)
        switch_generation(context)
        return folder

    with snapshot_of(services, build, after=indexed) as snapshot:
        yield snapshot


@pytest.fixture
def begins_at(request):
    for name, snapshot in {"tiny_folder": "promoted", "library": "indexed"}.items():
        if name in request.fixturenames:
            return request.getfixturevalue(snapshot)
    return None


@pytest.fixture
def library(indexed):
    """The ids of three indexed videos; recall serves."""
    return indexed.value


@pytest.fixture
def recall_folder(indexed):
    """The model whose vectors are searched."""
    return indexed.media_folder.with_name("recall")


@pytest.fixture
def tiny_folder(promoted):
    """A model with trained retrieval and QA heads serves, on its own generation."""
    return promoted.value


def search(service, text="a dog", **wanted):
    with service.sessions.begin() as session:
        job = JobRepository(session).enqueue(
            NewJob(kind=JobKind.SEARCH, input={"text": text, **wanted})
        )
        SearchRepository(session).create(job, text=text)
        return job.id


def ask(service, video_id, text="what is it?", **wanted):
    with service.sessions.begin() as session:
        job = JobRepository(session).enqueue(
            NewJob(
                kind=JobKind.QUESTION,
                input={"video_id": str(video_id), "text": text, **wanted},
            )
        )
        QuestionRepository(session).create(job, text=text)
        return job.id


def count_passes(context, task):
    """Note the rows of each pass of a serving model's cross-encoder."""
    with context.sessions.begin() as session:
        row = ModelRepository(session).serving(task)
    passes = []
    context.own(LoadedModels).cache.get(row).network.cross_encoder.register_forward_pre_hook(
        lambda _, inputs: passes.append(len(inputs[0]))
    )
    return passes


def test_before_anything_is_indexed_a_search_says_so(service, context):
    job_id = search(service)

    serve_interactive(context)

    assert service.job(job_id).error_code == "no_active_generation"


def test_nothing_is_claimed_where_the_gpu_is_gone(service):
    job_id = search(service)

    with (
        closing(service.context(device="cuda:99")) as context,
        pytest.raises(ValueError, match="WORKER_DEVICE=cuda:99, but torch sees"),
    ):
        serve_interactive(context)

    with service.sessions() as session:
        job = JobRepository(session).get(job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)


def test_recall_ranks_videos_by_their_best_clip(service, context, library, recall_folder):
    job_id = search(service, "a dog", limit=10)

    serve_interactive(context)

    result = service.job(job_id).result
    model = ClipBert.for_serving(recall_folder)
    (text,) = model.encode_texts(["a dog"])
    expected = {}
    for video_id in library.values():
        vectors = torch.tensor([clip.vector for clip in read_clips(service, video_id)])
        expected[str(video_id)] = float((vectors @ text).max())
    assert result["stages"] == ["recall"]
    hits = [hit["video_id"] for hit in result["hits"]]
    assert set(hits) == set(expected)
    # The database compares vectors of 16 bits, and so may the worker's model be.
    for first, second in pairwise(hits):
        assert expected[first] > expected[second] - 0.005
    for hit in result["hits"]:
        assert hit["score"] == pytest.approx(expected[hit["video_id"]], abs=2e-3)
        assert hit["moments"][0]["clip_index"] == hit["clip_index"]
        assert hit["match_score"] is None
    assert result["model"] is None
    assert result["recall_model"] == "clipbert-mini"


def test_no_moment_is_found_in_what_is_damaged_of_a_video(
    service, context, library, media_folder, tmp_path
):
    source = write_counting_video(tmp_path / "s.mp4", 160, fps=10, gop=20)
    path = rubbish_in(source, media_folder / "damaged.mp4", 60)
    damaged, embed = add_video(service, path)
    embed_all(context)
    job_id = search(
        service, filters={"video_ids": [str(damaged)]}, group_by="clip", mode="exhaustive", limit=50
    )

    serve_interactive(context)

    video = read_video(service, damaged)
    assert (service.job(embed).state, video.state) == (JobState.SUCCEEDED, VideoState.READY)
    ((start, end),) = video.damaged_spans
    assert (start, end) == (pytest.approx(6.0), pytest.approx(6.4))  # a group begins at frame 64
    looked_at = [instant for clip in read_clips(service, damaged) for instant in clip.instants]
    assert looked_at == [2.0, 10.0, 14.0]  # in the middle of each 4 s, but for 6.0
    hits = service.job(job_id).result["hits"]
    moments = {moment["start_seconds"] for hit in hits for moment in hit["moments"]}
    assert (len(hits), moments) == (3, {0.0, 8.0, 12.0})


def test_filters_and_grouping_are_honoured(service, context, library):
    by_tag = search(service, filters={"tags": ["b"], "video_ids": []})
    by_id = search(service, filters={"video_ids": [str(library["c"])]}, group_by="clip", limit=7)

    serve_interactive(context)

    assert {h["video_id"] for h in service.job(by_tag).result["hits"]} == {str(library["b"])}
    hits = service.job(by_id).result["hits"]
    assert len({hit["clip_index"] for hit in hits}) == 7
    assert {hit["video_id"] for hit in hits} == {str(library["c"])}
    assert [hit["score"] for hit in hits] == sorted((h["score"] for h in hits), reverse=True)


def test_the_result_is_kept_with_the_search(service, context, library):
    job_id = search(service)

    serve_interactive(context)

    with service.sessions.begin() as session:
        row, job = SearchRepository(session).get(job_id)
    assert row.result == job.result
    assert str(row.generation_id) == job.result["generation_id"]


def test_one_pass_serves_several_searches_and_one_fails_alone(
    service, context, library, tiny_folder
):
    passes = count_passes(context, Task.RETRIEVAL)
    only = {name: {"video_ids": [str(video_id)]} for name, video_id in library.items()}
    first = search(service, "a dog", filters=only["a"])
    second = search(service, "a red parrot", filters=only["b"])
    broken = search(service, "a cat", filters=only["c"])
    (*_, clip) = read_clips(service, library["c"])
    context.blobs.delete(clip.tokens_key)

    assert serve_interactive(context) == 3

    assert service.job(broken).error_code == "video_not_ready"
    for job_id in (first, second):
        job = service.job(job_id)
        assert job.state == JobState.SUCCEEDED
        assert job.result["stages"] == ["recall", "rerank"]
        assert job.result["served_together"] == 3
    # Four clips of each of two videos: padded texts may part one pass by length, no more.
    assert sum(passes) == 8
    assert len(passes) == 1


def test_reranked_scores_are_the_library_calls(service, context, library, tiny_folder):
    auto = search(service, "a dog", limit=10)
    exhaustive = search(service, "a dog", limit=10, mode="exhaustive")

    serve_interactive(context)

    model = ClipBert.for_serving(tiny_folder)
    for job_id, stages in ((auto, ["recall", "rerank"]), (exhaustive, ["recall", "exhaustive"])):
        result = service.job(job_id).result
        assert result["stages"] == stages
        assert result["model"] == "tiny"
        assert len(result["hits"]) == 3
        for hit in result["hits"]:
            (clip, *_) = clips = read_clips(service, hit["video_id"])
            tokens = context.own(LoadedModels).tokens.get(clip.tokens_key)
            assert len(tokens) == len(clips)
            (match,) = model.score_all([MatchRequest(tokens=tokens, text="a dog")])
            assert hit["match_score"] == pytest.approx(match.score, abs=1e-3)


def test_an_exhaustive_search_fetches_no_more_than_others_where_nothing_reranks(service, library):
    with closing(service.context(recall_clips=3)) as context:
        jobs = [search(service, mode=mode, limit=2) for mode in ("recall", "exhaustive")]
        serve_interactive(context)

    results = [service.job(job_id).result for job_id in jobs]
    assert [result["candidates"] for result in results] == [3, 3]
    assert results[0]["hits"] == results[1]["hits"]


def test_an_exhaustive_search_of_too_many_clips_is_refused(service, library, tiny_folder):
    with closing(service.context(exhaustive_clips=4)) as context:
        too_many = search(service, mode="exhaustive")
        few = search(service, mode="exhaustive", filters={"tags": ["a"]})
        serve_interactive(context)

    assert service.job(too_many).error_code == "too_many_clips"
    assert "at most 4 clips" in service.job(too_many).error_message
    assert service.job(few).result["candidates"] == 4


def test_an_open_ended_question_is_answered_as_by_the_library(
    service, context, library, tiny_folder
):
    job_id = ask(service, library["c"], top_k=3)

    serve_interactive(context)

    result = service.job(job_id).result
    clips = read_clips(service, library["c"])
    tokens = context.own(LoadedModels).tokens.get(clips[0].tokens_key)
    (answer,) = ClipBert.for_serving(tiny_folder).answer_all(
        [QuestionRequest(tokens=tokens, question="what is it?")], top_k=3
    )
    assert [a["answer"] for a in result["answers"]] == [a.answer for a in answer.answers]
    for got, wanted in zip(result["answers"], answer.answers, strict=True):
        assert got["probability"] == pytest.approx(wanted.probability, abs=1e-3)
        assert got["logit"] == pytest.approx(wanted.logit, abs=1e-3)
    assert (result["task"], result["zero_shot"]) == ("qa", False)
    assert len(result["evidence"]) == len(clips)
    assert sum(e["share"] for e in result["evidence"]) == pytest.approx(1, abs=1e-3)
    with service.sessions.begin() as session:
        assert QuestionRepository(session).get(job_id)[0].result == result


def test_one_pass_answers_several_questions_and_one_fails_alone(
    service, context, library, tiny_folder
):
    passes = count_passes(context, Task.QA)
    asked = [ask(service, library[name], top_k=k) for name, k in (("a", 1), ("b", 4))]
    broken = ask(service, library["c"])
    (*_, clip) = read_clips(service, library["c"])
    context.blobs.delete(clip.tokens_key)

    serve_interactive(context)

    assert service.job(broken).error_code == "video_not_ready"
    results = [service.job(job_id).result for job_id in asked]
    assert [len(result["answers"]) for result in results] == [1, 4]
    assert [result["served_together"] for result in results] == [2, 2]
    assert passes == [8]


def test_choices_are_ranked_without_a_trained_head(service, context, library):
    job_id = ask(service, library["a"], choices=["a dog", "a parrot", "a city"])

    serve_interactive(context)

    result = service.job(job_id).result
    assert {a["answer"] for a in result["answers"]} == {"a dog", "a parrot", "a city"}
    assert sum(a["probability"] for a in result["answers"]) == pytest.approx(1, abs=1e-3)
    assert (result["task"], result["zero_shot"]) == ("multiple_choice", True)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({}, "no_qa_model"),
        (
            {"choices": ["x", "y"], "video_id": "01a20afd-9c04-7c44-9c20-af64e94c54af"},
            "video_not_found",
        ),
    ],
)
def test_what_cannot_be_answered_says_why(service, context, library, wanted, code):
    with service.sessions.begin() as session:
        job = JobRepository(session).enqueue(
            NewJob(
                kind=JobKind.QUESTION,
                input={"video_id": str(library["a"]), "text": "what?", **wanted},
            )
        )

    serve_interactive(context)

    assert service.job(job.id).error_code == code


def test_a_video_without_clips_is_not_ready(service, context, library):
    with service.sessions.begin() as session:
        video, _ = VideoRepository(session).create(uri="file:///new.mp4", sha256="new")
    job_id = ask(service, video.id, choices=["x", "y"])

    serve_interactive(context)

    assert service.job(job_id).error_code == "video_not_ready"


def test_a_promotion_is_seen_by_the_next_claim(service, context, library, tmp_path):
    warm_up(context)
    before = search(service)
    serve_interactive(context)
    model_id = register_model(
        service.sessions, service.blobs, save_tiny(tmp_path / "t"), name="t", version="1"
    )
    promote(service.sessions, model_id)
    building = search(service)
    serve_interactive(context)
    embed_all(context)
    switch_generation(context)
    after = search(service)
    serve_interactive(context)

    stages = [service.job(job_id).result["stages"] for job_id in (before, building, after)]
    assert stages == [["recall"], ["recall"], ["recall", "rerank"]]


def test_a_cancelled_search_ends_between_two_passes(service, context, library, tiny_folder):
    context.own(LoadedModels).match_limit.limit = 4
    jobs = [search(service, mode="exhaustive"), search(service, mode="exhaustive")]
    with context.sessions.begin() as session:
        row = ModelRepository(session).serving(Task.RETRIEVAL)

    def cancel(*_):
        with service.sessions.begin() as session:
            repository = JobRepository(session)
            if repository.get(jobs[0]).state == JobState.RUNNING:
                repository.request_cancel(jobs[0])
        context.leases.beat()

    context.own(LoadedModels).cache.get(row).network.cross_encoder.register_forward_hook(cancel)
    serve_interactive(context)

    assert [service.job(job_id).state for job_id in jobs] == [
        JobState.CANCELLED,
        JobState.SUCCEEDED,
    ]


def test_a_malformed_search_fails_alone(service, context, library):
    with service.sessions.begin() as session:
        jobs = JobRepository(session)
        broken = jobs.enqueue(NewJob(kind=JobKind.SEARCH, input={"filters": {}})).id
        lost = jobs.enqueue(NewJob(kind=JobKind.EMBED, input={"generation_id": "none"})).id
    good = search(service)

    serve_interactive(context)
    embed_all(context)

    assert service.job(broken).error_code == "invalid_request"
    assert service.job(lost).error_code == "invalid_request"
    assert service.job(good).state == JobState.SUCCEEDED
