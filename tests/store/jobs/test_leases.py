"""What workers do with jobs, alone and against each other."""

import random
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from store.database import make_sessions
from store.errors import IllegalMove, LeaseLost
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import HELD_STATES, JobKind, JobState, can_move
from store.models.repository import GenerationRepository, ModelRepository
from store.videos.records import NewClip
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState

MINUTE = timedelta(minutes=1)
KINDS = [JobKind.SEARCH, JobKind.QUESTION]


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def jobs(session):
    return JobRepository(session)


def enqueue(jobs, **values):
    return jobs.enqueue(NewJob(values.pop("kind", JobKind.SEARCH), {}, **values)).id


def claim(jobs, limit=1, **values):
    return jobs.claim(KINDS, limit=limit, owner="test", lease=MINUTE, **values)


def let_expire(jobs, *claims):
    jobs.extend([(c.id, c.lease_token) for c in claims], lease=-MINUTE)


def test_a_claim_says_all_the_worker_needs(jobs):
    job = jobs.enqueue(NewJob(JobKind.SEARCH, {"text": "a"}))

    (claimed,) = jobs.claim([JobKind.SEARCH], limit=3, owner="gpu-1", lease=MINUTE)

    assert (claimed.id, claimed.kind, claimed.input) == (job.id, JobKind.SEARCH, {"text": "a"})
    assert (claimed.attempt, claimed.lease_token, claimed.cancel_requested) == (1, 1, False)
    row = jobs.get(job.id)
    assert (row.state, row.lease_owner) == (JobState.RUNNING, "gpu-1")
    assert row.lease_expires_at - row.started_at == MINUTE
    assert jobs.events(job.id)[1].data == {"owner": "gpu-1", "attempt": 1}


def test_jobs_are_claimed_by_priority_then_instant_across_kinds(jobs):
    past = datetime.now(UTC) - MINUTE
    late = enqueue(jobs)
    early = enqueue(jobs, kind=JobKind.QUESTION, run_at=past)
    urgent = enqueue(jobs, priority=1)
    enqueue(jobs, run_at=datetime.now(UTC) + MINUTE)
    enqueue(jobs, kind=JobKind.EMBED)

    assert [c.id for c in claim(jobs, limit=2)] == [urgent, early]
    assert [c.id for c in claim(jobs, limit=9)] == [late]
    assert claim(jobs) == []


def test_many_workers_claim_every_job_once(sessions):
    with sessions.begin() as session:
        JobRepository(session).enqueue_many(NewJob(JobKind.SEARCH, {}) for _ in range(300))
    claimed, start = [], threading.Barrier(8)

    def work():
        start.wait()
        while True:
            with sessions.begin() as session:
                found = claim(JobRepository(session), limit=4)
            if not found:
                return
            claimed.extend(c.id for c in found)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claimed) == len(set(claimed)) == 300


def test_a_claim_that_is_not_committed_is_no_claim(sessions):
    with sessions.begin() as session:
        job_id = enqueue(JobRepository(session))
    with sessions() as session:  # a worker that dies here
        claim(JobRepository(session))

    with sessions.begin() as session:
        assert [c.id for c in claim(JobRepository(session))] == [job_id]


def test_extending_tells_what_is_held_and_what_to_stop(jobs):
    for _ in range(3):
        enqueue(jobs)
    kept, cancelled, lost = claim(jobs, limit=3)
    jobs.request_cancel(cancelled.id)
    jobs.release(lost)

    found = jobs.extend([(c.id, c.lease_token) for c in (kept, cancelled, lost)], lease=3 * MINUTE)

    assert (found[kept.id].held, found[kept.id].cancel_requested) == (True, False)
    assert (found[cancelled.id].held, found[cancelled.id].cancel_requested) == (True, True)
    assert (found[lost.id].held, found[lost.id].cancel_requested) == (False, False)
    row = jobs.get(kept.id)
    assert row.lease_expires_at - row.started_at == 3 * MINUTE


@pytest.mark.parametrize(("reported", "shown"), [((3, 4), (4, 4)), ((3, None), (3, None))])
def test_a_job_that_succeeded_is_done_to_the_last(jobs, reported, shown):
    job_id = enqueue(jobs)
    (held,) = claim(jobs)
    jobs.report_progress(held, done=reported[0], total=reported[1], stage="embedding")

    jobs.finish(held, {})

    job = jobs.get(job_id)
    assert (job.progress_done, job.progress_total) == shown


def test_progress_is_shown_and_a_new_stage_is_an_event(jobs):
    job_id = enqueue(jobs)
    (held,) = claim(jobs)

    jobs.report_progress(held, done=1, total=8, stage="decode")
    jobs.report_progress(held, done=2, total=8, stage="decode")
    jobs.report_progress(held, done=2, total=8, stage="encode")

    job = jobs.get(job_id)
    assert (job.progress_done, job.progress_total, job.stage) == (2, 8, "encode")
    stages = [event.data["stage"] for event in jobs.events(job_id) if event.type == "stage"]
    assert stages == ["decode", "encode"]


def test_finishing_writes_the_result(jobs):
    enqueue(jobs)
    (held,) = claim(jobs)

    jobs.finish(held, {"hits": []})

    job = jobs.get(held.id)
    assert (job.state, job.result) == (JobState.SUCCEEDED, {"hits": []})
    assert job.finished_at is not None
    assert (job.lease_owner, job.lease_expires_at) == (None, None)


def test_failing_writes_the_error(jobs):
    enqueue(jobs)
    (held,) = claim(jobs)

    jobs.fail(held, code="decode_failed", message="frame 3 is broken", detail={"frame": 3})

    job = jobs.get(held.id)
    assert (job.state, job.error_code) == (JobState.FAILED, "decode_failed")
    assert (job.error_message, job.error_detail) == ("frame 3 is broken", {"frame": 3})


def test_an_error_that_may_pass_is_tried_again_later(jobs):
    enqueue(jobs)
    (held,) = claim(jobs)
    run_at = datetime.now(UTC) + MINUTE

    jobs.retry_later(held, run_at=run_at, code="out_of_memory", message="no room")

    job = jobs.get(held.id)
    assert (job.state, job.run_at, job.attempt) == (JobState.QUEUED, run_at, 1)
    assert job.error_code == "out_of_memory"
    assert claim(jobs) == []


@pytest.mark.parametrize("give_back", ["snooze", "release"])
def test_a_job_given_back_untouched_has_used_no_attempt(jobs, give_back):
    enqueue(jobs)
    (held,) = claim(jobs)

    if give_back == "snooze":
        jobs.snooze(held, datetime.now(UTC) - MINUTE)
    else:
        jobs.release(held)

    (again,) = claim(jobs)
    assert (again.attempt, again.lease_token) == (1, 2)


def writes(jobs):
    now = datetime.now(UTC)
    return [
        lambda held: jobs.report_progress(held, done=1, total=2, stage="s"),
        lambda held: jobs.finish(held, {"from": "the first worker"}),
        lambda held: jobs.fail(held, code="c", message="m"),
        lambda held: jobs.retry_later(held, run_at=now, code="c", message="m"),
        lambda held: jobs.snooze(held, now),
        jobs.release,
        jobs.mark_cancelled,
    ]


@pytest.mark.parametrize("write", range(7))
@pytest.mark.parametrize("then", ["queued", "claimed again", "succeeded", "retried"])
def test_a_worker_that_lost_its_lease_writes_nothing(jobs, write, then):
    enqueue(jobs)
    (first,) = claim(jobs)
    let_expire(jobs, first)
    jobs.return_lost(max_losses=1 if then == "retried" else 3)
    if then == "retried":
        jobs.retry(first.id)
    if then in {"claimed again", "succeeded"}:
        (second,) = claim(jobs)
        if then == "succeeded":
            jobs.finish(second, {"from": "the second worker"})
    before = vars(jobs.get(first.id)).copy()

    with pytest.raises(LeaseLost):
        writes(jobs)[write](first)

    after = vars(jobs.get(first.id))
    assert {k: v for k, v in after.items() if k[0] != "_"} == {
        k: v for k, v in before.items() if k[0] != "_"
    }


def test_a_slow_worker_whose_job_nobody_took_may_still_finish(jobs):
    enqueue(jobs)
    (held,) = claim(jobs)
    let_expire(jobs, held)

    jobs.finish(held, {})

    assert jobs.get(held.id).state == JobState.SUCCEEDED


@pytest.mark.parametrize("give_back", [3, 4, 5])
def test_a_job_given_back_while_it_is_cancelled_is_cancelled(jobs, give_back):
    enqueue(jobs)
    (held,) = claim(jobs)
    jobs.request_cancel(held.id)

    writes(jobs)[give_back](held)

    job = jobs.get(held.id)
    assert job.state == JobState.CANCELLED
    assert job.finished_at is not None


def test_a_lost_job_is_queued_until_the_third_time(jobs):
    job_id = enqueue(jobs)
    states = []

    for _ in range(3):
        (held,) = claim(jobs)
        let_expire(jobs, held)
        states += [(lost.id, lost.state) for lost in jobs.return_lost()]

    assert states == [
        (job_id, JobState.QUEUED),
        (job_id, JobState.QUEUED),
        (job_id, JobState.QUARANTINED),
    ]
    job = jobs.get(job_id)
    assert (job.error_code, job.worker_losses) == ("worker_lost", 3)
    assert job.error_message == "the worker stopped in the middle of this job, 3 times so far"
    assert [event.type for event in jobs.events(job_id)].count("lost") == 3


def test_a_lost_job_that_was_being_cancelled_is_cancelled(jobs):
    enqueue(jobs)
    (held,) = claim(jobs)
    jobs.request_cancel(held.id)
    let_expire(jobs, held)

    (lost,) = jobs.return_lost()

    assert lost.state == JobState.CANCELLED
    assert jobs.get(held.id).error_code is None


def test_a_held_job_is_not_lost(jobs):
    enqueue(jobs)
    claim(jobs)

    assert jobs.return_lost() == []


def test_a_worker_that_froze_while_it_wrote_loses_its_job_all_the_same(database_url, sessions):
    impatient = make_sessions(database_url, idle_seconds=0.2)
    with sessions.begin() as session:
        enqueue(JobRepository(session))
        (held,) = claim(JobRepository(session))
        let_expire(JobRepository(session), held)
    frozen = impatient()
    JobRepository(frozen).report_progress(held, done=1, total=2, stage="training")

    ends_at = time.monotonic() + 120
    lost = []
    while not lost and time.monotonic() < ends_at:
        with sessions.begin() as session:
            lost = JobRepository(session).return_lost()
    with pytest.raises(OperationalError):
        JobRepository(frozen).report_progress(held, done=2, total=2, stage="training")
    frozen.close()
    impatient.kw["bind"].dispose()

    assert [(job.id, job.state) for job in lost] == [(held.id, JobState.QUEUED)]


def test_two_reconcilers_at_once_count_a_loss_once(sessions):
    with sessions.begin() as session:
        jobs = JobRepository(session)
        job_id = enqueue(jobs)
        (held,) = claim(jobs)
        let_expire(jobs, held)

    with sessions.begin() as one, sessions.begin() as other:
        found = [JobRepository(session).return_lost() for session in (one, other)]

    assert sorted(len(lost) for lost in found) == [0, 1]
    with sessions.begin() as session:
        assert JobRepository(session).get(job_id).worker_losses == 1


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_a_job_only_makes_allowed_moves(jobs, session, seed):
    generator = random.Random(seed)  # noqa: S311 - chance that can be had again
    for index in range(5):
        enqueue(jobs, dedupe_key=f"d{index % 4}")
    held, states, num_moves = [], {}, 0

    def note():
        nonlocal num_moves
        rows = session.execute(text("SELECT id, state, lease_owner FROM jobs ORDER BY id")).all()
        for id_, value, owner in rows:
            state = JobState(value)
            before = states.get(id_, JobState.QUEUED)
            assert before == state or can_move(before, state)
            assert (owner is not None) == (state in HELD_STATES)
            states[id_], num_moves = state, num_moves + (before != state)

    for _ in range(150):
        job_id = generator.choice(list(states) or [jobs.list().items[0].id])
        try:
            match generator.randrange(7):
                case 0 | 1:
                    held += claim(jobs, limit=2)
                case 2 | 3 if held:
                    generator.choice(writes(jobs))(generator.choice(held))
                case 4:
                    jobs.request_cancel(job_id)
                case 5:
                    jobs.retry(job_id)
                case 6 if held:
                    let_expire(jobs, generator.choice(held))
                    jobs.return_lost()
        except (LeaseLost, IllegalMove):
            pass
        note()

    assert num_moves > 20
    for job_id in states:
        sequence = [event.seq for event in jobs.events(job_id)]
        assert sequence == list(range(1, len(sequence) + 1))


@pytest.fixture
def embed(session, jobs):
    """A video that waits for its embed job."""
    video, _ = VideoRepository(session).create(uri="file:///v.mp4", sha256="0" * 64)
    new = NewJob(JobKind.EMBED, {}, video_id=video.id, dedupe_key="embed")
    return video.id, jobs.enqueue(new).id


def claim_embed(jobs):
    return jobs.claim([JobKind.EMBED], limit=1, owner="test", lease=MINUTE)[0]


def outcome(session, video_id):
    video = VideoRepository(session).get(video_id)
    return video.state, video.error_code


def test_a_video_fails_with_its_embed_job_and_waits_again_when_that_is_retried(
    session, jobs, embed
):
    video_id, job_id = embed
    jobs.fail(claim_embed(jobs), code="decode_failed", message="m")
    after_failure = outcome(session, video_id)

    jobs.retry(job_id)

    assert after_failure == (VideoState.FAILED, "decode_failed")
    assert outcome(session, video_id) == (VideoState.PROCESSING, None)


def test_a_video_whose_embed_job_is_cancelled_or_quarantined_fails(session, jobs, embed):
    video_id, job_id = embed
    jobs.request_cancel(job_id)
    after_cancel = outcome(session, video_id)
    jobs.retry(job_id)
    let_expire(jobs, claim_embed(jobs))
    jobs.return_lost(max_losses=1)

    assert after_cancel == (VideoState.FAILED, "cancelled")
    assert outcome(session, video_id) == (VideoState.FAILED, "worker_lost")


def test_a_new_embed_job_revives_a_failed_video(session, jobs, embed):
    video_id, job_id = embed
    jobs.request_cancel(job_id)

    jobs.enqueue(NewJob(JobKind.EMBED, {}, video_id=video_id, dedupe_key="embed"))

    assert outcome(session, video_id) == (VideoState.PROCESSING, None)


def test_a_ready_video_stays_ready_when_another_generation_fails(session, jobs, embed):
    video_id, _ = embed
    VideoRepository(session).mark_ready(video_id)

    jobs.fail(claim_embed(jobs), code="decode_failed", message="m")

    assert outcome(session, video_id) == (VideoState.READY, None)


def test_a_result_and_its_clips_are_dropped_together_when_the_lease_is_lost(sessions):
    with sessions.begin() as session:
        models = ModelRepository(session)
        model = models.register(
            name="m",
            version="1",
            heads=[],
            tasks=["recall"],
            folder_key="k",
            sha256="s",
            visual_sha256="v",
            config={},
        )
        generations = GenerationRepository(session)
        generation = generations.create(model_id=model.id, recall_model_id=model.id, plan={})
        video, _ = VideoRepository(session).create(uri="file:///v.mp4", sha256="0" * 64)
        jobs = JobRepository(session)
        jobs.enqueue(NewJob(JobKind.EMBED, {}, video_id=video.id))
        held = claim_embed(jobs)
        let_expire(jobs, held)
        jobs.return_lost()

    def embed_and_finish():
        with sessions.begin() as session:
            clip = NewClip(0, 0.0, 1.0, [0.5], None, "tokens")
            VideoRepository(session).replace_clips(video.id, generation.id, clips=[clip])
            JobRepository(session).finish(held, {"clips": 1})

    with pytest.raises(LeaseLost):
        embed_and_finish()

    with sessions.begin() as session:
        assert VideoRepository(session).clips(video.id, generation.id) == []


def test_the_clock_that_counts_is_the_database_s(sessions):
    with sessions.begin() as session:
        jobs = JobRepository(session)
        enqueue(jobs)
        (held,) = jobs.claim(KINDS, limit=1, owner="test", lease=timedelta(milliseconds=50))
    time.sleep(0.1)

    with sessions.begin() as session:
        assert [lost.id for lost in JobRepository(session).return_lost()] == [held.id]
