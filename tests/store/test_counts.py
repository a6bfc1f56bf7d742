from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text

from store.counts import CountChange, fold_counts, read_counts
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from store.models.repository import GenerationRepository, ModelRepository
from store.videos.records import NewClip
from store.videos.repository import VideoRepository
from store.videos.tables import Clip, Video, VideoState

MINUTE = timedelta(minutes=1)


@pytest.fixture
def generation_id(sessions):
    with sessions.begin() as session:
        model = ModelRepository(session).register(
            name="m",
            version="1",
            heads=[],
            tasks=[],
            folder_key="models/m",
            sha256="s",
            visual_sha256="v",
            config={},
        )
        generations = GenerationRepository(session)
        return generations.create(model_id=model.id, recall_model_id=model.id, plan={}).id


def make_video(session):
    return VideoRepository(session).create(uri="file:///v.mp4", sha256=uuid4().hex)[0].id


def make_clips(count, first=0):
    return [NewClip(first + n, float(n), n + 1.0, [n + 0.5], None, "k") for n in range(count)]


def counted(session):
    """Count all rows, as nothing but a test may."""
    jobs = session.execute(select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state))
    videos = session.execute(select(Video.state, func.count()).group_by(Video.state))
    clips = session.execute(
        select(Clip.generation_id, func.count(Clip.video_id.distinct())).group_by(
            Clip.generation_id
        )
    )
    return (
        {f"jobs:{kind}:{state}": count for kind, state, count in jobs}
        | {f"videos:{state}": count for state, count in videos}
        | {f"clips:{generation_id}": count for generation_id, count in clips}
    )


def test_the_counts_are_those_of_the_rows_whatever_changed_them(sessions, generation_id):
    with sessions.begin() as session:
        jobs, videos = JobRepository(session), VideoRepository(session)
        jobs.enqueue_many(NewJob(JobKind.EMBED, {"n": n}) for n in range(5))
        first, second = jobs.claim([JobKind.EMBED], limit=2, owner="a", lease=MINUTE)
        jobs.finish(first, {})
        jobs.fail(second, code="bad", message="it is")
        ids = [make_video(session) for _ in range(4)]
        videos.mark_ready(ids[0])
        for video_id in ids[:3]:
            videos.replace_clips(video_id, generation_id, clips=make_clips(3))
        videos.replace_clips(ids[0], generation_id, clips=make_clips(2))  # still one video
        videos.replace_clips(ids[1], generation_id, clips=[])
    with sessions.begin() as session:
        VideoRepository(session).delete(ids[2])  # its clips go by the foreign key
        session.execute(text("UPDATE videos SET state = 'failed' WHERE state = 'processing'"))
        session.execute(text("DELETE FROM jobs WHERE state = 'succeeded'"))

    with sessions.begin() as session:
        assert read_counts(session, "") == counted(session)
        assert JobRepository(session).counts() == {
            JobKind.EMBED: {JobState.FAILED: 1, JobState.QUEUED: 3}
        }
        assert VideoRepository(session).counts() == {VideoState.READY: 1, VideoState.FAILED: 2}
        assert GenerationRepository(session).coverage(generation_id).num_indexed == 1


def test_clips_that_come_in_several_statements_are_one_indexed_video(sessions, generation_id):
    with sessions.begin() as session:
        video_id = make_video(session)
        VideoRepository(session).replace_clips(video_id, generation_id, clips=make_clips(2500))

        assert GenerationRepository(session).coverage(generation_id).num_indexed == 1

        remaining = text("DELETE FROM clips WHERE index >= 10")
        session.execute(remaining)
        assert GenerationRepository(session).coverage(generation_id).num_indexed == 1
        session.execute(text("DELETE FROM clips"))
        assert GenerationRepository(session).coverage(generation_id).num_indexed == 0


def test_folding_changes_no_count_and_leaves_no_change(sessions):
    with sessions.begin() as session:
        for _ in range(7):
            make_video(session)
    with sessions.begin() as session:
        before = read_counts(session, "videos:")

    folded = []
    while not folded or folded[-1] == 3:
        with sessions.begin() as session:
            folded.append(fold_counts(session, limit=3))

    assert folded == [3, 3, 1]
    with sessions.begin() as session:
        assert read_counts(session, "videos:") == before == {"processing": 7}
        assert session.scalar(select(func.count()).select_from(CountChange)) == 0


def test_two_transactions_that_change_a_count_do_not_wait_for_each_other(sessions):
    with sessions.begin() as one, sessions.begin() as other:
        make_video(one)
        other.execute(text("SET LOCAL lock_timeout = '1s'"))
        make_video(other)
        seen = read_counts(other, "videos:")

    assert seen == {"processing": 1}
    with sessions.begin() as session:
        assert read_counts(session, "videos:") == {"processing": 2}


def test_jobs_for_later_are_not_due(sessions):
    with sessions.begin() as session:
        jobs = JobRepository(session)
        jobs.enqueue_many(NewJob(JobKind.EMBED, {"n": n}) for n in range(5))
        session.execute(
            text("UPDATE jobs SET run_at = now() + interval '1 hour' WHERE input ->> 'n' < '2'")
        )

        assert jobs.due_counts() == {JobKind.EMBED: 3}
        assert jobs.due_up_to(16) == {JobKind.EMBED: 3}
        assert jobs.due_up_to(2) == {JobKind.EMBED: 2}


# The columns of a foreign key must lead an index, which may be partial if it only leaves out nulls.
UNINDEXED = """
SELECT conrelid::regclass || '.' || attname
FROM pg_constraint
JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
WHERE contype = 'f' AND NOT EXISTS (
    SELECT FROM pg_index
    WHERE indrelid = conrelid AND indkey[0] = conkey[1] AND indisvalid
      AND (indpred IS NULL
           OR pg_get_expr(indpred, indrelid) = format('(%I IS NOT NULL)', attname)))
"""


def test_every_foreign_key_has_an_index(sessions):
    with sessions.begin() as session:
        assert session.scalars(text(UNINDEXED)).all() == []
