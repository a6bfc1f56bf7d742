"""How many items of a batch are in which state, counted while their rows change."""

import random
import threading
from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy
from alembic import command
from sqlalchemy import func, select, text

from store.counts import fold_batch_deltas
from store.database import alembic_config, make_sessions
from store.errors import IllegalMove, LeaseLost, VideoNotFound
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from store.videos.batches import BatchRepository
from store.videos.records import ItemState
from store.videos.repository import VideoRepository
from store.videos.tables import Batch, BatchDelta, Video

MINUTE = timedelta(minutes=1)


def put(session, count, **fields):
    batch_id = BatchRepository(session).create().id
    JobRepository(session).enqueue_many(
        NewJob(JobKind.INGEST, {}, batch_id=batch_id, batch_index=i, **fields) for i in range(count)
    )
    return batch_id


def claim(session, kind=JobKind.INGEST, limit=1):
    return JobRepository(session).claim([kind], limit=limit, owner=f"{uuid4()}", lease=MINUTE)


def ingest(session, held, sha256):
    video, is_new = VideoRepository(session).create(uri="file:///v", sha256=sha256)
    embed = NewJob(
        JobKind.EMBED, {}, video_id=video.id, batch_id=held.batch_id, dedupe_key=f"e:{video.id}"
    )
    if is_new:
        JobRepository(session).enqueue(embed)
    JobRepository(session).finish(held, {"duplicate": not is_new}, video_id=video.id)
    return video.id


def counted(session, batch_id):
    """Count the items by what the rows say, as nothing but a test may."""
    counts, duplicates = dict.fromkeys(ItemState, 0), 0
    items = select(Job, Video).outerjoin(Video, Video.id == Job.video_id)
    for job, video in session.execute(
        items.where(Job.batch_id == batch_id, Job.kind == JobKind.INGEST)
    ):
        state = job.state.value
        if job.state == JobState.SUCCEEDED and video is not None:
            state = {"processing": "running", "ready": "succeeded", "failed": "failed"}[video.state]
            if state == "failed":
                by_code = {"cancelled": "cancelled", "worker_lost": "quarantined"}
                state = by_code.get(video.error_code, "failed")
        state = {"paused": "queued", "cancelling": "running"}.get(state, state)
        counts[ItemState(state)] += 1
        duplicates += state == "succeeded" and bool((job.result or {}).get("duplicate"))
    return counts, duplicates


def shown(session, batch_id):
    progress = BatchRepository(session).progress([batch_id])[batch_id]
    return dict(progress.counts), progress.duplicates


def act(session, generator):  # noqa: PLR0912 - one case for each thing that happens
    """Do something that workers, people or maintenance do, by chance."""
    jobs, videos, batches = (
        kind(session) for kind in (JobRepository, VideoRepository, BatchRepository)
    )
    batch_ids = session.scalars(select(Batch.id)).all()
    video_ids = session.scalars(select(Video.id)).all()
    held = session.scalars(select(Job).where(Job.state.in_(["running", "cancelling"]))).all()
    match generator.randrange(12):
        case 0 | 1:
            for each in claim(session, limit=generator.randint(1, 3)):
                if generator.random() < 0.8:
                    ingest(session, each, str(generator.randrange(12)))
        case 2:
            for each in claim(session, JobKind.EMBED, limit=2):
                videos.mark_ready(each.video_id)
                jobs.finish(each, {})
        case 3:
            for each in claim(session, JobKind.EMBED):
                jobs.fail(each, code="decode_failed", message="m")
        case 4:
            for each in claim(session):
                jobs.fail(each, code="no_video_stream", message="m")
        case 5 if video_ids:
            videos.delete(generator.choice(video_ids))
        case 6 if generator.random() < 0.2:
            batches.cancel(generator.choice(batch_ids))
        case 7:
            batches.retry_failed(generator.choice(batch_ids))
        case 8 if held:
            job = generator.choice(held)
            jobs.extend([(job.id, job.lease_token)], lease=-MINUTE)
            jobs.return_lost(max_losses=generator.choice([1, 3]))
        case 9 if video_ids:
            videos.add_tags(generator.choice(video_ids), [str(generator.random())])
        case 10:
            fold_batch_deltas(session, limit=generator.choice([1, 3, 1000]))
        case 11:
            jobs.request_cancel(generator.choice(jobs.list(page_size=500).items).id)


@pytest.mark.parametrize("seed", range(3))
def test_the_counts_are_those_of_the_rows_whatever_happened(sessions, seed):
    generator = random.Random(seed)  # noqa: S311 - chance that can be had again
    with sessions.begin() as session:
        batch_ids = [put(session, 12), put(session, 8), put(session, 0)]
    seen = set()
    for _ in range(70):
        try:
            with sessions.begin() as session:
                act(session, generator)
        except (IllegalMove, LeaseLost, VideoNotFound):
            pass  # rolled back, its counts with it
        with sessions.begin() as session:
            for batch_id in batch_ids:
                assert shown(session, batch_id) == counted(session, batch_id)
                seen |= {state for state, count in shown(session, batch_id)[0].items() if count}

    assert len(seen) >= 4


def test_a_transaction_that_is_rolled_back_was_not_counted(sessions):
    with sessions.begin() as session:
        batch_id = put(session, 2)
    with sessions() as session:  # a worker that is killed before its commit
        claim(session, limit=2)

    with sessions.begin() as session:
        assert shown(session, batch_id)[0][ItemState.QUEUED] == 2


def test_an_item_that_is_linked_while_its_video_becomes_ready_is_counted_once(sessions):
    with sessions.begin() as session:
        batch_id = put(session, 2)
        first, second = claim(session, limit=2)
        video_id = ingest(session, first, "same")
    with sessions.begin() as session:
        VideoRepository(session).mark_ready(video_id)
        linking = threading.Thread(target=_link, args=(sessions, second))
        linking.start()
        linking.join(0.3)  # waits for the video
    linking.join(120)

    with sessions.begin() as session:
        assert shown(session, batch_id)[0][ItemState.SUCCEEDED] == 2
        assert shown(session, batch_id) == counted(session, batch_id)


def _link(sessions, held):
    with sessions.begin() as session:
        ingest(session, held, "same")


def test_folding_leaves_a_row_for_each_state_and_the_same_counts(sessions):
    with sessions.begin() as session:
        batch_id, other_id = put(session, 20), put(session, 1)
        for each in claim(session, limit=10):
            JobRepository(session).fail(each, code="c", message="m")
        before = BatchRepository(session).progress([batch_id, other_id])
    folded = []
    while not folded or folded[-1] == 5:
        with sessions.begin() as session:
            folded.append(fold_batch_deltas(session, limit=5))
            assert BatchRepository(session).progress([batch_id, other_id]) == before

    with sessions.begin() as session:
        rows = session.scalars(select(BatchDelta).where(BatchDelta.batch_id == batch_id)).all()
    assert all(row.is_folded for row in rows)
    assert len(rows) == len({row.state for row in rows})


def test_two_that_fold_at_once_fold_every_change_once(sessions):
    with sessions.begin() as session:
        batch_id = put(session, 30)
        for _ in range(15):
            claim(session)
    with sessions.begin() as session:
        fold_batch_deltas(session, limit=4)
    with sessions.begin() as one, sessions.begin() as other:
        for _ in range(3):
            fold_batch_deltas(one, limit=3)
            fold_batch_deltas(other, limit=3)

    with sessions.begin() as session:
        assert shown(session, batch_id) == counted(session, batch_id)
        assert shown(session, batch_id)[0][ItemState.QUEUED] == 15


def test_a_batch_keeps_its_counts_when_its_old_jobs_are_removed(sessions):
    with sessions.begin() as session:
        batch_id = put(session, 3, error_code="c", error_message="m")
        session.execute(text("DELETE FROM jobs"))

        assert shown(session, batch_id)[0][ItemState.FAILED] == 3


def test_counting_reads_no_items(sessions):
    with sessions.begin() as session:
        batch_id = put(session, 3000)
        while fold_batch_deltas(session):
            pass
        session.execute(text("ANALYZE"))
        plan = session.scalar(
            text(
                "EXPLAIN (FORMAT TEXT) SELECT state, sum(change) FROM batch_deltas "
                "WHERE batch_id = :id GROUP BY state"
            ),
            {"id": batch_id},
        )
        num_rows = session.scalar(select(func.count()).select_from(BatchDelta))

    assert "jobs" not in plan
    assert num_rows == 1


def test_batches_that_were_there_before_are_counted_by_the_migration(empty_database_url):
    config = alembic_config(empty_database_url)
    command.upgrade(config, "0006")
    engine = sqlalchemy.create_engine(empty_database_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO batches (id) VALUES (gen_random_uuid())")
        connection.exec_driver_sql(
            "INSERT INTO videos (id, uri, sha256, state, is_still, probe, tags, metadata) "
            "SELECT gen_random_uuid(), 'u', s, s, false, '{}', '{}', '{}' "
            "FROM unnest(ARRAY['ready', 'processing', 'failed']) AS s"
        )
        connection.exec_driver_sql(
            "INSERT INTO jobs (id, kind, state, priority, input, batch_id, video_id, result, "
            "                  finished_at) "
            "SELECT gen_random_uuid(), 'ingest', s, 5, '{}', batches.id, videos.id, "
            "       '{\"duplicate\": true}', '2026-01-01Z' FROM batches, (VALUES "
            "('queued', NULL), ('paused', NULL), ('running', NULL), ('succeeded', 'ready'), "
            "('succeeded', NULL), ('succeeded', 'processing'), ('succeeded', 'failed'), "
            "('failed', NULL), ('cancelled', NULL)) AS jobs(s, video) "
            "LEFT JOIN videos ON videos.sha256 = jobs.video"
        )

    command.upgrade(config, "head")

    sessions = make_sessions(empty_database_url)
    with sessions.begin() as session:
        batch_id = session.scalar(select(Batch.id))
        assert shown(session, batch_id) == counted(session, batch_id)
        assert shown(session, batch_id)[1] == 2
    sessions.kw["bind"].dispose()
