"""Uploads on their way to a remote store keep nobody else waiting, and none is lost."""

import dataclasses
import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvicorn
from sqlalchemy import text

from api.main import create_app
from store.blobs import LocalBlobs
from store.videos.contents import media_key

NUM_UPLOADS = 12
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


class RemoteLikeBlobs(LocalBlobs):
    """A folder that is reached as slowly as another continent: until it is let."""

    def __init__(self, folder):
        super().__init__(folder)
        self.under_way = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.before_end = lambda key: None

    def local_path(self, key):
        return None

    def take_file(self, key, path):
        self.under_way.release()
        assert self.may_end.wait(120)
        super().put_file(key, path)
        self.before_end(key)


@pytest.fixture
def blobs(tmp_path):
    return RemoteLikeBlobs(tmp_path / "blobs")


@pytest.fixture
def url(settings, sessions, blobs):
    """An API with two threads for requests."""
    app = create_app(settings.model_copy(update={"num_threads": 2}))
    app.state.services = dataclasses.replace(app.state.services, blobs=blobs)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    blobs.may_end.set()
    server.should_exit = True
    thread.join(120)


@pytest.fixture
def http(url, api_key):
    headers = {"Authorization": f"Bearer {api_key}"}
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=url, headers=headers, timeout=60, limits=limits) as client:
        yield client


def upload(http, number):
    return http.post("/v1/videos", files={"file": (f"{number}.mp4", b"film %d" % number)})


def test_transfers_hold_no_thread_and_no_transaction_of_other_requests(http, blobs, sessions):
    with ThreadPoolExecutor(NUM_UPLOADS) as pool:
        uploads = [pool.submit(upload, http, number) for number in range(NUM_UPLOADS)]
        for _ in range(3):  # more than there are threads for requests
            assert blobs.under_way.acquire(timeout=120)

        started = time.monotonic()
        for _ in range(10):
            assert http.get("/v1/videos").status_code == 200
        seconds = time.monotonic() - started
        with sessions() as session:
            open_ones = session.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND state = 'idle in transaction' AND pid <> pg_backend_pid()"
                )
            )
        blobs.may_end.set()
        answers = [each.result() for each in uploads]

    assert open_ones == 0
    assert seconds < 30
    assert {answer.status_code for answer in answers} == {202}
    for answer in answers:
        job = answer.json()["input"]
        assert blobs.exists(job["blob_key"])
        assert job["blob_key"] == media_key(job["sha256"])


def test_slow_clients_keep_nobody_else_waiting(http, blobs):
    blobs.may_end.set()
    may_go_on = threading.Event()

    def slowly(number):
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
        yield b"film %d" % number
        assert may_go_on.wait(120)
        yield b" and its end\r\n--b--\r\n"

    with ThreadPoolExecutor(NUM_UPLOADS) as pool:
        uploads = [
            pool.submit(http.post, "/v1/videos", content=slowly(number), headers=FORM)
            for number in range(NUM_UPLOADS)
        ]
        time.sleep(0.5)
        started = time.monotonic()
        assert upload(http, 100).status_code == 202
        assert http.get("/v1/videos").status_code == 200
        seconds = time.monotonic() - started
        may_go_on.set()
        answers = [each.result() for each in uploads]

    assert seconds < 30
    assert {answer.status_code for answer in answers} == {202}


def test_a_deletion_in_between_takes_no_accepted_upload_along(http, blobs):
    removed = []

    def remove_once(key):
        if not removed:
            removed.append(key)
            blobs.delete(key)

    blobs.before_end = remove_once
    blobs.may_end.set()

    answer = upload(http, 1)

    assert answer.status_code == 202
    assert removed == [answer.json()["input"]["blob_key"]]
    assert blobs.exists(removed[0])


def test_a_transfer_that_fails_is_told_and_leaves_no_job(http, blobs):
    def break_off(key):
        raise OSError("the store is away")

    blobs.before_end = break_off
    blobs.may_end.set()

    answer = upload(http, 1)

    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert http.get("/v1/jobs").json()["items"] == []


def test_a_transfer_that_finds_no_room_is_told_as_that(http, blobs):
    def fill(key):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    blobs.before_end = fill
    blobs.may_end.set()

    answer = upload(http, 1)

    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
