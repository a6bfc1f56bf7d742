"""How fast does the API take a batch, how much memory does that cost, how fast is it polled?

    python benchmarks/bulk_batch.py        starts PostgreSQL, Redis and an API of its own
    python benchmarks/bulk_batch.py --api-url URL --api-key KEY --api-pid PID --media FOLDER

No worker runs beside its own API, so that the numbers are the API's. The items are the sample clips
under many names (hard links), as a library on disk would be.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

PROJECT = Path(__file__).resolve().parent.parent
OUT = PROJECT / "benchmarks" / "out" / "bulk_batch.json"
MIB = 2**20


@dataclass(frozen=True)
class Row:
    form: str
    items: int
    body_mib: float
    seconds: float
    items_per_second: float
    rss_before_mib: float
    rss_peak_mib: float
    rss_after_mib: float
    poll_ms: float
    health_ms_worst: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 100_000])
    parser.add_argument("--api-url")
    parser.add_argument("--api-key")
    parser.add_argument("--api-pid", type=int)
    parser.add_argument("--media", type=Path, help="a folder under the media roots of that API")
    arguments = parser.parse_args()
    if arguments.api_url:
        api = RunningApi(arguments.api_url, arguments.api_key, arguments.api_pid, arguments.media)
        rows = measure(api, arguments.sizes)
    else:
        with own_api() as api:
            rows = measure(api, arguments.sizes)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    print(f"wrote {OUT}")


@dataclass(frozen=True)
class RunningApi:
    url: str
    key: str
    pid: int
    media: Path


@contextmanager
def own_api() -> Iterator[RunningApi]:
    """Start the services and an API, all in a folder that is gone afterwards."""
    from embedded.servers import EmbeddedServices
    from store.api_keys import ApiKeyRepository
    from store.database import make_sessions, upgrade_schema

    folder = Path(tempfile.mkdtemp(prefix="clipbert-bench-"))
    folder.chmod(0o755)  # as root, PostgreSQL runs as another user
    try:
        with EmbeddedServices.start(folder / "data") as services:
            upgrade_schema(services.database_url)
            sessions = make_sessions(services.database_url)
            with sessions.begin() as session:
                key = ApiKeyRepository(session).create("benchmark")
            media = folder / "media"
            media.mkdir()
            port = _free_port()
            environment = {
                **os.environ,
                "STORE_DATABASE_URL": services.database_url,
                "STORE_BLOB_URL": (folder / "blobs").as_uri(),
                "STORE_MEDIA_ROOTS": str(media),
                "WORKER_REDIS_URL": services.redis_url,
                "API_PORT": str(port),
            }
            with (folder / "api.log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "api"], cwd=PROJECT, env=environment, stdout=log
                )
                try:
                    api = RunningApi(f"http://127.0.0.1:{port}", key, process.pid, media)
                    _wait_until_ready(api)
                    yield api
                finally:
                    process.terminate()
                    process.wait(timeout=30)
            sessions.kw["bind"].dispose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(api: RunningApi, sizes: list[int]) -> list[Row]:
    paths = link_samples(api.media, max(sizes))
    headers = {"Authorization": f"Bearer {api.key}"}
    rows = []
    with httpx.Client(base_url=api.url, headers=headers, timeout=600) as client:
        # The first request of a process pays for its imports and connections.
        client.post("/v1/batches", json={"items": []}).raise_for_status()
        columns = (
            "form     items   body MiB  seconds   items/s  RSS before  peak  after MiB  poll ms"
        )
        print(f"{columns}  worst /healthz ms meanwhile")
        for size in sizes:
            for form in ("json", "ndjson"):
                row = measure_one(client, api, paths[:size], form)
                rows.append(row)
                print(
                    f"{row.form:<7}{row.items:>7}{row.body_mib:>11.1f}{row.seconds:>9.2f}"
                    f"{row.items_per_second:>10.0f}{row.rss_before_mib:>12.0f}"
                    f"{row.rss_peak_mib:>6.0f}{row.rss_after_mib:>11.0f}{row.poll_ms:>9.1f}"
                    f"{row.health_ms_worst:>12.1f}"
                )
    return rows


def measure_one(client: httpx.Client, api: RunningApi, paths: list[str], form: str) -> Row:
    items = [{"uri": path} for path in paths]
    if form == "json":
        body = json.dumps({"name": "benchmark", "items": items}).encode()
        content_type = "application/json"
    else:
        body = "".join(json.dumps(item) + "\n" for item in items).encode()
        content_type = "application/x-ndjson"
    process = psutil.Process(api.pid)
    before = process.memory_info().rss
    with Watch(process, api.url) as watch:
        began = time.perf_counter()
        response = client.post("/v1/batches", content=body, headers={"Content-Type": content_type})
        seconds = time.perf_counter() - began
    response.raise_for_status()
    batch = response.json()
    if batch["total"] != len(paths):
        raise SystemExit(f"{len(paths)} items were sent, {batch['total']} are there")
    place = f"/v1/batches/{batch['id']}"
    poll_ms = min(_time_ms(lambda: client.get(place).raise_for_status()) for _ in range(5))
    return Row(
        form=form,
        items=len(paths),
        body_mib=round(len(body) / MIB, 2),
        seconds=round(seconds, 3),
        items_per_second=round(len(paths) / seconds, 1),
        rss_before_mib=round(before / MIB, 1),
        rss_peak_mib=round(watch.peak_bytes / MIB, 1),
        rss_after_mib=round(process.memory_info().rss / MIB, 1),
        poll_ms=round(poll_ms, 1),
        health_ms_worst=round(watch.worst_ms, 1),
    )


class Watch:
    """Looks at the API's memory, and asks whether it is well, while a batch is taken."""

    def __init__(self, process: psutil.Process, url: str) -> None:
        self._process, self._url = process, url
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch_memory),
            threading.Thread(target=self._watch_health),
        ]
        self.peak_bytes = 0
        self.worst_ms = 0.0

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _watch_memory(self) -> None:
        while not self._stop.wait(0.01):
            self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)

    def _watch_health(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stop.wait(0.05):
                self.worst_ms = max(self.worst_ms, _time_ms(lambda: client.get("/healthz")))


def link_samples(folder: Path, count: int) -> list[str]:
    """Give the sample clips `count` names."""
    samples = []
    for sample in sorted((PROJECT / "samples").iterdir()):
        if sample.suffix != ".md":
            samples.append(Path(shutil.copy2(sample, folder)))
    paths = []
    for i in range(count):
        sample = samples[i % len(samples)]
        place = folder / f"{i // 1000:03d}"
        if i % 1000 == 0:
            place.mkdir(exist_ok=True)
        path = place / f"{sample.stem}-{i:06d}{sample.suffix}"
        path.hardlink_to(sample)
        paths.append(str(path))
    return paths


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_until_ready(api: RunningApi) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{api.url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit("the API does not become ready")
        time.sleep(0.1)


def _time_ms(call: object) -> float:
    began = time.perf_counter()
    call()  # type: ignore[operator]
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
