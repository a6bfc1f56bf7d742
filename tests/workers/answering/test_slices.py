"""Nobody waits for long: slices, turns, and work that outlives its worker. Small real models."""

import threading
import time
from collections import Counter
from contextlib import closing

import pytest
import torch
from videos import write_counting_video

from clipbert.inference.clipbert import ClipBert
from clipbert.inference.requests import MatchRequest
from policy.registration import ensure_default, promote, register_model
from store.identifiers import new_id
from store.jobs.pieces import JobPieces
from store.jobs.repository import JobRepository
from store.jobs.state import JobState
from store.models.repository import GenerationRepository, ModelRepository
from store.table_base import Task
from store.videos.records import NewClip
from store.videos.repository import VideoRepository
from tests.workers.answering.test_answering_and_searching import ask, count_passes, search
from tests.workers.indexing.test_embedding import note_frames, serving_model
from tests.workers.library import add_video, embed_all, read_clips, read_video, write_long_video
from tests.workers.service import ONE_FRAME_PASSES, child_of, wait_for
from tests.workers.small_models import save_recall_model, save_tiny
from workers.answering.interactive import InteractiveDesk, serve_interactive
from workers.indexing.embedding import Embedder, embed_next
from workers.jobs.batching import CostLimit
from workers.maintenance.reconciler import reconcile
from workers.maintenance.sweeping import sweep_pieces
from workers.models.encoders import Encoders
from workers.models.loaded_models import LoadedModels
from workers.models.token_cache import put_tokens, tokens_key

SHORT_LEASE = {"lease_seconds": "3", "heartbeat_seconds": "0.5"}
GRID = (2, 2, 64)


@pytest.fixture
def recall_folder(service, tmp_path):
    folder = save_recall_model(tmp_path / "recall")
    ensure_default(service.sessions, service.blobs, mini_folder=folder)
    return folder


@pytest.fixture
def tiny_folder(service, recall_folder, tmp_path):
    """A model with trained retrieval and QA heads serves; nothing is indexed yet."""
    folder = save_tiny(tmp_path / "tiny")
    model_id = register_model(service.sessions, service.blobs, folder, name="tiny", version="1")
    promote(service.sessions, model_id)
    return folder


@pytest.fixture
def fill(service, tiny_folder):
    """Store videos of random clips, as if they had been embedded; gives their ids."""
    config = ClipBert.for_serving(tiny_folder).config

    def fill(*lengths):
        generator = torch.Generator().manual_seed(len(lengths))
        ids = []
        for number, num_clips in enumerate(lengths):
            shape = (num_clips, 2, 2, config.hidden_size)
            vectors = torch.randn(num_clips, config.hidden_size, generator=generator)
            with service.sessions.begin() as session:
                generation = GenerationRepository(session).active()
                videos = VideoRepository(session)
                video, _ = videos.create(
                    uri=f"file:///{number}-{num_clips}.mp4", sha256=new_id().hex
                )
                key = tokens_key(generation.id, video.id)
                put_tokens(
                    service.blobs, key, tokens=torch.randn(shape, generator=generator).half()
                )
                clips = [
                    NewClip(i, i, i + 1, [i + 0.5], vectors[i].tolist(), key)
                    for i in range(num_clips)
                ]
                videos.replace_clips(video.id, generation.id, clips=clips)
                videos.mark_ready(video.id)
                ids.append(video.id)
        return ids

    return fill


def serve_all(context):
    """Serve until nothing is left; on a slow machine that takes more than a look."""
    while not context.leases._is_stopping() and serve_interactive(context):
        pass


def hook_passes(context, task, hook):
    with context.sessions.begin() as session:
        row = ModelRepository(session).serving(task)
    model = context.own(LoadedModels).cache.get(row).network

    def call(_, inputs, __):
        hook(len(inputs[0]))  # what a hook returns would take the output's place

    model.cross_encoder.register_forward_hook(call)


def pieces_of(service, job_id):
    with service.sessions.begin() as session:
        return JobPieces(session).list(job_id)


def test_a_question_in_the_middle_of_an_exhaustive_search_is_answered_before_its_end(
    service, context, fill
):
    videos = fill(*[4] * 16)
    context.own(LoadedModels).match_limit = CostLimit(8)
    long = search(service, mode="exhaustive", limit=5)
    asked, passes = [], []

    def ask_midway(_):
        passes.append(1)
        if len(passes) == 3:
            asked.append(ask(service, videos[0]))
            asked.append(search(service, "a cat", limit=3))

    hook_passes(context, Task.RETRIEVAL, ask_midway)
    serve_all(context)

    done = service.job(long)
    assert (done.state, done.result["candidates"]) == (JobState.SUCCEEDED, 64)
    for job_id in asked:
        job = service.job(job_id)
        assert job.state == JobState.SUCCEEDED
        assert job.finished_at < done.finished_at


def test_no_more_questions_are_begun_than_memory_should_hold(service, context, fill):
    (video_id,) = fill(1)
    for _ in range(65):
        ask(service, video_id)

    claimed = [context.own(InteractiveDesk).claim() for _ in range(5)]

    assert claimed == [16, 16, 16, 16, 0]


def test_a_small_search_does_not_wait_for_exhaustive_ones_nor_they_for_ever(service, context, fill):
    fill(*[4] * 6)
    context.own(LoadedModels).match_limit = CostLimit(4)
    long = [search(service, mode="exhaustive") for _ in range(3)]
    short = search(service, "a cat", limit=1, filters={"video_ids": []})

    serve_all(context)

    jobs = [service.job(job_id) for job_id in (*long, short)]
    assert all(job.state == JobState.SUCCEEDED for job in jobs)
    assert min(jobs, key=lambda job: job.finished_at).id == short


def test_no_slice_is_longer_than_it_may_be(service, context, fill):
    fill(*[30] * 3)
    passes = count_passes(context, Task.RETRIEVAL)
    context.own(LoadedModels).match_limit = CostLimit(20)

    long = search(service, mode="exhaustive")
    serve_all(context)

    assert service.job(long).state == JobState.SUCCEEDED
    assert max(passes) <= 20
    assert sum(passes) == 90


def test_a_short_search_behind_many_exhaustive_ones_is_claimed(service, context, fill):
    fill(1)
    long = [search(service, mode="exhaustive") for _ in range(70)]
    short = search(service, mode="recall")

    while context.own(InteractiveDesk).claim():
        pass

    states = Counter(service.job(job_id).state for job_id in long)
    assert states == {JobState.RUNNING: 64, JobState.QUEUED: 6}
    assert service.job(short).state == JobState.SUCCEEDED
    context.own(InteractiveDesk).hand_back()


def test_an_exhaustive_search_goes_on_from_its_kept_slices(service, fill, tiny_folder):
    videos = fill(*[8] * 12)
    job_id = search(service, "a dog", mode="exhaustive", limit=30)
    with closing(service.context(keep_seconds=0)) as first:
        first.own(LoadedModels).match_limit = CostLimit(16)
        passes = count_passes(first, Task.RETRIEVAL)
        stop = []
        first.leases._is_stopping = lambda: bool(stop)
        hook_passes(first, Task.RETRIEVAL, lambda _: len(passes) == 4 and stop.append(1))
        serve_all(first)
    halfway = service.job(job_id)

    with closing(service.context()) as second:
        rest = count_passes(second, Task.RETRIEVAL)
        serve_all(second)

        done = service.job(job_id)
        model = ClipBert.for_serving(tiny_folder)
        hits = {hit["video_id"]: hit["match_score"] for hit in done.result["hits"]}
        for video_id in videos:
            tokens = second.own(LoadedModels).tokens.get(
                read_clips(service, video_id)[0].tokens_key
            )
            (match,) = model.score_all([MatchRequest(tokens, "a dog")])
            assert hits[str(video_id)] == pytest.approx(match.score, abs=1e-3)
    assert (halfway.state, halfway.attempt) == (JobState.QUEUED, 0)
    assert done.state == JobState.SUCCEEDED
    assert done.result["candidates"] == 96
    assert sum(rest) <= 96 - 3 * 16
    assert pieces_of(service, job_id) == []


def test_slices_that_another_model_scored_are_not_mixed_in(service, fill, tmp_path):
    fill(*[8] * 10)
    job_id = search(service, mode="exhaustive")
    with closing(service.context(keep_seconds=0)) as first:
        first.own(LoadedModels).match_limit = CostLimit(16)
        stop = []
        first.leases._is_stopping = lambda: bool(stop)
        passes = count_passes(first, Task.RETRIEVAL)
        hook_passes(first, Task.RETRIEVAL, lambda _: len(passes) == 3 and stop.append(1))
        serve_all(first)
    assert pieces_of(service, job_id)
    other = register_model(
        service.sessions, service.blobs, save_other_head(tmp_path), name="tiny", version="2"
    )
    promote(service.sessions, other)

    with closing(service.context()) as second:
        rest = count_passes(second, Task.RETRIEVAL)
        serve_all(second)

    assert service.job(job_id).result["model_id"] == str(other)
    assert sum(rest) == 80


def save_other_head(folder):
    """Write a model that sees as save_tiny's does and judges otherwise."""

    model = ClipBert.from_pretrained(save_tiny(folder / "same"))
    with torch.no_grad():
        for weights in model.network.heads.parameters():
            weights.neg_()
    model.save_pretrained(folder / "other")
    return folder / "other"


def test_a_look_that_is_over_hands_an_exhaustive_search_back_and_it_ends(service, fill):
    fill(*[8] * 8)
    job_id = search(service, mode="exhaustive")
    with closing(service.context(look_seconds=0.01, keep_seconds=0)) as context:
        context.own(LoadedModels).match_limit = CostLimit(16)
        hook_passes(context, Task.RETRIEVAL, lambda _: time.sleep(0.02))

        looks = 0
        while serve_interactive(context):
            looks += 1

    job = service.job(job_id)
    assert looks > 2
    assert (job.state, job.attempt, job.worker_losses) == (JobState.SUCCEEDED, 1, 0)
    assert job.result["candidates"] == 64


def test_what_was_kept_of_a_cancelled_search_is_removed(service, fill):
    fill(*[8] * 10)
    first, second = (search(service, mode="exhaustive") for _ in range(2))
    with closing(service.context(look_seconds=0.01, keep_seconds=0)) as context:
        context.own(LoadedModels).match_limit = CostLimit(8)
        hook_passes(context, Task.RETRIEVAL, lambda _: time.sleep(0.02))
        serve_interactive(context)
        kept, other = sorted((first, second), key=lambda id_: -len(pieces_of(service, id_)))
        assert pieces_of(service, kept) != []
        with service.sessions.begin() as session:
            JobRepository(session).request_cancel(kept)
        sweep_pieces(context)

        assert service.job(other).state == JobState.QUEUED
        assert pieces_of(service, kept) == []


def test_a_video_deleted_while_it_is_reranked_drops_out_and_another_takes_its_place(
    service, context, fill
):
    videos = fill(*[4] * 24)
    job_id = search(service, "a dog", limit=20)
    context.own(LoadedModels).match_limit = CostLimit(4)
    deleted = []

    def delete(_):
        if not deleted:
            with service.sessions.begin() as session:
                gone = VideoRepository(session).delete(videos[7])
                deleted.extend(gone.tokens_keys)
            for key in deleted:
                service.blobs.delete(key)

    hook_passes(context, Task.RETRIEVAL, delete)
    serve_all(context)

    job = service.job(job_id)
    assert job.state == JobState.SUCCEEDED
    hits = [hit["video_id"] for hit in job.result["hits"]]
    assert str(videos[7]) not in hits
    assert len(set(hits)) == 20


def test_a_video_deleted_during_an_exhaustive_search_drops_out(service, context, fill):
    videos = fill(*[4] * 12)
    job_id = search(service, "a dog", limit=12, mode="exhaustive")
    context.own(LoadedModels).match_limit = CostLimit(4)
    passes = []

    def delete(_):
        passes.append(1)
        if len(passes) == 6:  # one that is scored, and one that is not
            for video_id in (min(videos), max(videos)):
                with service.sessions.begin() as session:
                    keys = VideoRepository(session).delete(video_id).tokens_keys
                for key in keys:
                    service.blobs.delete(key)

    hook_passes(context, Task.RETRIEVAL, delete)
    serve_all(context)

    job = service.job(job_id)
    assert job.state == JobState.SUCCEEDED
    hits = {hit["video_id"] for hit in job.result["hits"]}
    assert hits == {str(id_) for id_ in videos if id_ not in (min(videos), max(videos))}


def test_two_long_videos_leave_room_for_all_that_a_search_asks_for(service, context, fill):
    fill(300, 300, *[2] * 14)
    jobs = [search(service, limit=10, mode=mode) for mode in ("auto", "recall", "exhaustive")]

    serve_all(context)

    for job_id in jobs:
        hits = service.job(job_id).result["hits"]
        assert len({hit["video_id"] for hit in hits}) == 10


def test_rerank_reads_the_clips_that_it_scores_and_no_others(service, context, fill):
    fill(250, 250, 250)
    read = []
    real = context.own(LoadedModels).tokens._read
    context.own(LoadedModels).tokens._read = lambda key, indices: (
        read.append(indices) or real(key, indices)
    )

    job_id = search(service)
    serve_all(context)

    assert service.job(job_id).state == JobState.SUCCEEDED
    assert [len(indices) for indices in read] == [16, 16, 16]


def test_a_small_video_overtakes_a_long_one(service, recall_folder, media_folder):
    _, long_id = add_video(service, write_long_video(media_folder))
    small = []
    with closing(service.context(forward_megapixels=0.02, decode_threads=1)) as context:

        def add(*_):
            if not small:
                path = write_counting_video(media_folder / "small.mp4", 30, fps=10)
                small.append(add_video(service, path)[1])
            time.sleep(0.01)

        serving_model(context).backbone.register_forward_hook(add)
        embed_all(context)

    assert service.job(small[0]).state == service.job(long_id).state == JobState.SUCCEEDED
    assert service.job(small[0]).finished_at < service.job(long_id).finished_at


def test_a_video_goes_on_from_one_look_to_the_next_without_being_decoded_again(
    service, recall_folder, media_folder
):
    video_id, job_id = add_video(service, write_long_video(media_folder))
    with closing(
        service.context(look_seconds=0.1, forward_megapixels=0.02, embed_claim_limit=1)
    ) as context:
        passes = note_frames(serving_model(context))

        looks = 0
        while embed_next(context):
            looks += 1

    assert looks > 2
    assert sum(passes) == len(read_clips(service, video_id)) == 256
    assert service.job(job_id).lease_token == 1


def test_a_worker_that_closes_hands_back_what_it_would_have_gone_on_with(
    service, recall_folder, media_folder
):
    video_id, job_id = add_video(service, write_long_video(media_folder))
    with closing(service.context(look_seconds=0.3, forward_megapixels=0.02)) as context:
        assert embed_next(context)
        assert service.job(job_id).state == JobState.RUNNING

    job = service.job(job_id)
    assert (job.state, job.attempt, job.worker_losses) == (JobState.QUEUED, 0, 0)
    assert read_clips(service, video_id) == []


def test_clips_that_were_finished_are_not_made_again_and_seen_by_nobody_before(
    service, recall_folder, media_folder
):
    video_id, job_id = add_video(service, write_long_video(media_folder))
    # A look is as long as the passes take, however busy the machine is.
    settings = {"forward_megapixels": 0.02, "keep_seconds": 0, "look_seconds": 600}
    with closing(service.context(**settings)) as first:
        stop = []
        passes = note_frames(serving_model(first))
        first.leases._is_stopping = lambda: bool(stop)
        serving_model(first).backbone.register_forward_hook(
            lambda *_: stop.append(1) if sum(passes) > 100 else None
        )
        embed_next(first)
    before = read_clips(service, video_id)

    with closing(service.context()) as second:
        rest = note_frames(serving_model(second))
        embed_all(second)

    assert before == []
    assert service.job(job_id).state == JobState.SUCCEEDED
    assert len(read_clips(service, video_id)) == 256
    assert sum(rest) < 256 - 80
    assert pieces_of(service, job_id) == []


class HangingEncoders(Encoders):
    """Encoders whose decoder hangs in one file, and gets further in others."""

    hangs_in = "hangs.mp4"
    slow_seconds = 0.0

    def stream(self, path, clips, *, name=None):
        if name == self.hangs_in:
            release.wait()
        time.sleep(self.slow_seconds)
        yield from super().stream(path, clips, name=name)


release = threading.Event()


class Left(BaseException):
    """The process would have ended."""


def leave(event, error):
    raise Left(event)


def test_a_hung_decoder_fails_its_job_and_hands_the_others_back(
    service, recall_folder, media_folder
):
    jobs = {
        name: add_video(service, write_counting_video(media_folder / name, frames, fps=10))[1]
        for name, frames in {"hangs.mp4": 30, "a.mp4": 60, "b.mp4": 90}.items()
    }
    release.clear()
    with closing(service.context(stall_seconds=1, decode_threads=2)) as context:
        embedder = Embedder(context, leave=leave)
        use_encoders(service, context, embedder, HangingEncoders)
        passes = note_frames(serving_model(context))
        # The others are in the middle when the process ends.
        serving_model(context).backbone.register_forward_hook(lambda *_: time.sleep(0.1))
        context.own(LoadedModels).forward_limit.limit = 0.001

        with pytest.raises(Left, match=r"decode\.stuck"):
            embedder.work(60)
        release.set()
        embedder.close()

    states = {name: service.job(job_id) for name, job_id in jobs.items()}
    assert (states["hangs.mp4"].state, states["hangs.mp4"].error_code) == (
        JobState.FAILED,
        "decode_failed",
    )
    for name in ("a.mp4", "b.mp4"):
        job = states[name]
        assert job.state == JobState.SUCCEEDED or (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert passes


def test_a_decode_that_ended_while_the_process_did_something_else_is_not_late(
    service, recall_folder, media_folder
):
    _, job_id = add_video(service, write_counting_video(media_folder / "a.mp4", 60, fps=10))
    question = []
    with closing(service.context(stall_seconds=0.8, decode_threads=1)) as context:
        embedder = Embedder(context, leave=leave)
        use_encoders(service, context, embedder, HangingEncoders)
        HangingEncoders.slow_seconds = 0.3
        real = context.own(LoadedModels).cache.get(recall_row(context)).encode_texts

        def slowly(texts):
            time.sleep(1.5)
            return real(texts)

        context.own(LoadedModels).cache.get(recall_row(context)).encode_texts = slowly
        question.append(search(service, "a dog"))
        try:
            embedder.work(60)
        finally:
            HangingEncoders.slow_seconds = 0.0
            embedder.close()

    assert service.job(job_id).state == JobState.SUCCEEDED
    assert service.job(question[0]).state == JobState.SUCCEEDED


def recall_row(context):
    with context.sessions.begin() as session:
        return ModelRepository(session).serving(Task.RECALL)


def use_encoders(service, context, embedder, kind):
    with service.sessions.begin() as session:
        generation = GenerationRepository(session).active()
    model = context.own(LoadedModels).cache.get(recall_row(context))
    embedder._encoders[generation.id] = kind(generation, model, model)


class SlowBlobs:
    """Blobs whose downloads take a while."""

    def __init__(self, blobs, seconds):
        self._blobs, self._seconds = blobs, seconds

    def __getattr__(self, name):
        return getattr(self._blobs, name)

    def as_local_file(self, key, *, on_piece=None):
        time.sleep(self._seconds)
        return self._blobs.as_local_file(key, on_piece=on_piece)


def test_questions_are_answered_during_a_download(service, recall_folder, media_folder):
    path = write_counting_video(media_folder / "a.mp4", 60, fps=10)
    video_id, job_id = add_video(service, path)
    service.blobs.put_file("media/aa", path)
    with service.sessions.begin() as session:
        VideoRepository(session).relocate(
            video_id, uri="upload:a.mp4", blob_key="media/aa", filename="a.mp4"
        )
    with closing(service.context()) as context:
        context.blobs = SlowBlobs(service.blobs, 3)
        asked = search(service, "a dog")
        embed_all(context)

    assert service.job(job_id).state == JobState.SUCCEEDED
    early = service.job(job_id).finished_at - service.job(asked).finished_at
    assert early.total_seconds() > 1


def kill_and_return(service, context, worker, job_id):
    child = child_of(worker)
    child.kill()
    service.kill(worker)
    wait_for(lambda: reconcile(context) or service.job(job_id).state == JobState.QUEUED)


def test_a_killed_worker_costs_a_long_video_no_more_than_what_was_not_kept(
    service, context, recall_folder, long_video
):
    job_id = long_video()
    worker = service.start_worker(
        "interactive,embed", **ONE_FRAME_PASSES, **SHORT_LEASE, keep_seconds="0.2"
    )
    wait_for(lambda: len(pieces_of(service, job_id)) > 2)
    kill_and_return(service, context, worker, job_id)
    passes = note_frames(serving_model(context))

    embed_all(context)

    job = service.job(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    assert sum(passes) < 256
    assert [clip.index for clip in read_clips(service, job.video_id)] == list(range(256))
    assert read_video(service, job.video_id).state == "ready"


def test_a_killed_worker_costs_an_exhaustive_search_no_more_than_what_was_not_kept(
    service, context, fill
):
    fill(*[200] * 30)
    job_id = search(service, mode="exhaustive")
    worker = service.start_worker(
        "interactive,embed", match_clips="20", **SHORT_LEASE, keep_seconds="0.1"
    )
    wait_for(lambda: len(pieces_of(service, job_id)) > 2)
    kill_and_return(service, context, worker, job_id)
    passes = count_passes(context, Task.RETRIEVAL)

    serve_all(context)

    job = service.job(job_id)
    assert (job.state, job.result["candidates"]) == (JobState.SUCCEEDED, 6_000)
    assert sum(passes) < 6_000
    assert pieces_of(service, job_id) == []
