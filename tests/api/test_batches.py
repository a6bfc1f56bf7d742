import dataclasses
import io
import json
import time
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from failed_videos import fail_video
from sqlalchemy import select
from starlette.testclient import TestClient

from api.intake import new_batches
from api.main import create_app
from store.api_keys import ApiKey
from store.database import make_sessions
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from workers.dispatch import MAX_RINGS, Doorbell

NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(items):
    return "".join(json.dumps(item) + "\n" for item in items).encode()


def post(client, form, items, **params):
    if form == "json":
        return client.post("/v1/batches", json={"items": items}, params=params)
    return client.post("/v1/batches", content=lines(items), headers=NDJSON, params=params)


def items_of(client, batch_id, **params):
    return client.get(f"/v1/batches/{batch_id}/items", params=params).json()["items"]


@pytest.fixture
def paths(media_root):
    return [str(media_root / f"batch {i}.mp4") for i in range(5)]


@pytest.fixture(params=["json", "ndjson"])
def form(request):
    return request.param


def test_a_batch_is_accepted_in_order(client, form, paths, sessions):
    items = [{"uri": path, "external_id": f"asset-{i}"} for i, path in enumerate(paths)]
    items[1] |= {"tags": ["a"], "metadata": {"b": [1, None]}}

    answer = post(client, form, items)

    batch = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/batches/{batch['id']}"
    assert (batch["total"], batch["done"], batch["state"]) == (5, 0, "queued")
    assert batch["counts"]["queued"] == 5
    shown = items_of(client, batch["id"])
    assert [item["index"] for item in shown] == [0, 1, 2, 3, 4]
    assert [item["external_id"] for item in shown] == [item["external_id"] for item in items]
    with sessions() as session:
        job = JobRepository(session).get(UUID(shown[1]["job_id"]))
    assert job.kind == JobKind.INGEST
    assert job.input["tags"] == ["a"]
    assert job.input["metadata"] == {"b": [1, None]}


@pytest.mark.parametrize(("count", "priority"), [(1, 4), (100, 4), (101, 5), (1200, 5)])
def test_small_batches_go_before_bulk_and_all_are_of_their_key(
    client, media_root, sessions, count, priority
):
    answer = post(client, "ndjson", [{"uri": str(media_root / f"{i}.mp4")} for i in range(count)])

    with sessions() as session:
        jobs = session.scalars(select(Job).where(Job.batch_id == UUID(answer.json()["id"]))).all()
        (key,) = session.scalars(select(ApiKey).where(ApiKey.name == "tests")).all()
    assert len(jobs) == count
    assert {(job.priority, job.api_key_id) for job in jobs} == {(priority, key.id)}


def test_uploads_that_fill_a_batch_become_bulk_with_their_number(client, media_root, sessions):
    answer = post(client, "json", [{"uri": str(media_root / f"{i}.mp4")} for i in range(99)])
    batch_id = answer.json()["id"]

    priorities = [
        client.post(
            "/v1/videos",
            files={"file": (f"{i}.mp4", str(i).encode())},
            data={"batch_id": batch_id},
        ).json()["priority"]
        for i in range(2)
    ]

    assert priorities == [4, 5]


def test_a_batch_can_have_a_name(client, paths):
    body = {"items": [{"uri": paths[0]}], "name": " holidays "}
    as_json = client.post("/v1/batches", json=body)
    as_lines = client.post(
        "/v1/batches?name=holidays", content=lines(body["items"]), headers=NDJSON
    )

    assert as_json.json()["name"] == as_lines.json()["name"] == "holidays"
    assert client.get(as_json.headers["location"]).json()["name"] == "holidays"


@pytest.mark.parametrize("name", [5, "", "x" * 201, ["a"], "\0"])
def test_a_name_that_is_none_is_refused_and_nothing_stored(client, paths, name):
    answer = client.post("/v1/batches", json={"items": [{"uri": paths[0]}], "name": name})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "body.name"
    assert client.get("/v1/batches").json()["items"] == []


def test_an_empty_batch_is_finished(client, form):
    batch = post(client, form, []).json()

    assert (batch["total"], batch["state"]) == (0, "finished")


def test_bad_items_are_all_named_and_nothing_is_stored(client, form, paths):
    bad = [{}, {"uri": 5}, {"uri": "relative"}, {"uri": paths[0], "colour": 1}, [], None, "x"]

    answer = post(client, form, [{"uri": paths[0]}, *bad, {"uri": paths[1]}])

    body = answer.json()
    assert (answer.status_code, body["code"]) == (422, "invalid_request")
    assert [error["index"] for error in body["errors"]] == [1, 2, 3, 4, 5, 6, 7]
    assert all(error["code"] == "invalid_request" and error["message"] for error in body["errors"])
    assert client.get("/v1/batches").json()["items"] == []
    assert client.get("/v1/jobs").json()["items"] == []


def test_only_the_first_bad_items_are_listed(client, form):
    body = post(client, form, [{}] * 500).json()

    assert [error["index"] for error in body["errors"]] == list(range(20))
    assert "500" in body["detail"]


def test_paths_outside_the_media_roots_forbid_the_whole_batch(client, form, paths):
    items = [{"uri": "/etc/passwd" if i % 3 == 0 else paths[0]} for i in range(90)]

    answer = post(client, form, items)

    body = answer.json()
    assert (answer.status_code, body["code"]) == (403, "outside_media_roots")
    # All of them: the client may upload these instead.
    assert [error["index"] for error in body["errors"]] == list(range(0, 90, 3))
    assert client.get("/v1/jobs").json()["items"] == []


def test_bad_items_can_be_skipped_and_are_recorded_as_failed(client, form, paths):
    items = [{"uri": paths[0]}, {"uri": "/etc/passwd"}, {"uri": "rel"}, {"uri": paths[1]}, {}]

    batch = post(client, form, items, on_error="skip").json()

    assert (batch["total"], batch["done"]) == (5, 3)
    assert batch["counts"] | {"queued": 2, "failed": 3} == batch["counts"]
    failed = items_of(client, batch["id"], state="failed")
    assert [(item["index"], item["uri"], item["error"]["code"]) for item in failed] == [
        (1, "/etc/passwd", "outside_media_roots"),
        (2, "rel", "invalid_request"),
        (4, "", "invalid_request"),
    ]
    assert [item["index"] for item in items_of(client, batch["id"], state="queued")] == [0, 3]
    job = client.get(f"/v1/jobs/{failed[0]['job_id']}").json()
    assert (job["state"], job["done"]) == ("failed", True)
    assert job["finished_at"]


def test_a_malformed_line_is_named_or_skipped(client, paths):
    content = lines([{"uri": paths[0]}]) + b"{nonsense\n" + lines([{"uri": paths[1]}])

    refused = client.post("/v1/batches", content=content, headers=NDJSON)
    skipped = client.post("/v1/batches?on_error=skip", content=content, headers=NDJSON)

    assert (refused.status_code, refused.json()["code"]) == (400, "malformed_json")
    assert [error["index"] for error in refused.json()["errors"]] == [1]
    assert skipped.json()["counts"]["failed"] == 1
    failed = items_of(client, skipped.json()["id"], state="failed")
    assert failed[0]["error"]["code"] == "malformed_json"


def test_a_malformed_document_is_refused_even_if_bad_items_are_skipped(client, paths):
    content = json.dumps({"items": [{"uri": paths[0]}]}).encode()[:-1]

    answer = client.post(
        "/v1/batches?on_error=skip",
        content=content,
        headers={"Content-Type": "application/json"},
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")
    assert client.get("/v1/batches").json()["items"] == []


def test_a_batch_with_too_many_items_is_refused(client, form, paths, settings, api_key):
    app = create_app(settings.model_copy(update={"max_batch_items": 1500}))
    headers = {"Authorization": f"Bearer {api_key}"}
    with TestClient(app, headers=headers) as other:
        answer = post(other, form, [{"uri": paths[0]}] * 1501)

    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_items")
    assert client.get("/v1/batches").json()["items"] == []


def test_a_batch_that_is_too_large_is_refused(client, form, paths, settings, api_key):
    app = create_app(settings.model_copy(update={"max_batch_bytes": 10_000}))
    headers = {"Authorization": f"Bearer {api_key}"}
    with TestClient(app, headers=headers) as other:
        answer = post(other, form, [{"uri": paths[0]}] * 1000)

    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


def test_two_thousand_items_are_one_transaction_and_ring_a_few_times(client, form, paths, services):
    bell = Doorbell(services.redis_url)
    before = bell.queue_length("ingest")

    batch = post(client, form, [{"uri": paths[i % 5]} for i in range(2000)]).json()

    assert batch["total"] == 2000
    assert bell.queue_length("ingest") - before == MAX_RINGS
    bell.close()
    token, seen = None, []
    while True:
        params = {"page_size": 500} | ({"page_token": token} if token else {})
        page = client.get(f"/v1/batches/{batch['id']}/items", params=params).json()
        seen += [item["index"] for item in page["items"]]
        token = page["next_page_token"]
        if token is None:
            break
    assert seen == list(range(2000))


def test_an_idempotency_key_makes_one_batch(client, form, paths):
    headers = {"Idempotency-Key": str(uuid4())}
    client.headers.update(headers)
    try:
        first = post(client, form, [{"uri": paths[0]}])
        second = post(client, form, [{"uri": paths[0]}])
        other = post(client, form, [{"uri": paths[1]}])
    finally:
        client.headers.pop("Idempotency-Key")

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert first.json()["total"] == second.json()["total"] == 1
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", ""])
def test_another_content_type_is_refused(client, content_type):
    answer = client.post("/v1/batches", content=b"x", headers={"Content-Type": content_type})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_the_counts_follow_the_work(client, paths, sessions, make_video):
    batch = post(client, "json", [{"uri": path} for path in paths]).json()
    ready = make_video(b"1")
    processing = make_video(b"2", ready=False)
    with sessions.begin() as session:
        jobs = JobRepository(session)
        claims = jobs.claim([JobKind.INGEST], limit=4, owner="test", lease=timedelta(seconds=60))
        jobs.finish(claims[0], {"video_id": str(ready)}, video_id=ready)
        jobs.finish(claims[1], {"video_id": str(processing)}, video_id=processing)
        jobs.fail(claims[2], code="unsupported_media", message="This is not a video.")

    shown = client.get(f"/v1/batches/{batch['id']}").json()

    expected = {"queued": 1, "running": 2, "succeeded": 1, "failed": 1}
    assert shown["counts"] | expected == shown["counts"]
    assert (shown["done"], shown["state"], shown["finished_at"]) == (2, "running", None)
    assert shown["rate_per_second"] > 0
    assert shown["eta_seconds"] > 0
    failed = items_of(client, batch["id"], state="failed")
    assert failed[0]["error"] == {"code": "unsupported_media", "message": "This is not a video."}
    succeeded = items_of(client, batch["id"], state="succeeded")
    assert succeeded[0]["video_id"] == str(ready)

    with sessions.begin() as session:
        fail_video(session, processing, code="decode_failed", message="No.")
    running = items_of(client, batch["id"], state="running")
    failed = items_of(client, batch["id"], state="failed")

    assert len(running) == 1
    assert [item["error"]["code"] for item in failed] == ["decode_failed", "unsupported_media"]


def test_a_batch_counts_what_was_known_already(client, paths, sessions, make_video):
    batch = post(client, "json", [{"uri": path} for path in paths[:3]]).json()
    video_id = make_video()

    with sessions.begin() as session:
        jobs = JobRepository(session)
        for is_duplicate in (True, True, False):
            (claim,) = jobs.claim([JobKind.INGEST], limit=1, owner="a", lease=timedelta(minutes=1))
            jobs.finish(claim, {"duplicate": is_duplicate}, video_id=video_id)

    shown = client.get(f"/v1/batches/{batch['id']}").json()
    assert (batch["duplicates"], shown["duplicates"]) == (0, 2)
    assert shown["counts"]["succeeded"] == 3


def test_a_cancelled_batch_is_finished(client, paths):
    batch = post(client, "json", [{"uri": path} for path in paths]).json()

    cancelled = client.post(f"/v1/batches/{batch['id']}:cancel").json()
    again = client.post(f"/v1/batches/{batch['id']}:cancel").json()

    assert cancelled["counts"]["cancelled"] == 5
    assert (cancelled["state"], cancelled["cancel_requested"]) == ("finished", True)
    assert cancelled["finished_at"]
    assert again["counts"] == cancelled["counts"]


def test_an_item_of_a_cancelled_batch_that_is_retried_is_wanted_again(client, paths):
    batch = post(client, "json", [{"uri": path} for path in paths]).json()
    client.post(f"/v1/batches/{batch['id']}:cancel")
    (item, *_) = client.get(f"/v1/batches/{batch['id']}/items").json()["items"]

    client.post(f"/v1/jobs/{item['job_id']}:retry")

    shown = client.get(f"/v1/batches/{batch['id']}").json()
    assert (shown["state"], shown["cancel_requested"]) == ("running", False)


def test_failed_items_can_be_sent_round_again(client, paths, sessions):
    batch = post(client, "json", [{"uri": path} for path in paths]).json()
    with sessions.begin() as session:
        jobs = JobRepository(session)
        for claim in jobs.claim(
            [JobKind.INGEST], limit=2, owner="test", lease=timedelta(seconds=60)
        ):
            jobs.fail(claim, code="probe_timeout", message="It took too long.")

    retried = client.post(f"/v1/batches/{batch['id']}:retry_failed").json()

    assert retried["counts"]["queued"] == 5
    with sessions() as session:
        states = {job.state for job in JobRepository(session).list().items}
    assert states == {JobState.QUEUED}


def test_batches_are_listed_newest_first(client, paths):
    ids = [post(client, "json", [{"uri": paths[0]}]).json()["id"] for _ in range(3)]

    first = client.get("/v1/batches?page_size=2").json()
    second = client.get(f"/v1/batches?page_token={first['next_page_token']}").json()

    assert [batch["id"] for batch in first["items"] + second["items"]] == ids[::-1]
    assert second["next_page_token"] is None


def test_paths_on_a_slow_disk_are_looked_at_in_their_time(
    client, settings, media_root, monkeypatch
):
    impatient = make_sessions(settings.store.database_url, idle_seconds=0.2)
    checked = new_batches._checked

    def slowly(*arguments):
        time.sleep(0.5)
        return checked(*arguments)

    monkeypatch.setattr(new_batches, "_checked", slowly)
    line = json.dumps({"uri": str(media_root / "1.mp4")}).encode()

    batch_id = new_batches.store_batch(
        dataclasses.replace(client.app.state.services, sessions=impatient),
        io.BytesIO(line),
        is_ndjson=True,
        name=None,
        on_error=new_batches.OnError.REJECT,
        idempotency_key=None,
    )
    impatient.kw["bind"].dispose()

    assert client.get(f"/v1/batches/{batch_id}").json()["total"] == 1
