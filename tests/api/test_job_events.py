import json
import threading
import time
from datetime import timedelta
from uuid import uuid4

import pytest

from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind

SSE = {"Accept": "text/event-stream"}


@pytest.fixture
def job_id(sessions):
    with sessions.begin() as session:
        return JobRepository(session).enqueue(NewJob(JobKind.FINETUNE, {})).id


def claim(sessions):
    with sessions.begin() as session:
        jobs = JobRepository(session)
        return jobs.claim([JobKind.FINETUNE], limit=1, owner="w", lease=timedelta(seconds=60))[0]


def tell(sessions, claim, *steps):
    with sessions.begin() as session:
        for step in steps:
            JobRepository(session).add_event(claim, "metrics", {"step": step, "loss": 1 / step})


def finish(sessions, claim):
    with sessions.begin() as session:
        JobRepository(session).finish(claim, {})


def parse(text):
    """Read a stream as a browser does."""
    events = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in lines:
            events.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
    return events


def test_events_are_listed_in_order_and_by_page(client, sessions, job_id):
    tell(sessions, claim(sessions), 1, 2, 3)
    url = f"/v1/jobs/{job_id}/events"

    first = client.get(f"{url}?page_size=3").json()
    second = client.get(f"{url}?page_size=3&page_token={first['next_page_token']}").json()
    after = client.get(f"{url}?after=4").json()

    items = first["items"] + second["items"]
    assert [event["seq"] for event in items] == [1, 2, 3, 4, 5]
    assert [event["type"] for event in items] == ["queued", "claimed"] + ["metrics"] * 3
    assert items[2]["data"] == {"step": 1, "loss": 1.0}
    assert second["next_page_token"] is None
    assert [event["seq"] for event in after["items"]] == [5]
    assert client.get(f"{url}?page_token=nonsense").json()["code"] == "invalid_page_token"
    assert client.get(f"/v1/jobs/{uuid4()}/events").json()["code"] == "job_not_found"


def test_the_stream_of_a_job_that_is_over_has_all_its_events_and_ends(client, sessions, job_id):
    held = claim(sessions)
    tell(sessions, held, *range(1, 301))  # more than one look reads
    finish(sessions, held)

    answer = client.get(f"/v1/jobs/{job_id}/events", headers=SSE)
    resumed = client.get(f"/v1/jobs/{job_id}/events", headers={**SSE, "Last-Event-ID": "302"})
    knows_all = client.get(f"/v1/jobs/{job_id}/events", headers={**SSE, "Last-Event-ID": "303"})

    events = parse(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [seq for seq, _, _ in events] == list(range(1, 304))
    assert events[-1][1] == "succeeded"
    assert events[5][2]["data"] == {"step": 4, "loss": 0.25}
    assert [seq for seq, _, _ in parse(resumed.text)] == [303]
    assert (knows_all.status_code, knows_all.content) == (204, b"")


def test_events_are_streamed_while_they_happen(client, sessions, job_id):
    def work():
        held = claim(sessions)
        for step in (1, 2, 3):
            time.sleep(0.2)
            tell(sessions, held, step)
        finish(sessions, held)

    worker = threading.Thread(target=work)
    worker.start()
    answer = client.get(f"/v1/jobs/{job_id}/events", headers=SSE)
    worker.join()

    types = [type_ for _, type_, _ in parse(answer.text)]
    assert types == ["queued", "claimed", "metrics", "metrics", "metrics", "succeeded"]


def test_the_stream_of_an_unknown_job_is_not_found(client):
    answer = client.get(f"/v1/jobs/{uuid4()}/events", headers=SSE)

    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_so_many_streams_are_open_and_no_more(client, app, job_id):
    room = app.state.services.waiting_room
    room._num_streams = room._max_waiters // 2  # as if so many were
    try:
        answer = client.get(f"/v1/jobs/{job_id}/events", headers=SSE)
    finally:
        room._num_streams = 0

    assert (answer.status_code, answer.json()["code"]) == (503, "too_many_streams")
    assert answer.headers["retry-after"] == "10"


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_finetune_is_paused_and_goes_on_by_its_job_too(client, sessions, job_id, verb):
    paused = client.post(f"/v1/jobs/{job_id}:pause").json()
    if verb == "resume":
        resumed = client.post(f"/v1/jobs/{job_id}:resume").json()
        assert resumed["state"] == "queued"
    else:
        assert (paused["state"], paused["pause_requested"]) == ("paused", False)
        twice = client.post(f"/v1/jobs/{job_id}:resume")
        again = client.post(f"/v1/jobs/{job_id}:resume")
        assert (twice.status_code, again.status_code) == (200, 409)


def test_a_running_finetune_is_asked_to_pause(client, sessions, job_id):
    claim(sessions)

    asked = client.post(f"/v1/jobs/{job_id}:pause").json()

    assert (asked["state"], asked["pause_requested"]) == ("running", True)


def test_other_jobs_do_not_pause(client, sessions):
    with sessions.begin() as session:
        other = JobRepository(session).enqueue(NewJob(JobKind.INGEST, {})).id

    answer = client.post(f"/v1/jobs/{other}:pause")

    assert (answer.status_code, answer.json()["code"]) == (409, "illegal_state")
