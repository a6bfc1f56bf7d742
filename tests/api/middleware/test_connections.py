"""Connections that keep the API waiting, and those that only seem to, with real sockets."""

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import httpx
import psutil
import pytest

from embedded.deployment import plan_processes
from embedded.supervisor import Supervisor
from tests.api.test_process import Process

PATIENCE_SECONDS = 120  # for machines that do much else
HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
LIMITS = {
    "API_HEAD_SECONDS": "1",
    "API_BODY_SECONDS": "1.5",
    "API_IDLE_SECONDS": "2",
    "API_MAX_CONNECTIONS": "8",
}


@pytest.fixture(scope="module")
def strict(settings, tmp_path_factory):
    """An API that loses its patience soon."""
    process = Process(settings, tmp_path_factory.mktemp("api") / "api.log", **LIMITS)
    process.wait_until_ready()
    yield process
    process.popen.kill()
    process.popen.wait()


@contextmanager
def connected(process):
    url = httpx.URL(process.url)
    with socket.create_connection((url.host, url.port), timeout=60) as client:
        yield client


def read_to_the_end(client):
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def upload_head(api_key, length):
    return (
        "POST /v1/videos HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {api_key}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def test_a_head_that_does_not_end_is_given_up(strict):
    with connected(strict) as client:
        client.sendall(HEAD)
        began = time.monotonic()

        answer = read_to_the_end(client)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["code"] == "request_timeout"
    assert time.monotonic() - began < 30


def test_a_head_that_comes_byte_by_byte_is_given_up_too(strict):
    with connected(strict) as client:
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - began < 60:
                client.sendall(b"x")
                time.sleep(0.1)

    assert time.monotonic() - began < 30


def test_a_connection_on_which_nothing_comes_is_closed(strict):
    with connected(strict) as fresh, connected(strict) as kept:
        kept.sendall(HEAD + b"\r\n")
        began = time.monotonic()

        assert read_to_the_end(fresh) == b""
        fresh_seconds = time.monotonic() - began
        assert read_to_the_end(kept).startswith(b"HTTP/1.1 200 ")
        kept_seconds = time.monotonic() - began

    assert fresh_seconds < 30
    assert 1.5 < kept_seconds < 30


def test_a_body_that_stops_is_given_up_and_leaves_no_file(strict, api_key, blob_folder):
    with connected(strict) as client:
        client.sendall(upload_head(api_key, 10_000) + b"--b\r\n")
        began = time.monotonic()

        answer = read_to_the_end(client)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 30
    assert list((blob_folder / ".staging").iterdir()) == []


def test_a_slow_upload_that_moves_is_taken(strict, api_key, sessions):
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="slow.mp4"\r\n\r\n'
        b"a film over a bad line, a few bytes at a time\r\n--b--\r\n"
    )
    with connected(strict) as client:
        client.sendall(upload_head(api_key, len(body)))
        began = time.monotonic()
        for start in range(0, len(body), 8):
            client.sendall(body[start : start + 8])
            time.sleep(0.2)
        seconds = time.monotonic() - began

        answer = client.recv(65536)

    assert answer.startswith(b"HTTP/1.1 202 ")
    assert seconds > 2 * float(LIMITS["API_BODY_SECONDS"])


def test_an_answer_that_takes_long_is_waited_for(strict, api_key, sessions):
    from store.jobs.repository import JobRepository, NewJob
    from store.jobs.state import JobKind

    with sessions.begin() as session:
        job_id = JobRepository(session).enqueue(NewJob(JobKind.FINETUNE, {})).id
    headers = {"Authorization": f"Bearer {api_key}", "Accept": "text/event-stream"}
    url = f"{strict.url}/v1/jobs/{job_id}/events"
    with httpx.stream("GET", url, headers=headers, timeout=60) as stream:
        pieces = stream.iter_text()
        next(pieces)
        time.sleep(4)  # longer than any of the limits
        with sessions.begin() as session:
            JobRepository(session).request_cancel(job_id)

        rest = "".join(pieces)

    assert "event: cancelled" in rest


@pytest.fixture(scope="module")
def patient(settings, tmp_path_factory):
    """An API that lets connections wait, but has room for few."""
    limits = {**LIMITS, "API_HEAD_SECONDS": "600", "API_BODY_SECONDS": "600"}
    process = Process(settings, tmp_path_factory.mktemp("patient") / "api.log", **limits)
    process.wait_until_ready()
    yield process
    process.popen.kill()
    process.popen.wait()


def test_connections_that_wait_make_room_for_one_that_asks(patient):
    hanging = [socket.create_connection(address_of(patient)) for _ in range(20)]
    try:
        for client in hanging:
            client.sendall(HEAD)

        answer = httpx.get(f"{patient.url}/healthz", timeout=30)

        assert answer.status_code == 200
        deadline = time.monotonic() + 120  # one that is let go is closed in the loop's next turns
        while num_clients(patient) > int(LIMITS["API_MAX_CONNECTIONS"]):
            assert time.monotonic() < deadline, num_clients(patient)
            time.sleep(0.02)
    finally:
        for client in hanging:
            client.close()


def num_clients(process):
    """Count the connections of clients, and not those to PostgreSQL and Redis."""
    port = address_of(process)[1]
    connections = psutil.Process(process.popen.pid).net_connections("tcp")
    return sum(
        connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
        for connection in connections
    )


def test_slow_bodies_make_room_too(patient, api_key):
    hanging = [socket.create_connection(address_of(patient)) for _ in range(8)]
    try:
        for client in hanging:
            client.sendall(upload_head(api_key, 10_000) + b"--b\r\n")
        time.sleep(1.2)  # a body is called slow after a second

        answer = httpx.get(f"{patient.url}/healthz", timeout=30)

        assert answer.status_code == 200
    finally:
        for client in hanging:
            client.close()


def address_of(process):
    url = httpx.URL(process.url)
    return url.host, url.port


@pytest.fixture
def shared(settings, tmp_path):
    """Start API processes as `up` does: they share a socket that outlives each of them."""
    supervisors = []

    def start(count):
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        lines = []
        environment = {
            **os.environ,
            "STORE_DATABASE_URL": settings.store.database_url,
            "STORE_BLOB_URL": settings.store.blob_url,
            "WORKER_REDIS_URL": settings.redis_url,
        }
        specs = plan_processes(ingest_workers=1, api_processes=count, listener=listener)
        supervisor = Supervisor(
            [spec for spec in specs if spec.name.startswith("api")],
            environment=environment,
            folder=tmp_path,
            on_line=lambda *line: lines.append(line),
        )
        supervisors.append((supervisor, listener))
        supervisor.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE_SECONDS).status_code == 200, lines
        return supervisor, url

    yield start
    for supervisor, listener in supervisors:
        listener.close()
        supervisor.stop()


class Asking:
    """Asks without a pause, over one kept connection or over a new one each time."""

    def __init__(self, url, *, keeps):
        self.statuses, self.failures = set(), []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, args=(url, keeps))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _ask(self, url, keeps):
        limits = httpx.Limits(max_keepalive_connections=1 if keeps else 0)
        with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS, limits=limits) as client:
            while not self._stop.is_set():
                try:
                    self.statuses.add(client.get("/healthz").status_code)
                except httpx.TransportError as error:
                    self.failures.append(str(error))
                    return
                time.sleep(0.002)


@pytest.mark.parametrize("count", [1, 2])
def test_no_request_is_dropped_while_an_api_process_is_restarted(shared, count):
    supervisor, url = shared(count)
    asking = [Asking(url, keeps=keeps) for keeps in (True, True, False)]
    with ExitStack() as running:
        for each in asking:
            running.enter_context(each)
        for _ in range(2):
            for name, pid in supervisor.pids().items():
                os.kill(pid, signal.SIGTERM)
                wait_until_restarted(supervisor, name, pid)
                # For as long as no process is ready, the socket that they share keeps who comes.
                assert httpx.get(f"{url}/healthz", timeout=PATIENCE_SECONDS).status_code == 200

    assert [(each.failures, each.statuses) for each in asking] == [([], {200})] * 3


def test_who_comes_while_the_api_was_killed_waits_for_the_next_process(shared):
    supervisor, url = shared(1)
    pid = supervisor.pids()["api"]
    os.kill(pid, signal.SIGKILL)
    with ThreadPoolExecutor() as pool:
        # Processes die with the thread that started them, so it is the asking that has its own.
        asking = pool.submit(httpx.get, f"{url}/healthz", timeout=PATIENCE_SECONDS)
        wait_until_restarted(supervisor, "api", pid)

        answer = asking.result()

    assert answer.status_code == 200


def wait_until_restarted(supervisor, name, pid):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while supervisor.pids().get(name) in (None, pid):
        assert time.monotonic() < deadline
        supervisor.restart_dead()
        time.sleep(0.05)


def test_a_socket_that_is_not_one_is_said(settings, tmp_path):
    process = Process(settings, tmp_path / "api.log", API_LISTEN_FD="77")

    code = process.popen.wait(timeout=120)

    assert code != 0
    assert "API_LISTEN_FD=77 is not a socket" in process.log.read_text()
