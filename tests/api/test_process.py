"""The API as a process of its own, as `clipbert up` starts it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind

MIB = 2**20


class Process:
    def __init__(self, settings, log, **variables):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        environment = {
            **os.environ,
            "STORE_DATABASE_URL": settings.store.database_url,
            "STORE_BLOB_URL": settings.store.blob_url,
            "STORE_MEDIA_ROOTS": os.pathsep.join(map(str, settings.store.media_roots)),
            "WORKER_REDIS_URL": settings.redis_url,
            "API_PORT": str(port),
            **variables,
        }
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "api"], env=environment, stdout=output, stderr=output
            )

    def wait_until_ready(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.popen.poll() is None:
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())


@pytest.fixture
def process(settings, tmp_path):
    process = Process(settings, tmp_path / "api.log")
    process.wait_until_ready()
    yield process
    process.popen.kill()
    process.popen.wait()


@pytest.fixture
def http(process, api_key):
    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=process.url, headers=headers, timeout=60) as client:
        yield client


def upload(http, size_mib):
    piece = os.urandom(MIB)

    def form():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.mp4"\r\n\r\n'
        for i in range(size_mib):
            yield piece[i:] + piece[:i]
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return http.post("/v1/videos", content=form(), headers=headers)


def test_memory_stays_flat_while_a_large_file_comes_and_goes(process, http, blobs):
    api = psutil.Process(process.popen.pid)
    upload(http, 8)
    before = api.memory_info().rss

    answer = upload(http, 300)

    after = api.memory_info().rss
    assert answer.status_code == 202
    assert blobs.size(answer.json()["input"]["blob_key"]) == 300 * MIB
    assert after - before < 32 * MIB


def test_a_stop_sends_waiting_requests_home_and_is_clean(process, http, sessions, api_key):
    with sessions.begin() as session:
        job_id = JobRepository(session).enqueue(NewJob(kind=JobKind.INGEST, input={})).id
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(http.get, f"/v1/jobs/{job_id}?wait=50")
        time.sleep(1)
        process.popen.send_signal(signal.SIGTERM)
        answer = waiting.result()
        code = process.popen.wait(timeout=120)

    assert (answer.status_code, answer.json()["state"]) == (200, "queued")
    assert code in {0, -signal.SIGTERM}
    lines = process.log.read_text().splitlines()
    events = [json.loads(line) for line in lines]  # every line is JSON
    assert all(event["event"] and event["timestamp"] and event["level"] for event in events)
    answered = [event for event in events if event["event"] == "request.answered"]
    assert answered[-1]["path"] == f"/v1/jobs/{job_id}"
    assert answered[-1]["status"] == 200
    assert api_key not in process.log.read_text()
    assert "wait=50" not in process.log.read_text()
    assert not [event for event in events if event["level"] in {"error", "critical"}]


def test_a_fault_is_logged_on_one_line(process, http, sessions):
    # A search whose stored question is nonsense can only be a fault of ours.
    from store.results.searches import SearchRepository

    with sessions.begin() as session:
        job = JobRepository(session).enqueue(NewJob(kind=JobKind.SEARCH, input={"mode": "x"}))
        SearchRepository(session).create(job, text="")

    answer = http.get(f"/v1/searches/{job.id}")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    events = [json.loads(line) for line in process.log.read_text().splitlines()]
    fault = next(event for event in events if event["event"] == "request.failed")
    assert fault["request_id"] == answer.headers["x-request-id"]
    assert "KeyError" in fault["exception"]


def test_a_client_may_leave_a_stream_and_a_stop_ends_the_others(process, api_key, sessions):
    with sessions.begin() as session:
        job_id = JobRepository(session).enqueue(NewJob(JobKind.FINETUNE, {})).id
    headers = {"Authorization": f"Bearer {api_key}", "Accept": "text/event-stream"}
    url = f"{process.url}/v1/jobs/{job_id}/events"
    with httpx.stream("GET", url, headers=headers, timeout=120) as gone:
        next(gone.iter_text())  # and away

    with httpx.stream("GET", url, headers=headers, timeout=120) as stream:
        pieces = stream.iter_text()
        first = next(pieces)
        process.popen.terminate()
        rest = "".join(pieces)

    assert "event: queued" in first + rest
    process.popen.wait(120)
    assert "graceful shutdown exceeded" not in process.log.read_text()
