"""How long does the whole service take for a batch of many paths with few contents?

    python benchmarks/bulk_index.py [--items 2000]

Starts `clipbert up` in a folder of its own, sends the sample clips under many names (hard links) in
one request and polls until all is done. Identical content must be computed once: the table counts
the videos and the embed jobs. Needs the default model in .cache/clipbert-mini (make setup).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

PROJECT = Path(__file__).resolve().parent.parent
OUT = PROJECT / "benchmarks" / "out" / "bulk_index.json"
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=2000)
    arguments = parser.parse_args()
    clipbert = shutil.which("clipbert", path=str(Path(sys.executable).parent))
    if clipbert is None:
        raise SystemExit("the project is not installed beside this python: make setup")
    with tempfile.TemporaryDirectory(prefix="clipbert-bulk-") as folder:
        data, media = Path(folder) / "data", Path(folder) / "media"
        paths = link_samples(media, arguments.items)
        model = PROJECT / ".cache" / "clipbert-mini"
        up = [clipbert, "up", "--data", data, "--port", "0", "--media-root", media]
        subprocess.run([*up, "--model", model, "--background"], check=True)
        try:
            row = measure(data, paths)
        finally:
            subprocess.run([clipbert, "down", "--data", data], check=True)
    print(json.dumps(row, indent=2))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(row, indent=2) + "\n")


def link_samples(media: Path, count: int) -> list[Path]:
    """Give the sample clips many names, as a library on disk would have."""
    media.mkdir()
    samples = [path for path in sorted((PROJECT / "samples").iterdir()) if path.suffix != ".md"]
    paths = []
    for index in range(count):
        sample = samples[index % len(samples)]
        paths.append(media / f"{index:06}{sample.suffix}")
        try:
            os.link(sample, paths[-1])
        except OSError:  # another file system
            shutil.copyfile(sample, paths[-1])
    return paths


def measure(data: Path, paths: list[Path]) -> dict[str, float | int | dict[str, int]]:
    client = json.loads((data / "client.json").read_text())
    headers = {"Authorization": f"Bearer {client['api_key']}"}
    with httpx.Client(base_url=client["api_url"], headers=headers, timeout=120) as api:
        process = api_process(client["api_url"])
        rss_before = rss_peak = process.memory_info().rss
        body = {"items": [{"uri": path.as_uri()} for path in paths]}
        begun = time.perf_counter()
        batch = api.post("/v1/batches", json=body).raise_for_status().json()
        accepted = time.perf_counter() - begun
        while True:
            polled = api.get(f"/v1/batches/{batch['id']}").raise_for_status().json()
            rss_peak = max(rss_peak, process.memory_info().rss)
            seconds = time.perf_counter() - begun
            print(f"{seconds:6.1f} s  {polled['counts']}  eta {polled['eta_seconds']}", flush=True)
            if polled["done"] == polled["total"]:
                break
            time.sleep(2)
        videos = api.get("/v1/videos", params={"page_size": 500}).json()["items"]
        embeds = api.get("/v1/jobs", params={"kind": "embed", "page_size": 500}).json()["items"]
        return {
            "items": len(paths),
            "accepted_seconds": round(accepted, 2),
            "done_seconds": round(seconds, 1),
            "items_per_second": round(len(paths) / seconds, 1),
            "counts": polled["counts"],
            "videos": len(videos),
            "embed_jobs": len(embeds),
            "api_rss_before_mib": round(rss_before / MIB),
            "api_rss_peak_mib": round(rss_peak / MIB),
        }


def api_process(url: str) -> psutil.Process:
    """Find the process that listens on the API's port."""
    port = int(url.rpartition(":")[2])
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            return psutil.Process(connection.pid)
    raise LookupError(f"nothing listens on port {port}")


if __name__ == "__main__":
    main()
