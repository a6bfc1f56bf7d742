"""`clipbert up` and what people do with it, as real processes: nothing here is simulated."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import passable_folder
from PIL import Image

from clipbert.checkpoints.mini.build import build_mini

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "samples"
STOP_SECONDS = 90


@dataclass(frozen=True)
class Place:
    """A data folder and the folder that commands are typed in."""

    data: Path
    home: Path
    model: Path

    def run(self, *arguments, code=0, timeout=120):
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CLIPBERT_", "STORE_", "WORKER_", "API_"))
        }
        result = subprocess.run(
            [sys.executable, "-m", "cli.main", *map(str, arguments), "--data", str(self.data)],
            cwd=self.home,
            env={**environment, "HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in result.stderr + result.stdout
        assert result.returncode == code, result.stderr + result.stdout
        return result

    def up(self, *options, code=0):
        return self.run(
            *("up", "--background", "--port", 0, "--media-root", SAMPLES, "--device", "cpu"),
            *("--model", self.model, *options),
            code=code,
            timeout=300,
        )

    def json(self, *arguments, code=0):
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    @property
    def running(self):
        return json.loads((self.data / "up.json").read_text())

    def processes(self):
        """Everything that `up` started, by its process tree."""
        return psutil.Process(self.running["pid"]).children(recursive=True)


@pytest.fixture(scope="module")
def model():
    return build_mini(ROOT / ".cache" / "clipbert-mini")


@pytest.fixture(scope="module")
def place(model):
    """A service that runs for all tests of this file, with three clips indexed."""
    with passable_folder() as folder:
        home = folder / "home"
        home.mkdir()
        # A module that Python would take for ours, if the processes ran in the user's folder.
        (home / "api.py").write_text("raise SystemExit('the wrong api')\n")
        place = Place(data=folder / "data", home=home, model=model)
        place.up()
        try:
            place.run(
                *("index", SAMPLES / "cockatoo.mp4", SAMPLES / "samoyed.mp4"),
                *(SAMPLES / "potted_plant.mp4", "--wait", "--name", "pets"),
            )
            yield place
        finally:
            place.run("down")


def wait_until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_up_tells_the_address_and_keeps_the_key_private(place):
    client = place.data / "client.json"

    assert json.loads(client.read_text())["api_url"] == place.running["api_url"]
    for name in ("client.json", "up.json", "up.lock"):
        assert stat.S_IMODE((place.data / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((place.data / "blobs").stat().st_mode) == 0o700
    log = (place.data / "up.log").read_text()
    assert "ClipBERT is ready" in log
    assert json.loads(client.read_text())["api_key"] not in log


def test_a_second_up_says_where_the_first_one_is(place):
    result = place.up()

    assert f"already running on {place.data} at {place.running['api_url']}" in result.stdout


def test_search_finds_the_right_clip_first_and_draws_it(place, tmp_path):
    sheet = tmp_path / "hits.png"

    found = place.json("search", "a white parrot", "--sheet", sheet)

    hits = found["result"]["hits"]
    assert hits[0]["uri"].endswith("/cockatoo.mp4")
    with Image.open(sheet) as image:
        assert image.format == "PNG"
        frame = image.crop((16, 72, 336, 252))  # the first hit's frame: real footage, many colours
        assert len(frame.getcolors(maxcolors=100_000)) > 1000


def test_search_prints_a_table_with_times_and_stages(place):
    lines = place.run("search", "a plant in a pot", "--limit", 2).stdout.splitlines()

    assert lines[0].split() == ["rank", "score", "video", "moment", "id"]
    assert lines[1].split()[2] == "potted_plant.mp4"
    assert len(lines) == 4
    assert " ms, recall, clipbert-mini" in lines[3]


def test_ask_ranks_the_choices_for_a_video_named_by_a_part(place):
    result = place.run(
        *("ask", "samo", "What animal is it?"),
        *("--choice", "a dog lying on the floor", "--choice", "a parrot"),
    )

    assert "1  a dog lying on the floor" in result.stdout
    assert "zero-shot" in result.stdout
    assert "seen in 0:0" in result.stdout


def test_ask_without_choices_says_why_there_is_no_answer(place):
    result = place.run("ask", "samoyed", "What is it?", code=1)

    assert "(no_qa_model)" in result.stderr


def test_ask_about_a_name_that_several_or_none_have(place):
    several = place.run("ask", ".mp4", "What?", "--choice", "a", "--choice", "b", code=1)
    none = place.run("ask", "giraffe", "What?", "--choice", "a", "--choice", "b", code=1)

    assert "3 videos are named like '.mp4'" in several.stderr
    assert "no video named like 'giraffe'" in none.stderr


def test_bad_files_fail_alone_each_with_its_code_and_files_elsewhere_are_uploaded(place):
    elsewhere = place.home / "videos"
    elsewhere.mkdir()
    (elsewhere / "text.mp4").write_text("this is not a video")
    (elsewhere / "empty.mp4").touch()
    (elsewhere / "good.mp4").write_bytes((SAMPLES / "bicycle.avi").read_bytes())

    result = place.run("index", elsewhere, SAMPLES / "coin_and_pen.mov", "--wait", code=1)

    assert "uploading 3 of 3: text.mp4" in result.stderr
    assert "4 files, 3 of them to upload" in result.stdout
    assert "2 indexed, 2 failed" in result.stdout
    rows = {
        line.split()[0]: line.split()[1] for line in result.stdout.splitlines() if ".mp4" in line
    }
    assert rows == {"text.mp4": "unsupported_media", "empty.mp4": "empty_file"}


def test_index_answers_in_json_with_the_failed_items(place):
    broken = place.home / "broken.mkv"
    broken.write_text("no video either")

    answer = place.json("index", broken, "--wait", code=1)

    assert answer["counts"]["failed"] == 1
    assert [item["error"]["code"] for item in answer["failed_items"]] == ["unsupported_media"]


def test_jobs_and_batches_and_videos_and_models_are_listed_and_shown(place):
    jobs = place.json("jobs", "list", "--kind", "embed", "--state", "succeeded")
    batches = place.json("batches", "list")
    models = place.json("models", "list")

    assert place.json("jobs", "show", jobs[0]["id"])["kind"] == "embed"
    assert batches[-1]["name"] == "pets"
    assert place.json("batches", "show", batches[-1]["id"])["counts"]["succeeded"] == 3
    assert "cockatoo.mp4" in place.run("videos", "list").stdout
    assert len(place.json("videos", "show", "cockatoo")["clips"]) >= 4
    assert models[0]["name"] == "clipbert-mini"
    assert "recall" in models[0]["serves"]
    for noun in ("jobs", "batches", "models"):
        assert len(place.run(noun, "list").stdout.splitlines()) > 1


def test_what_jobs_refuse_is_one_line(place):
    done = place.json("jobs", "list", "--state", "succeeded", "--limit", "1")[0]["id"]

    refused = place.run("jobs", "cancel", done, code=1)
    unknown = place.run("jobs", "show", "0198c0de-7a11-7c3e-9f5a-4b1d3f0e2a61", code=1)

    assert "(illegal_state)" in refused.stderr
    assert "(job_not_found)" in unknown.stderr


def test_a_failed_job_can_be_retried(place):
    text = place.home / "retry.mp4"
    text.write_text("no video")
    place.run("index", text, "--wait", code=1)
    failed = place.json("jobs", "list", "--kind", "ingest", "--state", "failed", "--limit", "1")[0]

    result = place.run("jobs", "retry", failed["id"])

    assert f"job {failed['id']} is queued" in result.stdout


def test_a_deleted_video_is_gone(place):
    extra = place.home / "extra.avi"
    extra.write_bytes((SAMPLES / "grand_prix_1906.ogv").read_bytes())
    place.run("index", extra, "--wait")

    refused = place.run("videos", "delete", "extra", code=1)
    assert "'extra' may mean extra.avi" in refused.stderr
    place.run("videos", "delete", "extra.avi")

    assert "no video named" in place.run("videos", "show", "extra.avi", code=1).stderr


def test_keys_made_locally_open_the_api(place):
    key = place.run("keys", "create", "a colleague").stdout.strip()

    result = subprocess.run(
        [sys.executable, "-m", "cli.main", "jobs", "list"],
        cwd=place.home,
        env={**os.environ, "CLIPBERT_API_URL": place.running["api_url"], "CLIPBERT_API_KEY": key},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr


def test_doctor_finds_nothing_wrong(place):
    result = place.run("doctor")

    assert "PROBLEM" not in result.stdout
    assert "workers answer: finetune, ingest, interactive, maintenance" in result.stdout


def test_a_worker_that_is_killed_is_started_again(place):
    def worker():
        for process in psutil.Process(place.running["pid"]).children():
            if is_alive(process) and "maintenance" in process.cmdline():
                return process.pid
        return None

    first = worker()
    os.kill(first, signal.SIGKILL)

    wait_until(lambda: worker() not in (None, first))
    log = (place.data / "up.log").read_text()
    assert re.search(r"\bmaint +\*\*\* ended by signal SIGKILL; starting again", log)


def test_servers_that_are_killed_are_started_again(place):
    servers = servers_of(place.data)
    for server in servers:
        os.kill(server.pid, signal.SIGKILL)

    log = place.data / "up.log"
    for name in ("Redis", "PostgreSQL"):
        wait_until(lambda name=name: f"{name} had died; it runs again" in log.read_text())

    names = {video["filename"] for video in place.json("videos", "list")}
    assert {"cockatoo.mp4", "samoyed.mp4", "potted_plant.mp4"} <= names
    assert place.json("search", "a white parrot")["result"]["hits"]


def test_down_stops_every_process_in_time_and_up_finds_the_library_again(place):
    processes = [*place.processes(), *servers_of(place.data)]
    started_at = time.monotonic()

    place.run("down")

    assert time.monotonic() - started_at < STOP_SECONDS
    assert [process for process in processes if is_alive(process)] == []
    assert not (place.data / "up.json").exists()
    key = (place.data / "client.json").read_text().split("cb_")[1]
    place.up()
    assert (place.data / "client.json").read_text().split("cb_")[1] == key
    names = {video["filename"] for video in place.json("videos", "list")}
    assert {"cockatoo.mp4", "samoyed.mp4", "potted_plant.mp4"} <= names


def test_an_up_that_is_killed_takes_its_processes_with_it_and_down_stops_the_servers(place):
    processes, servers = place.processes(), servers_of(place.data)
    assert len(servers) >= 2

    os.kill(place.running["pid"], signal.SIGKILL)

    wait_until(lambda: not any(is_alive(process) for process in processes))
    said = place.run("down").stdout
    assert "was killed; its PostgreSQL and Redis are stopped now" in said
    wait_until(lambda: not any(is_alive(server) for server in servers))
    assert "nothing is running" in place.run("down").stdout


def test_a_port_that_is_taken_is_said_before_anything_starts(place, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = Place(data=tmp_path / "data", home=place.home, model=place.model)

        result = other.run("up", "--port", port, code=1)

    assert f"port {port} on 127.0.0.1 is taken" in result.stderr
    assert not (tmp_path / "data" / "services").exists()


def test_a_gpu_that_is_not_there_is_said_before_anything_starts(place, tmp_path):
    other = Place(data=tmp_path / "data", home=place.home, model=place.model)

    result = other.run("up", "--port", 0, "--device", "cuda:99", code=1)

    assert re.search(r"--device cuda:99: torch sees \d+ GPUs here", result.stderr)
    assert not (tmp_path / "data").exists()


def servers_of(data):
    """The embedded servers, which are daemons and so no children of `up`."""
    state = json.loads((data / "services" / "state.json").read_text())
    port = str(state["redis_port"])
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (
            str(data) in " ".join(process.info["cmdline"] or ())
            and "postgres" in " ".join(process.info["cmdline"])
        )
        or (
            "redis-server" in " ".join(process.info["cmdline"] or ())
            and f":{port}" in " ".join(process.info["cmdline"])
        )
    ]


def is_alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
