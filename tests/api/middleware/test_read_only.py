"""Read-only mode: what is refused while a disk is full, and what goes on."""

import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from api.main import create_app
from api.middleware.read_only import ReadOnlyMiddleware
from store.disk_space import DiskWatch
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind


@pytest.fixture
def full(settings, api_key):
    """The API on a disk that is below its watermark, whatever it is."""
    store = settings.store.model_copy(update={"min_free_bytes": 2**60, "min_free_percent": 100.0})
    app = create_app(settings.model_copy(update={"store": store}))
    headers = {"Authorization": f"Bearer {api_key}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        yield client


def is_storage_full(answer):
    body = answer.json()
    return (
        answer.status_code == 507
        and body["code"] == "storage_full"
        and "MiB free" in body["detail"]
        and int(answer.headers["retry-after"]) > 0
    )


@pytest.mark.parametrize(
    "request_",
    [
        ("POST", "/v1/videos", {"files": {"file": ("a.mp4", b"x")}}),
        ("POST", "/v1/videos", {"json": {"uri": "/a.mp4"}}),
        ("POST", "/v1/batches", {"json": {"items": [{"uri": "/a.mp4"}]}}),
        ("POST", "/v1/searches", {"json": {"text": "a parrot"}}),
        ("POST", "/v1/questions", {"json": {"text": "what?"}}),
        ("POST", "/v1/labels", {"json": {}}),
        ("POST", "/v1/finetunes", {"json": {"task": "qa"}}),
        ("POST", "/v1/jobs/0198c0d0-2222-7aaa-8bbb-1234567890ab:retry", {}),
        ("PATCH", "/v1/schedules/0198c0d0-2222-7aaa-8bbb-1234567890ab", {"json": {}}),
    ],
)
def test_what_adds_something_is_refused(full, sessions, request_):
    method, path, options = request_

    assert is_storage_full(full.request(method, path, **options))


def test_reading_cancelling_and_deleting_go_on(full, sessions, make_video, blobs):
    video_id = make_video()
    with sessions.begin() as session:
        job_id = JobRepository(session).enqueue(NewJob(JobKind.INGEST, {})).id

    assert full.get(f"/v1/videos/{video_id}").status_code == 200
    assert full.get(f"/v1/videos/{video_id}/media").status_code == 200
    assert full.post(f"/v1/jobs/{job_id}:cancel").json()["state"] == "cancelled"
    assert full.delete(f"/v1/videos/{video_id}").status_code == 204
    assert full.get(f"/v1/videos/{video_id}").status_code == 404


def test_the_service_is_ready_and_says_that_it_is_read_only(full, client):
    answer = full.get("/readyz")

    assert (answer.status_code, answer.json()["state"]) == (200, "read_only")
    assert client.get("/readyz").json()["state"] == "read_write"


def test_who_has_no_key_is_told_that_first(full):
    answer = full.post("/v1/searches", json={}, headers={"Authorization": "Bearer nobody"})

    assert answer.status_code == 401


def test_a_body_larger_than_what_is_free_is_refused_before_it_comes(client):
    answer = client.post("/v1/videos", headers={"Content-Length": str(2**60)}, content=b"")

    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")


def test_an_upload_under_way_ends_when_the_disk_becomes_full(tmp_path):
    disk = DiskWatch([tmp_path], min_free_bytes=0, min_free_percent=0)
    received = []

    async def reading(scope, receive, send):
        while True:
            message = await receive()
            received.append(len(message["body"]))

    async def receive():
        if len(received) == 2:
            disk.note_full()
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    scope = {"type": "http", "method": "POST", "path": "/v1/videos", "headers": []}
    with pytest.raises(HTTPException) as raised:
        asyncio.run(ReadOnlyMiddleware(reading, disk=disk)(scope, receive, None))

    assert (raised.value.status_code, received) == (507, [1000, 1000])
