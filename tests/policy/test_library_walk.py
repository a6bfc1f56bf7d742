from datetime import timedelta

import pytest
from sqlalchemy import func, select, text, update

from policy import library_walk
from policy.generations import follow_serving
from policy.library_walk import FILLING_STEP, advance, take_step
from policy.registration import ensure_default, promote_in, register_model
from store.jobs.state import JobKind
from store.jobs.tables import Job
from store.models.generation_coverage import check_videos, settle_videos
from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import Generation, GenerationState, Walk
from store.videos.tables import Video, VideoState
from tests.workers.labelled import add_clips, add_indexed_video
from tests.workers.small_models import save_recall_model, save_tiny


@pytest.fixture
def mini(sessions, blobs, tmp_path):
    return ensure_default(sessions, blobs, mini_folder=save_recall_model(tmp_path / "recall"))


@pytest.fixture
def tiny(sessions, blobs, tmp_path, mini):
    """A model that reads pixels differently from mini, so that it needs a generation."""
    return register_model(sessions, blobs, save_tiny(tmp_path / "tiny"), name="t", version="1")


def add_videos(sessions, count):
    with sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO videos (id, uri, sha256, state, is_still, probe, tags, metadata) "
                "SELECT uuidv7(), 'file:///' || n, 'sha' || n, 'ready', false, '{}', '{}', '{}' "
                "FROM generate_series(1, :count) AS n"
            ),
            {"count": count},
        )
        active = GenerationRepository(session).active()
        add_clips_of_all(session, active.id)


def add_clips_of_all(session, generation_id):
    session.execute(
        text(
            "INSERT INTO clips (generation_id, video_id, index, start_seconds, end_seconds, "
            "instants, tokens_key) SELECT :generation_id, id, 0, 0, 1, '{}', 'k' FROM videos"
        ),
        {"generation_id": generation_id},
    )


def promote_only(sessions, model_id):
    """Commit a promotion, and crash before anything else."""
    with sessions.begin() as session:
        return promote_in(session, model_id).id


def count_embeds(sessions, generation_id):
    of_generation = Job.input["generation_id"].astext == str(generation_id)
    with sessions.begin() as session:
        return session.scalar(select(func.count()).where(Job.kind == JobKind.EMBED, of_generation))


def read_generation(sessions, generation_id):
    with sessions.begin() as session:
        return GenerationRepository(session).get(generation_id)


def test_a_promotion_makes_no_job_in_its_own_transaction(sessions, tiny):
    add_videos(sessions, 10)

    building = promote_only(sessions, tiny)

    assert count_embeds(sessions, building) == 0
    assert read_generation(sessions, building).walk == Walk.FILL


def test_jobs_of_a_promotion_are_made_in_steps_and_a_crash_between_two_loses_none(sessions, tiny):
    add_videos(sessions, 2 * FILLING_STEP + 1)
    building = promote_only(sessions, tiny)

    with sessions.begin() as session:
        take_step(session)
    after_one = count_embeds(sessions, building)
    with sessions() as session:
        take_step(session)
        session.rollback()  # as if the process had died in it
    advance(sessions, seconds=60)

    assert after_one == FILLING_STEP
    assert count_embeds(sessions, building) == 2 * FILLING_STEP + 1
    assert advance(sessions, seconds=60) == 0


def test_what_was_asked_for_whole_is_asked_for_whole_of_a_later_generation(sessions, tiny):
    add_videos(sessions, 3)
    with sessions.begin() as session:
        session.execute(update(Video).where(Video.sha256 == "sha2").values(is_strict=True))

    building = promote_only(sessions, tiny)
    advance(sessions, seconds=60)

    of_generation = Job.input["generation_id"].astext == str(building)
    with sessions.begin() as session:
        strict = session.scalars(
            select(Video.sha256)
            .join(Job, Job.video_id == Video.id)
            .where(of_generation, Job.input["strict"].as_boolean())
        ).all()
    assert strict == ["sha2"]


def test_only_one_process_makes_steps_and_the_other_does_not_wait(sessions, tiny):
    add_videos(sessions, 10)
    promote_only(sessions, tiny)

    with sessions.begin() as one, sessions.begin() as other:
        other.execute(text("SET LOCAL statement_timeout = '5s'"))

        assert take_step(one).num_enqueued == 10
        assert take_step(other) is None


def test_while_jobs_are_to_be_done_the_library_is_not_looked_at(sessions, tiny):
    add_videos(sessions, 10)
    building = promote_only(sessions, tiny)
    advance(sessions, seconds=60)

    with sessions.begin() as session:
        session.execute(text("ALTER TABLE videos RENAME TO unreadable"))  # whoever reads it fails
        assert take_step(session) is None
        session.rollback()

    assert read_generation(sessions, building).state == GenerationState.BUILDING


def test_videos_follow_the_searched_generation_in_steps(sessions, tiny, monkeypatch):
    monkeypatch.setattr(library_walk, "STEP", 4)
    add_videos(sessions, 10)
    building = promote_only(sessions, tiny)
    advance(sessions, seconds=60)
    with sessions.begin() as session:
        session.execute(text("UPDATE jobs SET state = 'succeeded' WHERE kind = 'embed'"))
        add_clips_of_all(session, building)
        session.execute(text("UPDATE videos SET state = 'failed' WHERE uri = 'file:///7'"))
        session.execute(text("UPDATE videos SET state = 'superseded' WHERE uri = 'file:///3'"))

    while read_generation(sessions, building).state != GenerationState.ACTIVE:
        with sessions.begin() as session:
            take_step(session)
    at_the_switch = states(sessions)
    advance(sessions, seconds=60)

    assert at_the_switch == {VideoState.READY: 8, VideoState.FAILED: 1, VideoState.SUPERSEDED: 1}
    assert states(sessions) == {VideoState.READY: 9, VideoState.SUPERSEDED: 1}


def states(sessions):
    with sessions.begin() as session:
        rows = session.execute(select(Video.state, func.count()).group_by(Video.state))
        return {row[0]: row[1] for row in rows}


def test_a_generation_that_was_held_back_is_looked_at_again_after_a_retry(sessions, tiny):
    add_videos(sessions, 5)
    building = promote_only(sessions, tiny)
    advance(sessions, seconds=60)
    set_jobs(sessions, "failed")
    advance(sessions, seconds=60)
    held_back = read_generation(sessions, building)

    nothing = advance(sessions, seconds=60)
    set_jobs(sessions, "queued")
    advance(sessions, seconds=60)
    with sessions.begin() as session:
        add_clips_of_all(session, building)
    set_jobs(sessions, "succeeded")
    advance(sessions, seconds=60)

    assert (held_back.state, held_back.walk) == (GenerationState.BUILDING, None)
    assert held_back.checked_at is not None
    assert nothing == 0
    assert read_generation(sessions, building).state == GenerationState.ACTIVE


def set_jobs(sessions, state):
    with sessions.begin() as session:
        session.execute(
            text("UPDATE jobs SET state = :state WHERE kind = 'embed'"), {"state": state}
        )


def test_a_part_of_the_library_is_as_large_as_asked_for(sessions, mini):
    add_videos(sessions, 5)
    with sessions.begin() as session:
        generation_id = GenerationRepository(session).active().id
        ids = session.scalars(select(Video.id).order_by(Video.id)).all()
        session.execute(text("DELETE FROM clips"))

        first = check_videos(session, generation_id, limit=3)
        rest = check_videos(session, generation_id, after=first.last, limit=3)

    assert (first.forgotten, first.last) == (ids[:3], ids[2])
    assert (rest.forgotten, rest.last) == (ids[3:], None)


def test_clips_written_after_the_look_keep_a_video_searchable(sessions, mini):
    """A look, then a worker's commit, then the states: the worker's is the last word."""
    with sessions.begin() as session:
        video_id = add_indexed_video(session, "a")
        generation_id = GenerationRepository(session).active().id
        session.execute(text("DELETE FROM clips"))

    with sessions.begin() as session:
        seen = check_videos(session, generation_id, limit=10)
        with sessions.begin() as worker:
            add_clips(worker, video_id, generation_id)
        settle_videos(session, generation_id, seen=seen)

    assert seen.to_be_processing == [video_id]
    assert states(sessions) == {VideoState.READY: 1}


def test_an_overtaken_generation_makes_no_more_jobs(sessions, tiny, mini):
    add_videos(sessions, 10)
    building = promote_only(sessions, tiny)
    with sessions.begin() as session:
        ModelRepository(session).rollback(tiny)
        session.execute(
            update(Generation)
            .where(Generation.id == building)
            .values(retired_at=func.now() - timedelta(days=1))
        )
        follow_serving(session)

    advance(sessions, seconds=60)

    assert count_embeds(sessions, building) == 0
