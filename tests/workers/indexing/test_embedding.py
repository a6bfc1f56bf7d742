import time
from datetime import UTC, datetime, timedelta
from pathlib import PurePath

import numpy as np
import pytest
import torch
from sqlalchemy import update
from videos import cut, write_counting_video, write_video

from clipbert.inference.clipbert import ClipBert
from clipbert.inference.clips import decode_clips
from clipbert.sampling.plan import INDEX_PLAN
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import probe_video
from policy.registration import ensure_default
from store.jobs.records import SINGLE_PRIORITY
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from store.models.repository import ModelRepository
from store.table_base import Task
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState
from tests.workers.library import add_video, embed_all, read_clips, read_video
from tests.workers.small_models import save_recall_model
from workers.indexing.embedding import embed_next
from workers.jobs.batching import CostLimit
from workers.models.loaded_models import LoadedModels


@pytest.fixture
def model_folder(service, tmp_path):
    folder = save_recall_model(tmp_path / "recall")
    ensure_default(service.sessions, service.blobs, mini_folder=folder)
    return folder


@pytest.fixture
def counting_videos(model_folder, service, media_folder):
    """Three videos of 4, 4 and 10 clips with different content; ids of video and embed job."""
    lengths = {"a": 30, "b": 60, "c": 400}
    paths = [
        write_counting_video(media_folder / f"{name}.mp4", frames, fps=10)
        for name, frames in lengths.items()
    ]
    return [add_video(service, path) for path in paths]


def serving_model(context):
    """The torch module that the worker's process runs."""
    with context.sessions.begin() as session:
        row = ModelRepository(session).serving(Task.RECALL)
    return context.own(LoadedModels).cache.get(row).network


def note_frames(module):
    """Note how many frames each pass of the CNN took."""
    passes = []
    module.backbone.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    return passes


def test_one_forward_pass_serves_several_videos(service, context, counting_videos):
    passes = note_frames(serving_model(context))
    context.own(LoadedModels).forward_limit = CostLimit(
        50.0
    )  # megapixels; by no time, for machines differ

    assert embed_next(context) == 3

    assert sum(passes) == 18
    assert len(passes) < 3
    for video_id, job_id in counting_videos:
        assert service.job(job_id).state == JobState.SUCCEEDED
        assert read_video(service, video_id).state == VideoState.READY
    assert [len(read_clips(service, video_id)) for video_id, _ in counting_videos] == [4, 4, 10]


def test_a_stream_of_new_videos_does_not_starve_one_of_large_frames(
    service, model_folder, media_folder
):
    context = service.context(forward_megapixels=0.001)  # a frame a pass
    large = np.zeros((720, 1280, 3), dtype=np.uint8)
    path = write_video(media_folder / "large.mp4", [large] * 40, fps=10, gop=40)
    _, large_job = add_video(service, path)
    small = [write_counting_video(media_folder / f"{n}.mp4", 30 + n, fps=10) for n in range(20)]
    arriving = iter(small)
    jobs = []

    def arrive(*_):
        if (path := next(arriving, None)) is not None:
            jobs.append(add_video(service, path)[1])

    serving_model(context).backbone.register_forward_hook(arrive)

    embed_all(context)

    ended = sorted([large_job, *jobs], key=lambda job_id: service.job(job_id).finished_at)
    assert len(ended) == 21
    assert ended.index(large_job) < 10
    context.close()


def test_a_short_video_sent_alone_overtakes_bulk_that_was_claimed_before_it(
    service, model_folder, media_folder
):
    context = service.context(forward_megapixels=0.001, embed_claim_limit=9)
    paths = [write_counting_video(media_folder / f"{n}.mp4", 80 + n, fps=10) for n in range(9)]
    bulk = [add_video(service, path)[1] for path in paths[:8]]
    alone = []

    def upload(*_):
        if not alone:
            alone.append(add_video(service, paths[8], priority=SINGLE_PRIORITY)[1])
            time.sleep(0.6)  # the next claim is due after this pass

    serving_model(context).backbone.register_forward_hook(upload)

    embed_all(context)

    ended = sorted([*bulk, *alone], key=lambda job_id: service.job(job_id).finished_at)
    assert ended.index(alone[0]) <= 1  # a pass of another may have been under way
    context.close()


def test_a_suspect_is_not_kept_waiting_by_what_waits_for_it(service, model_folder, media_folder):
    context = service.context(forward_megapixels=0.001)
    paths = [write_counting_video(media_folder / f"{n}.mp4", 80 + n, fps=10) for n in range(4)]
    jobs = [add_video(service, path)[1] for path in paths[:3]]

    def lose_another(*_):
        if len(jobs) < 4:
            jobs.append(add_video(service, paths[3])[1])
            with service.sessions.begin() as session:
                session.execute(
                    update(Job)
                    .where(Job.id == jobs[3])
                    .values(worker_losses=1, run_at=datetime.now(UTC) - timedelta(minutes=1))
                )
            time.sleep(1)  # the next claim is due after this pass, and clips are decoded ahead

    serving_model(context).backbone.register_forward_hook(lose_another)

    embed_all(context)

    assert [service.job(job_id).state for job_id in jobs] == [JobState.SUCCEEDED] * 4
    context.close()


def test_what_is_stored_is_what_the_library_gives(
    service, context, counting_videos, model_folder, media_folder
):
    embed_all(context)

    path = media_folder / "c.mp4"
    clips = plan_clips(probe_video(path), INDEX_PLAN)
    model = ClipBert.for_serving(model_folder)
    encoded = model.encode_clips(decode_clips(path, clips, max_side_px=model.config.max_side_px))
    rows = read_clips(service, counting_videos[2][0])
    tokens = context.own(LoadedModels).tokens.get(rows[0].tokens_key)
    assert [row.instants for row in rows] == [list(clip.instants) for clip in clips]
    assert [(r.start_seconds, r.end_seconds) for r in rows] == [
        (c.start_seconds, c.end_seconds) for c in clips
    ]
    torch.testing.assert_close(tokens, encoded.tokens, atol=1e-3, rtol=1e-3)
    vectors = torch.tensor([row.vector for row in rows])
    torch.testing.assert_close(vectors, encoded.recall, atol=1e-3, rtol=0)


def test_a_file_that_is_not_the_one_that_was_indexed_fails_alone(
    service, context, counting_videos, media_folder
):
    whole = media_folder / "c.mp4"
    cut(whole, media_folder / "cut.mp4", share=0.6)
    (media_folder / "cut.mp4").replace(whole)

    embed_all(context)

    states = [service.job(job_id).state for _, job_id in counting_videos]
    assert states == [JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED]
    video = read_video(service, counting_videos[2][0])
    assert video.state == VideoState.FAILED
    assert video.error_code == service.job(counting_videos[2][1]).error_code
    assert video.error_code == "media_changed"


def test_clips_of_two_contents_are_never_stored(service, counting_videos, media_folder):
    context = service.context(forward_megapixels=0.001)  # a frame a pass, and others between
    path = media_folder / "c.mp4"

    def write(*_):
        path.write_bytes(path.read_bytes())  # the same bytes: what counts is that it was written

    serving_model(context).backbone.register_forward_hook(write)

    embed_all(context)

    job = service.job(counting_videos[2][1])
    # On a slow machine it may have been tried again already, and failed for good.
    assert job.state in {JobState.QUEUED, JobState.FAILED}
    assert job.error_code == "media_changed"
    assert read_clips(service, counting_videos[2][0]) == []
    context.close()


def test_what_is_wrong_with_a_link_is_said_of_its_own_name(
    service, context, model_folder, media_folder
):
    target = write_counting_video(media_folder / "target.mp4", 60)
    link = media_folder / "link.mp4"
    link.symlink_to(target)
    _, job_id = add_video(service, link)
    target.write_bytes(b"no video any more")

    embed_all(context)

    assert "link.mp4" in service.job(job_id).error_message
    assert "target" not in service.job(job_id).error_message


def test_a_file_that_vanished_fails_alone(service, context, counting_videos, media_folder):
    (media_folder / "a.mp4").unlink()

    embed_all(context)

    (_, lost), *others = counting_videos
    assert service.job(lost).error_code == "media_not_found"
    assert all(service.job(job_id).state == JobState.SUCCEEDED for _, job_id in others)


def test_a_full_memory_halves_the_batch_and_is_remembered(service, context, counting_videos):
    model = serving_model(context)

    def refuse(_, inputs):
        if len(inputs[0]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.backbone.register_forward_pre_hook(refuse)
    before = context.own(LoadedModels).forward_limit.limit

    embed_all(context)

    assert all(service.job(j).state == JobState.SUCCEEDED for _, j in counting_videos)
    assert context.own(LoadedModels).forward_limit.limit < before


def test_a_video_that_never_fits_fails_alone(service, context, counting_videos):
    model = serving_model(context)
    seen = []

    def refuse(_, inputs):
        # The frames of one video, known by its first frame's pixels.
        seen.extend(frame for frame in inputs[0] if not seen)
        if any(torch.equal(frame, seen[0]) for frame in inputs[0]):
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.backbone.register_forward_pre_hook(refuse)

    embed_all(context)

    first, *others = [service.job(job_id) for _, job_id in counting_videos]
    assert (first.state, first.error_code) == (JobState.FAILED, "out_of_memory")
    assert all(job.state == JobState.SUCCEEDED for job in others)


def test_a_cancelled_job_stops_between_two_passes(service, context, counting_videos):
    _, job_id = counting_videos[2]
    context.own(LoadedModels).forward_limit.limit = 0.05  # three frames of 128 px

    def cancel(_, inputs):
        with service.sessions.begin() as session:
            JobRepository(session).cancel_where(
                JobRepository(session).get(job_id).__class__.id == job_id
            )
        context.leases.beat()

    serving_model(context).backbone.register_forward_hook(lambda m, i, o: cancel(m, i))

    embed_all(context)

    states = [service.job(job).state for _, job in counting_videos]
    assert states == [JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.CANCELLED]
    assert read_clips(service, counting_videos[2][0]) == []
    assert read_video(service, counting_videos[2][0]).error_code == "cancelled"


def test_a_video_deleted_at_its_end_leaves_no_tokens(service, context, counting_videos):
    """The worker has not heard of the cancellation when it writes."""
    video_id, job_id = counting_videos[2]

    def delete(*_):
        with service.sessions.begin() as session:
            if VideoRepository(session).existing([video_id]):
                VideoRepository(session).delete(video_id)

    serving_model(context).backbone.register_forward_hook(delete)

    embed_all(context)

    job = service.job(job_id)
    assert (job.state, job.error_code) == (JobState.CANCELLED, None)
    kept = {PurePath(key).stem for key in context.blobs.keys("tokens")}
    assert kept == {str(other_id) for other_id, _ in counting_videos[:2]}


def test_a_question_never_waits_behind_a_bulk_of_videos(service, context, counting_videos):
    (answered, _), *_ = counting_videos
    embed_all(context)
    bulk = [add_again(service, job_id) for _, job_id in counting_videos]
    context.own(LoadedModels).forward_limit.limit = 0.05
    questions = []

    def ask(*_):
        if not questions:
            questions.append(ask_question(service, answered))

    serving_model(context).backbone.register_forward_hook(ask)
    embed_all(context)

    question = service.job(questions[0])
    assert question.state == JobState.SUCCEEDED
    assert all(question.finished_at < service.job(job_id).finished_at for job_id in bulk[2:])


def test_a_job_run_twice_leaves_one_set_of_clips(service, context, counting_videos):
    embed_all(context)
    video_id, job_id = counting_videos[2]
    add_again(service, job_id)

    embed_all(context)

    assert [clip.index for clip in read_clips(service, video_id)] == list(range(10))


def test_a_stopping_worker_gives_its_videos_back(service, counting_videos):
    context = service.context()
    stop = []
    context.leases._is_stopping = lambda: bool(stop)
    serving_model(context).backbone.register_forward_hook(lambda *_: stop.append(1))
    context.own(LoadedModels).forward_limit.limit = 0.05

    embed_next(context)
    context.close()

    jobs = [service.job(job_id) for _, job_id in counting_videos]
    assert [job.state for job in jobs] == [JobState.QUEUED] * 3
    assert [job.attempt for job in jobs] == [0] * 3


def add_again(service, job_id):
    """Enqueue another embed job like a finished one."""
    from store.jobs.repository import NewJob

    job = service.job(job_id)
    with service.sessions.begin() as session:
        new = NewJob(kind=JobKind.EMBED, input=job.input, video_id=job.video_id)
        return JobRepository(session).enqueue(new).id


def ask_question(service, video_id):
    from store.jobs.repository import NewJob
    from store.results.questions import QuestionRepository

    wanted = {"video_id": str(video_id), "text": "which?", "choices": ["a dog", "a parrot"]}
    with service.sessions.begin() as session:
        job = JobRepository(session).enqueue(NewJob(kind=JobKind.QUESTION, input=wanted))
        QuestionRepository(session).create(job, text="which?", video_id=video_id)
        return job.id
