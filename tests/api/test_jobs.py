import threading
import time
from datetime import timedelta
from uuid import uuid4

import pytest

from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from workers.dispatch import Doorbell

LEASE = timedelta(seconds=60)


@pytest.fixture
def enqueue(sessions):
    def enqueue(kind=JobKind.INGEST, **values):
        with sessions.begin() as session:
            new = NewJob(kind=kind, input={"uri": "file:///x"}, **values)
            return JobRepository(session).enqueue(new).id

    return enqueue


def claim_one(sessions, kind=JobKind.INGEST):
    with sessions.begin() as session:
        return JobRepository(session).claim([kind], limit=1, owner="test", lease=LEASE)[0]


def test_a_job_is_shown_with_its_progress_and_error(client, enqueue, sessions):
    job_id = enqueue()
    claim = claim_one(sessions)
    with sessions.begin() as session:
        JobRepository(session).report_progress(claim, done=3, total=8, stage="probing")

    running = client.get(f"/v1/jobs/{job_id}").json()
    with sessions.begin() as session:
        JobRepository(session).fail(claim, code="no_video_stream", message="Only sound.")
    failed = client.get(f"/v1/jobs/{job_id}").json()

    assert (running["state"], running["done"], running["stage"]) == ("running", False, "probing")
    assert running["progress"] == {"done": 3, "total": 8}
    assert running["started_at"]
    assert (failed["state"], failed["done"]) == ("failed", True)
    assert failed["error"] == {"code": "no_video_stream", "message": "Only sound."}
    assert failed["finished_at"]


def test_a_job_that_did_not_change_is_not_sent_again(client, enqueue, sessions):
    job_id = enqueue()
    first = client.get(f"/v1/jobs/{job_id}")
    known = {"If-None-Match": first.headers["etag"]}

    second = client.get(f"/v1/jobs/{job_id}", headers=known)
    claim_one(sessions)
    third = client.get(f"/v1/jobs/{job_id}", headers=known)

    assert (second.status_code, second.content) == (304, b"")
    assert second.headers["etag"] == first.headers["etag"]
    assert third.status_code == 200
    assert third.headers["etag"] != first.headers["etag"]


def test_waiting_ends_when_the_job_does(client, enqueue, sessions):
    job_id = enqueue()
    claim = claim_one(sessions)

    def finish_later():
        time.sleep(0.5)
        with sessions.begin() as session:
            JobRepository(session).finish(claim, {"duplicate": False})

    worker = threading.Thread(target=finish_later)
    worker.start()
    began = time.monotonic()
    answer = client.get(f"/v1/jobs/{job_id}?wait=60")
    seconds = time.monotonic() - began
    worker.join()

    assert answer.json()["state"] == "succeeded"
    assert 0.4 < seconds < 30


def test_waiting_ends_with_the_time(client, enqueue):
    job_id = enqueue()

    began = time.monotonic()
    answer = client.get(f"/v1/jobs/{job_id}?wait=0.3")

    assert answer.json()["state"] == "queued"
    assert 0.3 <= time.monotonic() - began < 30


def test_waiting_for_a_job_that_is_not_there_ends_at_once(client):
    assert client.get(f"/v1/jobs/{uuid4()}?wait=20").json()["code"] == "job_not_found"


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "soon"])
def test_nobody_waits_for_ever(client, enqueue, wait):
    answer = client.get(f"/v1/jobs/{enqueue()}?wait={wait}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "query.wait"


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_asked_to_stop(
    client, enqueue, sessions
):
    running = enqueue()
    claim_one(sessions)
    waiting = enqueue()

    stopped = client.post(f"/v1/jobs/{waiting}:cancel").json()
    asked = client.post(f"/v1/jobs/{running}:cancel").json()

    assert (stopped["state"], stopped["done"]) == ("cancelled", True)
    assert (asked["state"], asked["cancel_requested"]) == ("cancelling", True)


def test_a_job_that_is_over_cannot_be_cancelled(client, enqueue):
    job_id = enqueue()
    client.post(f"/v1/jobs/{job_id}:cancel")

    answer = client.post(f"/v1/jobs/{job_id}:cancel")

    assert (answer.status_code, answer.json()["code"]) == (409, "illegal_state")


def test_a_job_that_failed_can_be_retried_and_rings(client, enqueue, sessions, services):
    job_id = enqueue()
    with sessions.begin() as session:
        jobs = JobRepository(session)
        claim = jobs.claim([JobKind.INGEST], limit=1, owner="test", lease=LEASE)[0]
        jobs.fail(claim, code="decode_failed", message="No.")
    bell = Doorbell(services.redis_url)
    before = bell.queue_length("ingest")

    retried = client.post(f"/v1/jobs/{job_id}:retry").json()

    assert (retried["state"], retried["error"], retried["attempt"]) == ("queued", None, 0)
    assert bell.queue_length("ingest") == before + 1
    bell.close()
    again = client.post(f"/v1/jobs/{job_id}:retry")
    assert (again.status_code, again.json()["code"]) == (409, "illegal_state")


def test_jobs_are_listed_by_kind_state_batch_and_video(client, enqueue, sessions, make_video):
    batch_id = client.post("/v1/batches", json={"items": []}).json()["id"]
    video_id = make_video()
    of_batch = enqueue(batch_id=batch_id, batch_index=0)
    of_video = enqueue(JobKind.EMBED, video_id=video_id)
    running = enqueue(JobKind.SEARCH)
    claim_one(sessions, JobKind.SEARCH)

    def listed(query):
        return [job["id"] for job in client.get(f"/v1/jobs?{query}").json()["items"]]

    assert listed("") == [str(running), str(of_video), str(of_batch)]
    assert listed("kind=embed") == [str(of_video)]
    assert listed("state=running") == [str(running)]
    assert listed(f"batch_id={batch_id}") == [str(of_batch)]
    assert listed(f"video_id={video_id}") == [str(of_video)]
    assert listed("kind=embed&state=running") == []


def test_pages_of_jobs_neither_skip_nor_repeat(client, enqueue):
    ids = [str(enqueue()) for _ in range(5)]

    first = client.get("/v1/jobs?page_size=3").json()
    enqueue()
    second = client.get(f"/v1/jobs?page_size=3&page_token={first['next_page_token']}").json()

    assert [job["id"] for job in first["items"] + second["items"]] == ids[::-1]
    assert second["next_page_token"] is None
