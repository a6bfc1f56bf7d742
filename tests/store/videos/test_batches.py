from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import event

from store.errors import BatchNotFound, IdempotencyConflict
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.videos.batches import BatchRepository
from store.videos.records import ItemState
from store.videos.repository import VideoRepository

MINUTE = timedelta(minutes=1)


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def batches(session):
    return BatchRepository(session)


@pytest.fixture
def jobs(session):
    return JobRepository(session)


@pytest.fixture
def videos(session):
    return VideoRepository(session)


def make(batches, jobs, num_items):
    batch = batches.create("clips")
    jobs.enqueue_many(
        NewJob(JobKind.INGEST, {"uri": f"file:///{i}.mp4"}, batch_id=batch.id, batch_index=i)
        for i in range(num_items)
    )
    return batch.id


def claim(jobs, kind=JobKind.INGEST, limit=1):
    return jobs.claim([kind], limit=limit, owner="test", lease=MINUTE)


def ingest(jobs, videos, held, sha256):
    """Do what the ingest worker does at its end."""
    video, is_new = videos.create(uri=held.input["uri"], sha256=sha256)
    if is_new:
        embed = NewJob(
            JobKind.EMBED,
            {},
            video_id=video.id,
            batch_id=held.batch_id,
            dedupe_key=f"embed:{video.id}",
        )
        jobs.enqueue(embed)
    jobs.finish(held, {"video_id": str(video.id)}, video_id=video.id)
    return video.id


def counts(batches, batch_id):
    return {state: count for state, count in batches.counts(batch_id).items() if count}


def test_an_item_has_succeeded_only_when_its_video_can_be_searched(batches, jobs, videos):
    batch_id = make(batches, jobs, 3)
    seen = [counts(batches, batch_id)]
    (held,) = claim(jobs)
    seen.append(counts(batches, batch_id))
    video_id = ingest(jobs, videos, held, "a")
    seen.append(counts(batches, batch_id))
    videos.mark_ready(video_id)
    seen.append(counts(batches, batch_id))

    assert seen == [
        {ItemState.QUEUED: 3},
        {ItemState.QUEUED: 2, ItemState.RUNNING: 1},
        {ItemState.QUEUED: 2, ItemState.RUNNING: 1},
        {ItemState.QUEUED: 2, ItemState.SUCCEEDED: 1},
    ]


def test_counts_name_every_state(batches, jobs):
    assert set(batches.counts(make(batches, jobs, 0))) == set(ItemState)


def test_items_with_the_same_content_share_a_video(batches, jobs, videos):
    batch_id = make(batches, jobs, 2)
    ids = {ingest(jobs, videos, held, "same") for held in claim(jobs, limit=2)}
    videos.mark_ready(ids.pop())

    assert ids == set()
    assert counts(batches, batch_id) == {ItemState.SUCCEEDED: 2}
    assert jobs.counts()[JobKind.EMBED] == {JobState.QUEUED: 1}


def test_an_item_tells_why_it_failed_whichever_job_it_was(batches, jobs, videos):
    batch_id = make(batches, jobs, 2)
    bad, good = claim(jobs, limit=2)
    jobs.fail(bad, code="no_video_stream", message="only sound")
    ingest(jobs, videos, good, "a")
    (embed,) = claim(jobs, JobKind.EMBED)
    jobs.fail(embed, code="decode_failed", message="broken")

    items = batches.items(batch_id, state=ItemState.FAILED).items

    assert [(item.index, item.error_code, item.error_message) for item in items] == [
        (0, "no_video_stream", "only sound"),
        (1, "decode_failed", "broken"),
    ]
    assert [item.video is None for item in items] == [True, False]


def test_pages_show_every_item_once_in_the_order_of_the_request(batches, jobs):
    batch_id = make(batches, jobs, 7)
    make(batches, jobs, 2)

    seen, token = [], None
    while True:
        page = batches.items(batch_id, page_size=3, page_token=token)
        seen += [item.index for item in page.items]
        token = page.next_page_token
        if token is None:
            break

    assert seen == list(range(7))


def test_items_whose_videos_are_read_in_part_only_are_found(session, batches, jobs, videos):
    batch_id = make(batches, jobs, 5)
    damaged, joined, sound, failed, _ = [
        ingest(jobs, videos, held, held.input["uri"]) for held in claim(jobs, limit=5)
    ]
    for video_id in (damaged, joined, sound):
        videos.mark_ready(video_id)
    videos.get(damaged).damaged_spans = [[3.5, 8.0]]
    videos.get(joined).probe = {"mended": ["unread_recordings"]}
    videos.get(sound).probe = {"mended": ["last_duration"]}
    videos.get(failed).damaged_spans = [[0.0, 1.0]]  # not ready, so not indexed in part
    session.flush()

    found = batches.items(batch_id, only_partial=True).items

    assert {item.video.id for item in found} == {damaged, joined}
    assert all(item.video.is_partial for item in found)


def test_cancelling_a_batch_leaves_no_other_batch_short(batches, jobs, videos):
    batch_id = make(batches, jobs, 4)
    embedding, running, finished = claim(jobs, limit=3)
    other_id = make(batches, jobs, 2)
    ingest(jobs, videos, embedding, "a")
    videos.mark_ready(ingest(jobs, videos, finished, "b"))

    batches.cancel(batch_id)

    assert counts(batches, batch_id) == {
        ItemState.CANCELLED: 2,
        ItemState.RUNNING: 1,
        ItemState.SUCCEEDED: 1,
    }
    assert jobs.get(running.id).state == JobState.CANCELLING
    assert counts(batches, other_id) == {ItemState.QUEUED: 2}
    assert batches.get(batch_id).cancel_requested_at is not None


def test_of_a_finished_batch_there_is_nothing_to_cancel(batches, jobs):
    batch_id, empty_id = make(batches, jobs, 2), make(batches, jobs, 0)
    for held in claim(jobs, limit=2):
        jobs.fail(held, code="decode_failed", message="m")

    assert (batches.cancel(batch_id), batches.cancel(empty_id)) == (0, 0)

    assert batches.get(batch_id).cancel_requested_at is None
    assert batches.get(empty_id).cancel_requested_at is None


def test_what_is_retried_of_a_cancelled_batch_is_wanted_again(batches, jobs):
    batch_id = make(batches, jobs, 2)
    jobs.fail(claim(jobs)[0], code="decode_failed", message="m")
    batches.cancel(batch_id)

    assert batches.retry_failed(batch_id) == 1

    assert batches.get(batch_id).cancel_requested_at is None
    assert counts(batches, batch_id) == {ItemState.QUEUED: 1, ItemState.CANCELLED: 1}


def test_cancelling_a_batch_spares_the_videos_that_others_wait_for(batches, jobs, videos):
    first, second = make(batches, jobs, 2), make(batches, jobs, 1)
    jobs.enqueue(NewJob(JobKind.INGEST, {"uri": "file:///single.mp4"}))
    ingested = {
        held.input["uri"]: ingest(jobs, videos, held, sha256)
        for held, sha256 in zip(claim(jobs, limit=4), ["both", "both", "x", "alone"], strict=True)
    }
    (embed,) = [job for job in jobs.list(kind=JobKind.EMBED).items if job.batch_id is None]

    batches.cancel(first)

    assert len(ingested) == 3
    assert counts(batches, first) == {ItemState.RUNNING: 1, ItemState.CANCELLED: 1}
    assert counts(batches, second) == {ItemState.RUNNING: 1}
    # With the last that waited for it, the job that the first had left goes too.
    batches.cancel(second)
    assert counts(batches, second) == {ItemState.CANCELLED: 1}
    assert [held.id for held in claim(jobs, JobKind.EMBED, limit=9)] == [embed.id]


def test_what_was_cancelled_with_another_batch_can_be_retried(batches, jobs, videos):
    first, second = make(batches, jobs, 1), make(batches, jobs, 1)
    one, other = claim(jobs, limit=2)
    ingest(jobs, videos, one, "same")
    batches.cancel(first)
    ingest(jobs, videos, other, "same")

    assert counts(batches, second) == {ItemState.CANCELLED: 1}
    assert batches.retry_failed(first) == 0
    assert batches.retry_failed(second) == 1
    assert counts(batches, second) == {ItemState.RUNNING: 1}


def test_retrying_sends_only_what_failed_round_again(batches, jobs, videos):
    batch_id = make(batches, jobs, 5)
    bad, poison, embedding, ready, cancelled = claim(jobs, limit=5)
    jobs.fail(bad, code="decode_failed", message="m")
    video_id = ingest(jobs, videos, embedding, "a")
    videos.mark_ready(ingest(jobs, videos, ready, "b"))
    jobs.fail(claim(jobs, JobKind.EMBED)[0], code="out_of_memory", message="m")
    jobs.request_cancel(cancelled.id)
    jobs.mark_cancelled(cancelled)
    jobs.extend([(poison.id, poison.lease_token)], lease=-MINUTE)
    jobs.return_lost(max_losses=1)

    before = counts(batches, batch_id)
    num_retried = batches.retry_failed(batch_id)

    assert before == {
        ItemState.FAILED: 2,
        ItemState.SUCCEEDED: 1,
        ItemState.CANCELLED: 1,
        ItemState.QUARANTINED: 1,
    }
    assert num_retried == 3
    assert counts(batches, batch_id) == {
        ItemState.QUEUED: 2,
        ItemState.RUNNING: 1,
        ItemState.SUCCEEDED: 1,
        ItemState.CANCELLED: 1,
    }
    assert video_id in {held.video_id for held in claim(jobs, JobKind.EMBED, limit=9)}
    assert batches.retry_failed(batch_id) == 0


def test_only_the_last_of_several_failed_embed_jobs_is_retried(batches, jobs, videos):
    batch_id = make(batches, jobs, 1)
    video_id = ingest(jobs, videos, claim(jobs)[0], "a")
    jobs.fail(claim(jobs, JobKind.EMBED)[0], code="out_of_memory", message="m")
    again = NewJob(JobKind.EMBED, {}, video_id=video_id, dedupe_key=f"embed:{video_id}")
    last = jobs.enqueue(again)
    jobs.fail(claim(jobs, JobKind.EMBED)[0], code="out_of_memory", message="m")

    assert batches.retry_failed(batch_id) == 1
    assert [c.id for c in claim(jobs, JobKind.EMBED, limit=9)] == [last.id]


def test_an_item_whose_video_was_deleted_has_still_succeeded(batches, jobs, videos):
    batch_id = make(batches, jobs, 1)
    video_id = ingest(jobs, videos, claim(jobs)[0], "a")
    videos.mark_ready(video_id)

    videos.delete(video_id)

    assert counts(batches, batch_id) == {ItemState.SUCCEEDED: 1}


def test_an_item_is_appended_after_the_last(batches, jobs):
    batch_id = make(batches, jobs, 3)

    assert batches.next_index(batch_id) == 3
    assert batches.next_index(make(batches, jobs, 0)) == 0


def test_the_last_change_of_a_batch_is_when_its_last_video_was_done(batches, jobs, videos):
    batch_id = make(batches, jobs, 1)
    before = batches.progress([batch_id])[batch_id].last_change
    video_id = ingest(jobs, videos, claim(jobs)[0], "a")
    videos.mark_ready(video_id)

    assert before is None
    assert batches.progress([batch_id])[batch_id].last_change >= videos.get(video_id).updated_at


def test_the_progress_of_many_batches_is_one_query(session, batches, jobs, videos):
    one = make(batches, jobs, 2)
    for held in claim(jobs, limit=2):
        video_id = ingest(jobs, videos, held, "a")
    other, empty = make(batches, jobs, 3), make(batches, jobs, 0)
    videos.mark_ready(video_id)
    statements = []
    engine = session.get_bind()

    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    progress = batches.progress([one, other, empty])
    event.remove(engine, "before_cursor_execute", note)

    assert len(statements) == 1
    assert [sum(progress[id_].counts.values()) for id_ in (one, other, empty)] == [2, 3, 0]
    assert progress[one].counts[ItemState.SUCCEEDED] == 2
    assert [progress[id_].last_change is None for id_ in (one, other, empty)] == [False, True, True]
    assert progress[one] == batches.progress([one])[one]


def test_an_idempotency_key_makes_one_batch(batches):
    first = batches.create("a", idempotency_key="k", request_sha256="s")

    with pytest.raises(IdempotencyConflict):
        batches.create("a", idempotency_key="k", request_sha256="s")
    assert batches.find_by_idempotency_key("k").id == first.id
    assert batches.find_by_idempotency_key("other") is None


def test_an_unknown_batch_is_not_found(batches):
    for ask in (batches.get, batches.cancel, batches.retry_failed, batches.next_index):
        with pytest.raises(BatchNotFound):
            ask(uuid4())


def test_batches_are_listed_the_newest_first(batches, jobs):
    made = [make(batches, jobs, 0) for _ in range(3)]

    page = batches.list(page_size=2)
    rest = batches.list(page_size=2, page_token=page.next_page_token)

    assert [batch.id for batch in (*page.items, *rest.items)] == made[::-1]
    assert rest.next_page_token is None
