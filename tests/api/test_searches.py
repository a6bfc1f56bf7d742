import threading
import time
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.results.searches import SearchRepository

pytestmark = pytest.mark.usefixtures("generation_id")


def result_of(video_id):
    return {
        "hits": [
            {
                "rank": 1,
                "score": 0.5,
                "video_id": str(video_id),
                "uri": "file:///videos/parrot.mp4",
                "clip_index": 0,
                "start_seconds": 0.0,
                "end_seconds": 2.0,
                "instants": [1.0],
                "recall_score": 0.5,
                "match_score": None,
                "moments": [
                    {"clip_index": 0, "start_seconds": 0.0, "end_seconds": 2.0, "score": 0.5}
                ],
            }
        ],
        "stages": ["recall"],
        "candidates": 1,
        "model_id": None,
        "model": None,
        "generation_id": str(uuid4()),
        "recall_model_id": str(uuid4()),
        "recall_model": "clipbert-mini",
        "seconds": {"recall": 0.01},
        "served_together": 1,
    }


def serve(sessions, result=None, *, after_seconds=0.0, error=None):
    """Do what the interactive worker does with the next search."""
    deadline = time.monotonic() + 120
    claims = []
    while not claims and time.monotonic() < deadline:
        with sessions.begin() as session:
            claims = JobRepository(session).claim(
                [JobKind.SEARCH], limit=1, owner="test", lease=timedelta(seconds=60)
            )
        time.sleep(0.02)
    time.sleep(after_seconds)
    with sessions.begin() as session:
        jobs = JobRepository(session)
        if error is not None:
            jobs.fail(claims[0], code=error, message="It could not be done.")
            return
        SearchRepository(session).complete(claims[0].id, result)
        jobs.finish(claims[0], result)


def test_a_search_is_accepted_and_can_be_asked_for_later(client, sessions, make_video):
    video_id = make_video()
    body = {"text": " a white parrot ", "limit": 3, "filters": {"tags": ["birds"]}}

    answer = client.post("/v1/searches", json=body)

    search = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/searches/{search['id']}"
    assert (search["state"], search["done"], search["result"]) == ("queued", False, None)
    assert (search["text"], search["mode"], search["limit"]) == ("a white parrot", "auto", 3)
    assert search["filters"] == {"video_ids": [], "tags": ["birds"]}
    with sessions() as session:
        job = JobRepository(session).get(UUID(search["id"]))
    assert job.input == {
        "text": "a white parrot",
        "mode": "auto",
        "limit": 3,
        "group_by": "video",
        "filters": {"video_ids": [], "tags": ["birds"]},
    }

    serve(sessions, result_of(video_id))
    found = client.get(answer.headers["location"]).json()

    assert (found["state"], found["done"], found["error"]) == ("succeeded", True, None)
    assert found["result"] == result_of(video_id) | {
        key: found["result"][key] for key in ("generation_id", "recall_model_id")
    } | {"hits": [result_of(video_id)["hits"][0] | {"starts_at_seconds": 0.0, "is_missing": False}]}


def test_a_search_is_answered_at_once_when_it_is_done_in_time(client, sessions, make_video):
    result = result_of(make_video())
    worker = threading.Thread(target=serve, args=(sessions, result))
    worker.start()

    answer = client.post("/v1/searches?wait=20", json={"text": "a parrot"})
    worker.join()

    assert answer.status_code == 200
    assert answer.json()["result"]["hits"][0]["uri"] == "file:///videos/parrot.mp4"
    assert answer.headers["location"] == f"/v1/searches/{answer.json()['id']}"


def test_a_search_that_takes_longer_than_wait_is_accepted(client):
    answer = client.post("/v1/searches?wait=0.2", json={"text": "a parrot"})

    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


def test_a_search_can_be_waited_for_later(client, sessions, make_video):
    place = client.post("/v1/searches", json={"text": "a parrot"}).headers["location"]
    worker = threading.Thread(target=serve, args=(sessions, result_of(make_video())))
    worker.start()

    found = client.get(f"{place}?wait=20")
    worker.join()

    assert found.json()["state"] == "succeeded"
    known = {"If-None-Match": found.headers["etag"]}
    assert client.get(place, headers=known).status_code == 304


def test_a_search_that_fails_shows_why(client, sessions):
    worker = threading.Thread(target=serve, args=(sessions,), kwargs={"error": "out_of_memory"})
    worker.start()

    answer = client.post("/v1/searches?wait=20", json={"text": "a parrot"})
    worker.join()

    assert (answer.status_code, answer.json()["state"]) == (200, "failed")
    assert answer.json()["error"] == {"code": "out_of_memory", "message": "It could not be done."}


def test_an_idempotency_key_makes_one_search(client):
    headers = {"Idempotency-Key": "one"}

    first = client.post("/v1/searches", json={"text": "a"}, headers=headers)
    second = client.post("/v1/searches", json={"text": "a", "limit": 10}, headers=headers)
    other = client.post("/v1/searches", json={"text": "b"}, headers=headers)

    assert first.json()["id"] == second.json()["id"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    assert len(client.get("/v1/searches").json()["items"]) == 1


def test_searches_are_listed_newest_first(client):
    ids = [client.post("/v1/searches", json={"text": str(i)}).json()["id"] for i in range(3)]

    first = client.get("/v1/searches?page_size=2").json()
    second = client.get(f"/v1/searches?page_token={first['next_page_token']}").json()

    assert [search["id"] for search in first["items"] + second["items"]] == ids[::-1]


@pytest.mark.parametrize(
    "body", [{"text": "\u200b"}, {"text": "a", "filters": {"tags": ["\u2800"]}}]
)
def test_a_search_for_what_nobody_can_see_is_refused(client, body):
    answer = client.post("/v1/searches", json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "must have a visible character" in answer.json()["detail"]


def test_a_search_that_would_be_refused_by_now_is_still_shown(client, sessions):
    with sessions.begin() as session:
        job = JobRepository(session).enqueue(NewJob(kind=JobKind.SEARCH, input={"text": "\u200b"}))
        SearchRepository(session).create(job, text="\u200b")

    (found,) = client.get("/v1/searches").json()["items"]

    assert (found["text"], found["mode"], found["limit"]) == ("\u200b", "auto", 10)


def test_before_the_first_model_there_is_no_searching(client, sessions):
    from sqlalchemy import delete

    from store.models.tables import Generation

    with sessions.begin() as session:
        session.execute(delete(Generation))

    answer = client.post("/v1/searches", json={"text": "a parrot"})

    assert (answer.status_code, answer.json()["code"]) == (409, "no_active_generation")
    assert client.get("/v1/jobs").json()["items"] == []
