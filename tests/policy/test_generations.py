from datetime import timedelta

import pytest
from sqlalchemy import func, text, update
from videos import write_counting_video

from policy.generations import embed_job, generations_in_use
from policy.library_walk import embed_forgotten
from policy.registration import ensure_default, promote, register_model
from policy.serving import read_serving
from store.errors import IllegalRollback
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.models.generation_coverage import check_videos
from store.models.repository import GenerationRepository, ModelRepository, index_name
from store.models.tables import Generation, GenerationState
from store.results.questions import QuestionRepository
from store.table_base import Task
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState
from tests.workers.labelled import add_clips, add_indexed_video
from tests.workers.library import add_video, embed_all, roll_back
from tests.workers.small_models import save_recall_model, save_tiny
from workers.answering.interactive import serve_interactive
from workers.indexing.embedding import embed_next
from workers.maintenance.reconciler import reconcile, switch_generation
from workers.maintenance.sweeping import remove_old_generations, sweep
from workers.models.loaded_models import LoadedModels


@pytest.fixture
def mini(sessions, blobs, tmp_path):
    return ensure_default(sessions, blobs, mini_folder=save_recall_model(tmp_path / "recall"))


@pytest.fixture
def tiny(sessions, blobs, tmp_path, mini):
    """A model with trained heads that reads pixels differently from mini."""
    return register_model(sessions, blobs, save_tiny(tmp_path / "tiny"), name="t", version="1")


@pytest.fixture
def videos(sessions, mini):
    with sessions.begin() as session:
        return [add_indexed_video(session, name) for name in "abc"]


def generations(sessions):
    """All of them, the oldest first."""
    with sessions.begin() as session:
        return list(GenerationRepository(session).list())[::-1]


def states(sessions):
    return [generation.state for generation in generations(sessions)]


def embeds(sessions, generation):
    with sessions.begin() as session:
        jobs = JobRepository(session).list(kind=JobKind.EMBED, page_size=500).items
    return [job for job in jobs if job.input["generation_id"] == str(generation.id)]


def fill(sessions, generation, video_ids):
    """Do as if the embed jobs of these videos had been done."""
    with sessions.begin() as session:
        for video_id in video_ids:
            add_clips(session, video_id, generation.id)
            session.execute(
                text("UPDATE jobs SET state = 'succeeded' WHERE video_id = :id AND kind = 'embed'"),
                {"id": video_id},
            )


def fail(sessions, generation, video_id):
    with sessions.begin() as session:
        session.execute(
            text(
                "UPDATE jobs SET state = 'failed', error_code = 'media_not_found', "
                "error_message = 'it is gone' "
                "WHERE video_id = :id AND input ->> 'generation_id' = :generation"
            ),
            {"id": video_id, "generation": str(generation.id)},
        )


def ask(sessions, video_id, **wanted):
    with sessions.begin() as session:
        new = NewJob(JobKind.QUESTION, {"video_id": str(video_id), "text": "what is it?", **wanted})
        job = JobRepository(session).enqueue(new)
        QuestionRepository(session).create(job, text="what is it?")
        return job.id


def counts(sessions):
    with sessions.begin() as session:
        return VideoRepository(session).counts()


def test_a_model_that_sees_otherwise_serves_once_every_video_is_there(
    context, sessions, videos, tiny
):
    promote(sessions, tiny)
    old, new = generations(sessions)
    fill(sessions, new, videos[:2])
    switch_generation(context)
    with sessions.begin() as session:
        meanwhile = read_serving(session)
    fill(sessions, new, videos[2:])
    switch_generation(context)

    assert (meanwhile.generation.id, meanwhile.qa) == (old.id, None)
    with sessions.begin() as session:
        after = read_serving(session)
    assert (after.generation.id, after.qa.id) == (new.id, tiny)
    assert states(sessions) == [GenerationState.RETIRED, GenerationState.ACTIVE]
    assert generations(sessions)[0].retired_at is not None


def test_rebuilding_comes_after_everything_else(sessions, videos, tiny):
    promote(sessions, tiny)

    jobs = embeds(sessions, generations(sessions)[1])

    assert len(jobs) == len(videos)
    assert {job.priority for job in jobs} == {8}


def test_the_last_model_that_fits_goes_on_until_the_new_generation_is_there(
    context, sessions, tmp_path, videos, tiny
):
    promote(sessions, tiny)
    first = generations(sessions)[1]
    fill(sessions, first, videos)
    switch_generation(context)
    folder = save_tiny(tmp_path / "other", seed=9)
    other = register_model(sessions, context.blobs, folder, name="o", version="1")

    promote(sessions, other, [Task.QA])

    with sessions.begin() as session:
        serving = read_serving(session)
        assert ModelRepository(session).serving(Task.QA).id == other
    assert (serving.generation.id, serving.qa.id) == (first.id, tiny)


def test_a_video_that_came_while_the_generation_was_made_gets_its_job(
    context, sessions, videos, tiny
):
    promote(sessions, tiny)
    new = generations(sessions)[1]
    fill(sessions, new, videos)
    with sessions.begin() as session:
        late = add_indexed_video(session, "late")

    reconcile(context)

    assert [job.video_id for job in embeds(sessions, new) if job.state == JobState.QUEUED] == [late]
    assert new.state == GenerationState.BUILDING
    assert context.doorbell.queue_length("embed") == 1


def test_a_video_that_cannot_be_embedded_does_not_hold_the_others_back(
    context, sessions, videos, tiny
):
    promote(sessions, tiny)
    new = generations(sessions)[1]
    fill(sessions, new, videos[1:])
    fail(sessions, new, videos[0])

    switch_generation(context)

    assert states(sessions)[1] == GenerationState.ACTIVE
    with sessions.begin() as session:
        video = VideoRepository(session).get(videos[0])
    assert (video.state, video.error_code) == (VideoState.FAILED, "media_not_found")
    assert counts(sessions)[VideoState.READY] == 2


def test_a_model_that_fails_on_many_videos_does_not_take_over(context, sessions, videos, tiny):
    promote(sessions, tiny)
    new = generations(sessions)[1]
    fill(sessions, new, videos[2:])
    for video_id in videos[:2]:
        fail(sessions, new, video_id)

    switch_generation(context)

    assert states(sessions) == [GenerationState.ACTIVE, GenerationState.BUILDING]
    assert counts(sessions) == {VideoState.READY: 3}


def test_rollback_brings_the_kept_generation_back_at_once(context, sessions, videos, tiny):
    promote(sessions, tiny)
    old, new = generations(sessions)
    fill(sessions, new, videos)
    switch_generation(context)
    with sessions.begin() as session:
        newer = add_indexed_video(session, "newer")  # in the new generation only

    changes = roll_back(sessions, tiny, reason="it was worse")

    assert {(change.task, change.model_id) for change in changes} == {
        (Task.QA, None),
        (Task.RETRIEVAL, None),
    }
    assert states(sessions) == [GenerationState.ACTIVE, GenerationState.RETIRED]
    with sessions.begin() as session:
        assert read_serving(session).qa is None
        assert VideoRepository(session).get(newer).state == VideoState.PROCESSING
    assert [job.video_id for job in embeds(sessions, old)] == [newer]
    assert counts(sessions) == {VideoState.READY: 3, VideoState.PROCESSING: 1}


def test_what_was_promoted_again_is_searched_at_once_if_it_is_kept(context, sessions, videos, tiny):
    promote(sessions, tiny)
    fill(sessions, generations(sessions)[1], videos)
    switch_generation(context)
    roll_back(sessions, tiny)

    promote(sessions, tiny)

    assert states(sessions) == [GenerationState.RETIRED, GenerationState.ACTIVE]
    assert counts(sessions) == {VideoState.READY: 3}


def test_a_building_that_was_abandoned_goes_on_where_it_stopped(sessions, videos, tiny):
    promote(sessions, tiny)
    new = generations(sessions)[1]
    fill(sessions, new, videos[:1])
    roll_back(sessions, tiny)
    assert states(sessions) == [GenerationState.ACTIVE, GenerationState.RETIRED]

    promote(sessions, tiny)

    assert states(sessions) == [GenerationState.ACTIVE, GenerationState.BUILDING]
    with sessions.begin() as session:
        missing = check_videos(session, new.id, limit=100)
    assert sorted(missing.waiting) == sorted(videos[1:])


def test_the_only_model_with_recall_vectors_cannot_be_rolled_back(sessions, mini, tiny):
    with pytest.raises(ValueError, match="recall vectors"):
        roll_back(sessions, mini)
    with pytest.raises(IllegalRollback):
        roll_back(sessions, tiny)

    with sessions.begin() as session:
        assert read_serving(session).recall.id == mini


def test_jobs_of_a_retired_generation_compute_nothing(
    context, service, sessions, media_folder, tiny
):
    path = write_counting_video(media_folder / "v.mp4", 20, fps=10)
    add_video(service, path)
    embed_all(context)
    promote(sessions, tiny)
    roll_back(sessions, tiny)

    embed_all(context)

    (job,) = embeds(sessions, generations(sessions)[1])
    assert (job.state, job.result) == (JobState.SUCCEEDED, {"clips": 0})
    assert tiny not in context.own(LoadedModels).cache._models  # not even loaded for it


def test_questions_are_answered_between_the_videos_of_a_rebuild(
    context, service, sessions, media_folder, tiny
):
    video_ids = [
        add_video(service, write_counting_video(media_folder / f"{n}.mp4", 20 + n, fps=10))[0]
        for n in range(6)
    ]
    embed_all(context)
    promote(sessions, tiny)
    before_id = ask(sessions, video_ids[0], choices=["one", "two"])

    embed_next(context)  # four of the six

    assert service.job(before_id).state == JobState.SUCCEEDED
    assert states(sessions) == [GenerationState.ACTIVE, GenerationState.BUILDING]
    embed_all(context)
    switch_generation(context)
    after_id = ask(sessions, video_ids[0])
    serve_interactive(context)
    assert states(sessions) == [GenerationState.RETIRED, GenerationState.ACTIVE]
    assert service.job(after_id).result["model_id"] == str(tiny)


def test_an_old_generation_loses_its_clips_tokens_and_index_but_not_its_row(
    context, sessions, blobs, videos, tiny
):
    promote(sessions, tiny)
    old, new = generations(sessions)
    fill(sessions, new, videos)
    switch_generation(context)
    keys = [f"tokens/{old.id}/{video_id}.safetensors" for video_id in videos]
    for key in keys:
        blobs.put_bytes(key, b"tokens")

    remove_old_generations(context)
    kept = states(sessions)[0]
    with sessions.begin() as session:
        longer = func.now() - context.settings.generation_retention - timedelta(hours=1)
        session.execute(update(Generation).where(Generation.id == old.id).values(retired_at=longer))
    remove_old_generations(context)

    assert kept == GenerationState.RETIRED
    assert states(sessions) == [GenerationState.DELETED, GenerationState.ACTIVE]
    assert not any(blobs.exists(key) for key in keys)
    with sessions.begin() as session:
        assert GenerationRepository(session).coverage(old.id).num_indexed == 0
        index = session.scalar(
            text("SELECT count(*) FROM pg_indexes WHERE indexname = :name"),
            {"name": index_name(old.id)},
        )
    assert index == 0


def test_an_index_is_not_dropped_while_somebody_reads(context, sessions, videos, tiny):
    promote(sessions, tiny)
    old, new = generations(sessions)
    fill(sessions, new, videos)
    switch_generation(context)
    long_ago = func.now() - timedelta(days=400)
    with sessions.begin() as session:
        session.execute(
            update(Generation).where(Generation.id == old.id).values(retired_at=long_ago)
        )

    with sessions.begin() as reader:
        reader.execute(text("LOCK TABLE clips IN ACCESS SHARE MODE"))
        remove_old_generations(context)  # a search that comes now does not wait behind it
        while_read = states(sessions)[0]
    remove_old_generations(context)

    assert while_read == GenerationState.RETIRED
    assert states(sessions)[0] == GenerationState.DELETED


def test_after_its_retention_a_generation_is_built_anew(context, sessions, videos, tiny):
    promote(sessions, tiny)
    old, new = generations(sessions)
    fill(sessions, new, videos)
    switch_generation(context)
    with sessions.begin() as session:
        session.execute(
            update(Generation)
            .where(Generation.id == old.id)
            .values(retired_at=func.now() - timedelta(days=400))
        )
    remove_old_generations(context)

    roll_back(sessions, tiny)

    assert states(sessions) == [
        GenerationState.DELETED,
        GenerationState.ACTIVE,  # goes on until the new one is there
        GenerationState.BUILDING,
    ]
    assert len(embeds(sessions, generations(sessions)[2])) == len(videos)


def test_the_sweep_embeds_what_was_forgotten(context, sessions, mini):
    with sessions.begin() as session:
        video, _ = VideoRepository(session).create(uri="file:///v.mp4", sha256="a")
    sweep(context)

    (job,) = embeds(sessions, generations(sessions)[0])
    assert job.video_id == video.id
    with sessions.begin() as session:
        assert embed_forgotten(session) == 0


def test_only_one_sweeps_at_a_time(context, service, sessions, mini):
    with sessions.begin() as session:
        VideoRepository(session).create(uri="file:///v.mp4", sha256="a")
    with sessions.begin() as holder:
        holder.execute(text(f"SELECT pg_advisory_xact_lock({0x7377656570696E67})"))
        sweep(context)
        assert service.jobs(JobKind.EMBED) == []
    sweep(context)
    assert len(service.jobs(JobKind.EMBED)) == 1


def test_new_videos_go_into_the_searched_and_the_building_generation(sessions, videos, tiny):
    promote(sessions, tiny)

    with sessions.begin() as session:
        in_use = [generation.state for generation in generations_in_use(session)]
        job = embed_job(videos[0], generations(sessions)[0].id)

    assert in_use == [GenerationState.ACTIVE, GenerationState.BUILDING]
    assert job.priority < 8
