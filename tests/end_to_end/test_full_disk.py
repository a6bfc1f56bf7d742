"""A disk that becomes full below a whole service, and has room again: a real one, of 400 MB."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from conftest import can_mount, passable_folder

from tests.workers.small_models import save_recall_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # half a minute on an idle machine

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples"
BATCH = ("samoyed.mp4", "potted_plant.mp4", "squirrel.mp4")
MIB = 2**20


class SmallDisk:
    """`clipbert up` with its data folder on a disk of its own, which nobody else sees."""

    def __init__(self, folder, model):
        data = folder / "data"
        data.mkdir()
        up = [sys.executable, "-m", "cli.main", "up", "--data", str(data), "--port", "0"]
        up += ["--device", "cpu", "--ingest-workers", "1", "--model", str(model)]
        up += ["--media-root", str(SAMPLES), "--log-file", str(data / "up.log")]
        mounted = f"mount -t tmpfs -o size=400m,mode=0755 tmpfs {data} && exec {' '.join(up)}"
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CLIPBERT_", "STORE_", "WORKER_", "API_"))
        }
        self.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f"{mounted} >> {data}/up.log 2>&1"],
            env={**environment, "HOME": str(folder), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
        )
        # The way into its mount namespace.
        self.data = Path(f"/proc/{self.process.pid}/root{data}")

    def log(self):
        return (self.data / "up.log").read_text()

    def wait_until_ready(self):
        wait_until(lambda: self.running().get("ready"), seconds=120, why=self.log)
        client = json.loads((self.data / "client.json").read_text())
        return httpx.Client(
            base_url=client["api_url"],
            headers={"Authorization": f"Bearer {client['api_key']}"},
            timeout=20,
        )

    def running(self):
        assert self.process.poll() is None, "up has ended"
        try:
            return json.loads((self.data / "up.json").read_text())
        except (OSError, ValueError):
            return {}

    def fill(self):
        """Write until nothing more goes in, as somebody else's file would."""
        with (self.data / "ballast").open("ab", buffering=0) as ballast:
            for size in (MIB, 4096, 1):
                try:
                    while ballast.write(b"x" * size):
                        pass
                except OSError:
                    continue

    def free_bytes(self):
        return shutil.disk_usage(self.data).free

    def servers(self):
        """The postmaster and the Redis."""
        pid_file = self.data / "services" / "postgres" / "cluster" / "postmaster.pid"
        redis = self.data / "services" / "redis" / "redis.pid"
        return [int(file.read_text().split()[0]) for file in (pid_file, redis)]


def wait_until(condition, *, seconds=150, why=lambda: ""):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)


@pytest.fixture
def small(tmp_path):
    if not can_mount():
        pytest.skip("this machine does not let us mount a small disk (unshare --mount)")
    with passable_folder() as folder:
        disk = SmallDisk(folder, save_recall_model(tmp_path / "model"))
        try:
            with disk.wait_until_ready() as client:
                yield disk, client
        finally:
            disk.process.terminate()
            disk.process.wait(timeout=120)


def test_a_service_outlives_a_full_disk_and_goes_on_by_itself_with_nothing_lost(small):
    disk, client = small
    client.post("/v1/videos", json={"uri": str(SAMPLES / "cockatoo.mp4")})
    wait_until(lambda: states(client, "embed") == ["succeeded"], why=disk.log)
    video_id = client.get("/v1/videos").json()["items"][0]["id"]
    search = client.post("/v1/searches?wait=20", json={"text": "a parrot"}).json()
    assert search["result"]["hits"]
    items = [{"uri": str(SAMPLES / name)} for name in BATCH]
    batch = client.post("/v1/batches", json={"items": items}).json()

    disk.fill()

    wait_until(lambda: client.get("/readyz").json().get("state") == "read_only", why=disk.log)
    assert client.get("/readyz").status_code == 200
    for path, body in (("searches", {"text": "a dog"}), ("batches", {"items": items})):
        refused = client.post(f"/v1/{path}", json=body)
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
    read = client.get(f"/v1/searches/{search['id']}")
    assert read.json()["result"] == search["result"]
    assert client.delete(f"/v1/videos/{video_id}").status_code == 204

    # Whoever fills the disk takes the room too that was kept back, and then the servers end.
    disk.fill()
    for pid in disk.servers():
        os.kill(pid, signal.SIGKILL)
    disk.fill()
    time.sleep(5)
    assert disk.process.poll() is None
    assert disk.free_bytes() < 64 * MIB

    (disk.data / "ballast").unlink()

    wait_until(lambda: client.get("/readyz").json().get("state") == "read_write", why=disk.log)
    wait_until(lambda: count(client, batch["id"], "succeeded") == len(BATCH), why=disk.log)
    wait_until(lambda: states(client, "embed") == ["succeeded"] * 4, why=disk.log)
    again = client.post("/v1/searches?wait=20", json={"text": "a dog"}).json()
    names = {video["filename"] for video in client.get("/v1/videos").json()["items"]}
    assert again["result"]["hits"]
    assert names == set(BATCH)
    wait_until(lambda: set(states(client)) == {"succeeded"}, why=disk.log)
    assert "there is room again" in disk.log()


def states(client, kind=None):
    query = "" if kind is None else f"?kind={kind}"
    return [job["state"] for job in client.get(f"/v1/jobs{query}").json().get("items", [])]


def count(client, batch_id, state):
    return client.get(f"/v1/batches/{batch_id}").json().get("counts", {}).get(state, 0)
