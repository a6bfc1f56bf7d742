"""What becomes of other people's loads: a bulk, a long film, an exhaustive search, people, kills.

    python benchmarks/load.py [--files 3000] [--kills 3]

Starts `clipbert up` in a folder of its own with clipbert-mini and an untrained retrieval head, and
does at once: 3,000 small files in one batch, a film of 10 hours with a keyframe every 10 s, an
exhaustive search, two questions a second, one upload in the middle, and a SIGKILL of the model
worker each minute. Nothing may fail or be quarantined; the bulk need not be done at the end. Prints
how long people waited, and how long a returned job lay before somebody took it again.
"""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import psycopg

PROJECT = Path(__file__).resolve().parent.parent
OUT = PROJECT / "benchmarks" / "out" / "load.json"
MINI = PROJECT / ".cache" / "clipbert-mini"
FILM_HOURS, KEYFRAME_SECONDS = 10, 10
QUESTION_SECONDS, KILL_SECONDS = 0.5, 60.0
CHOICES = ["a dog", "a parrot", "a horse"]
OVER = {"succeeded", "failed", "cancelled", "quarantined"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipbert-load-") as folder:
        root = Path(folder)
        root.chmod(0o755)  # as root the database runs as another user
        media = root / "media"
        media.mkdir()
        print("writing the film and the small files", flush=True)
        film = write_film(media / "film.mp4")
        small = write_small_files(media / "bulk", arguments.files)
        model = write_model(root / "model")
        with running(root / "data", media=media, model=model) as service:
            row = Load(service, film, small, num_kills=arguments.kills).run()
    print(json.dumps(row, indent=2))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(row, indent=2) + "\n")
    if row["failed"] or row["quarantined"] or row["question_errors"]:
        raise SystemExit("something sound failed under load")


def write_film(path: Path) -> Path:
    """Write 10 hours at one frame a second; only every tenth can be decoded alone."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.codec_context.gop_size = KEYFRAME_SECONDS
        for second in range(FILM_HOURS * 3600):
            shade = np.full((96, 160, 3), second % 200, dtype=np.uint8)
            shade[:, : second % 160] = (255 - second % 200, 40, 90)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_small_files(folder: Path, count: int) -> list[Path]:
    """Write videos of two seconds whose contents all differ, by a box that players pass over."""
    import av
    import numpy as np

    folder.mkdir()
    generator = np.random.default_rng(0)
    kinds = []
    for kind in range(20):
        path = folder / f"kind-{kind}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            colour = generator.integers(0, 256, 3, dtype=np.uint8)
            for number in range(20):
                picture = np.full((96, 128, 3), colour, dtype=np.uint8)
                picture[:, number * 6 : number * 6 + 6] = 255
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        kinds.append(path.read_bytes())
        path.unlink()
    paths = [folder / f"{index:06}.mp4" for index in range(count)]
    for index, path in enumerate(paths):
        note = f"{index:012}".encode()
        box = (len(note) + 8).to_bytes(4) + b"free" + note
        path.write_bytes(kinds[index % len(kinds)] + box)
    return paths


def write_model(folder: Path) -> Path:
    """Give clipbert-mini a retrieval head, untrained: its scores mean nothing, its work is real."""
    from clipbert.inference.clipbert import ClipBert
    from clipbert.model.config import HeadConfig
    from clipbert.model.network import Network

    mini = ClipBert.from_pretrained(MINI)
    config = dataclasses.replace(
        mini.config, heads=(HeadConfig("retrieval", 2),), trained_heads=("retrieval",)
    )
    network = Network.create(config, seed=0)
    network.load_state_dict(mini.network.state_dict() | network.heads.state_dict(prefix="heads."))
    ClipBert(network, mini.tokenizer).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Service:
    """A running `clipbert up`."""

    api: httpx.Client
    database_url: str
    supervisor: psutil.Process

    def model_workers(self) -> list[psutil.Process]:
        """Find the parent process of the worker that has the model; its child dies with it."""
        return [
            process
            for process in self.supervisor.children(recursive=True)
            if "interactive,embed" in process.cmdline() and process.ppid() == self.supervisor.pid
        ]


@contextmanager
def running(data: Path, *, media: Path, model: Path) -> Iterator[Service]:
    clipbert = shutil.which("clipbert", path=str(Path(sys.executable).parent))
    if clipbert is None:
        raise SystemExit("the project is not installed beside this python: make setup")
    up = [clipbert, "up", "--data", data, "--port", "0", "--media-root", media, "--model", model]
    subprocess.run([*up, "--background"], check=True)
    try:
        from embedded.running_up import read_running

        told = read_running(data)
        if told is None:
            raise SystemExit("`clipbert up` did not say where it runs")
        client = json.loads((data / "client.json").read_text())
        headers = {"Authorization": f"Bearer {client['api_key']}"}
        url = told.environment["STORE_DATABASE_URL"].replace("postgresql+psycopg", "postgresql")
        with httpx.Client(base_url=client["api_url"], headers=headers, timeout=120) as api:
            yield Service(api, url, psutil.Process(told.pid))
    finally:
        subprocess.run([clipbert, "down", "--data", data], check=True)


@dataclass
class Load:
    """Everything at once, and what was seen of it."""

    service: Service
    film: Path
    small: list[Path]
    num_kills: int
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> dict[str, object]:
        begun = time.monotonic()
        # Something to ask about, and to search through exhaustively.
        first = self.index_and_wait(self.small[:40])
        print(f"40 files are there after {time.monotonic() - begun:.0f} s", flush=True)
        film = self.send({"uri": self.film.as_uri()})
        bulk = self.batch(self.small[40:])
        asking = [threading.Thread(target=self.ask, args=(first, offset)) for offset in range(2)]
        for thread in asking:
            thread.start()
        searched = threading.Thread(target=self.search)
        searched.start()
        kills, upload_seconds = [], 0.0
        loaded_at = time.monotonic()
        for kill in range(self.num_kills):
            until = loaded_at + (kill + 1) * KILL_SECONDS
            if kill == self.num_kills // 2:
                time.sleep(max(0.0, until - 45 - time.monotonic()))
                upload_seconds = self.upload()
            time.sleep(max(0.0, until - time.monotonic()))
            kills.append(self.kill())
        time.sleep(KILL_SECONDS)
        seconds = time.monotonic() - loaded_at
        self.over.set()
        for thread in (*asking, searched):
            thread.join()
        return self.tell(bulk, film, kills, upload_seconds, seconds)

    def index_and_wait(self, paths: list[Path]) -> list[str]:
        batch = self.batch(paths)
        while self.get(f"/v1/batches/{batch}")["done"] < len(paths):
            time.sleep(0.5)
        ready: list[str] = []
        while len(ready) < len(paths):
            page = self.get("/v1/videos", state="ready", page_size=100)["items"]
            ready = [video["id"] for video in page]
            time.sleep(0.5)
        return ready

    def ask(self, videos: list[str], offset: int) -> None:
        """Put a question every second, the other thread those in between."""
        number, next_at = offset, time.monotonic() + offset * QUESTION_SECONDS
        while not self.over.is_set():
            time.sleep(max(0.0, next_at - time.monotonic()))
            next_at += 2 * QUESTION_SECONDS
            number += 2
            threading.Thread(target=self.ask_once, args=(videos[number % len(videos)],)).start()

    def ask_once(self, video: str) -> None:
        body = {"video_id": video, "text": "What animal is it?", "choices": CHOICES}
        begun = time.monotonic()
        try:
            asked = self.post("/v1/questions", body, wait=60)
            while asked["state"] not in OVER:
                asked = self.get(f"/v1/questions/{asked['id']}", wait=60)
        except httpx.HTTPError as error:
            self.errors.append(repr(error))
            return
        if asked["state"] != "succeeded":
            self.errors.append(json.dumps(asked))
        self.latencies.append(time.monotonic() - begun)

    def search(self) -> None:
        """Search exhaustively again and again, so that there is always one at work."""
        self.searches: Counter[str] = Counter()
        self.search_seconds: list[float] = []
        while not self.over.is_set():
            begun = time.monotonic()
            found = self.post("/v1/searches", {"text": "a red ball", "mode": "exhaustive"}, wait=60)
            while found["state"] not in OVER:
                found = self.get(f"/v1/searches/{found['id']}", wait=60)
            self.searches[found["state"]] += 1
            self.search_seconds.append(time.monotonic() - begun)

    def upload(self) -> float:
        """Send one file as a person does; return the seconds until it can be searched."""
        begun = time.monotonic()
        sample = PROJECT / "samples" / "cockatoo.mp4"
        with sample.open("rb") as file:
            answer = self.service.api.post("/v1/videos", files={"file": (sample.name, file)})
        job = answer.raise_for_status().json()["id"]
        while (done := self.get(f"/v1/jobs/{job}", wait=30))["state"] not in OVER:
            pass
        if done["state"] != "succeeded":
            raise SystemExit(f"the upload failed: {done}")
        video = done["result"]["video_id"]
        while self.get(f"/v1/videos/{video}")["state"] != "ready":
            time.sleep(0.1)
        seconds = time.monotonic() - begun
        print(f"the upload was searchable after {seconds:.1f} s", flush=True)
        return seconds

    def kill(self) -> float:
        workers = self.service.model_workers()
        for process in workers:
            os.kill(process.pid, signal.SIGKILL)
        print(f"killed the model worker {[process.pid for process in workers]}", flush=True)
        if not workers:
            raise SystemExit("there was no model worker to kill")
        return time.time()

    def tell(
        self, bulk: str, film: str, kills: list[float], upload_seconds: float, seconds: float
    ) -> dict[str, object]:
        counts = self.get(f"/v1/batches/{bulk}")["counts"]
        film_job = self.get(f"/v1/jobs/{film}")
        with psycopg.connect(self.service.database_url) as connection:
            states = dict(
                connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
            )
            losses = connection.execute(LOSSES).fetchall()
        lag = [float(row[1]) for row in losses if row[1] is not None]
        return {
            "seconds": round(seconds),
            "bulk": counts,
            "film_ingest": film_job["state"],
            "failed": states.get("failed", 0),
            "quarantined": states.get("quarantined", 0),
            "upload_searchable_seconds": round(upload_seconds, 1),
            "questions": len(self.latencies),
            "question_errors": len(self.errors),
            "first_errors": self.errors[:3],
            "question_median_seconds": round(statistics.median(self.latencies), 2),
            "question_slowest_seconds": round(max(self.latencies), 2),
            "exhaustive_searches": dict(self.searches),
            "exhaustive_slowest_seconds": round(max(self.search_seconds), 1),
            "kills": len(kills),
            "jobs_lost": len(losses),
            "longest_return_to_claim_seconds": round(max(lag, default=0.0), 2),
            "returned_and_not_claimed": sum(row[1] is None for row in losses),
        }

    def send(self, body: dict[str, object]) -> str:
        return str(self.post("/v1/videos", body)["id"])

    def batch(self, paths: list[Path]) -> str:
        return str(self.post("/v1/batches", {"items": [{"uri": p.as_uri()} for p in paths]})["id"])

    def post(self, path: str, body: dict[str, object], **params: object) -> dict:
        return self.service.api.post(path, json=body, params=params).raise_for_status().json()

    def get(self, path: str, **params: object) -> dict:
        return self.service.api.get(path, params=params).raise_for_status().json()


# Each return after a loss, with the seconds until somebody took the job again.
LOSSES = """
SELECT lost.job_id, extract(epoch FROM (
    SELECT min(claimed.created_at) FROM job_events AS claimed
    WHERE claimed.job_id = lost.job_id AND claimed.seq > lost.seq AND claimed.type = 'claimed'
) - lost.created_at)
FROM job_events AS lost WHERE lost.type = 'lost'
"""


if __name__ == "__main__":
    main()
