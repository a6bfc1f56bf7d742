import asyncio
import itertools
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from starlette.testclient import TestClient

from api.main import create_app
from api.services.waiting import WaitingRoom
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind


class Client:
    """As much of a request as the waiting room looks at."""

    def __init__(self, *, gone_after=None):
        self._looks = 0
        self._gone_after = gone_after

    async def is_disconnected(self):
        self._looks += 1
        return self._gone_after is not None and self._looks > self._gone_after


def wait(room, is_done, *, wait_seconds, client=None):
    began = time.monotonic()
    asyncio.run(room.wait(client or Client(), is_done, wait_seconds=wait_seconds))
    return time.monotonic() - began


def test_looks_become_rarer():
    looks = []

    def is_done():
        looks.append(time.monotonic())
        return False

    wait(WaitingRoom(max_waiters=1), is_done, wait_seconds=1.5)

    pauses = [after - before for before, after in itertools.pairwise(looks)]
    assert len(looks) < 16
    assert statistics.median(pauses) < 0.5


def test_waiting_for_no_time_does_not_even_look():
    # Not looking is what counts; a busy machine may take a while to do nothing.
    assert wait(WaitingRoom(max_waiters=1), pytest.fail, wait_seconds=0) < 30


def test_who_is_gone_is_not_waited_for():
    seconds = wait(
        WaitingRoom(max_waiters=1),
        lambda: False,
        wait_seconds=60,
        client=Client(gone_after=2),
    )

    assert seconds < 30


def test_a_closed_room_lets_everybody_go():
    room = WaitingRoom(max_waiters=10)

    async def close_soon():
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(wait_in_room)
            await anyio.sleep(0.2)
            assert room.num_waiters == 5
            room.close()

    async def wait_in_room():
        await room.wait(Client(), lambda: False, wait_seconds=60)

    began = time.monotonic()
    asyncio.run(close_soon())

    assert time.monotonic() - began < 30
    assert room.num_waiters == 0


def test_a_full_room_answers_at_once():
    room = WaitingRoom(max_waiters=0)

    assert wait(room, pytest.fail, wait_seconds=60) < 30


def test_an_error_frees_the_place():
    room = WaitingRoom(max_waiters=1)

    def fail():
        raise LookupError

    with pytest.raises(LookupError):
        wait(room, fail, wait_seconds=30)

    assert room.num_waiters == 0


def test_many_waiting_requests_do_not_keep_others_waiting(settings, sessions, api_key):
    app = create_app(settings.model_copy(update={"num_threads": 2, "max_waiters": 20}))
    with sessions.begin() as session:
        job_id = JobRepository(session).enqueue(NewJob(kind=JobKind.INGEST, input={})).id
    headers = {"Authorization": f"Bearer {api_key}"}
    with (
        TestClient(app, headers=headers) as client,
        ThreadPoolExecutor(max_workers=30) as pool,
    ):
        waiting = [pool.submit(client.get, f"/v1/jobs/{job_id}?wait=50") for _ in range(30)]
        time.sleep(1)

        began = time.monotonic()
        for _ in range(10):
            assert client.get("/v1/videos").status_code == 200
        seconds = time.monotonic() - began
        at_once = sum(future.done() for future in waiting)
        num_waiters = client.get("/v1/stats").json()["waiting_requests"]
        bind = app.state.services.sessions.kw["bind"]
        num_connections = bind.pool.checkedout()
        with sessions.begin() as session:
            JobRepository(session).request_cancel(job_id)
        states = {future.result().json()["state"] for future in waiting}

    assert seconds < 30
    assert (at_once, num_waiters) == (10, 20)  # no place for ten of them
    assert num_connections <= 4  # looks in progress, not one for each who waits
    assert states == {"queued", "cancelled"}
