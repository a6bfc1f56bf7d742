"""The whole service, as `clipbert up` runs it, and what the benchmark asks of it over HTTP."""

import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

_POLL_SECONDS = 2.0
_LINE_SECONDS = 20.0
_OVER = {"succeeded", "failed", "cancelled", "quarantined"}


@contextmanager
def running_service(data: Path, *, media: Path, model: Path) -> Iterator[httpx.Client]:
    """Start PostgreSQL, Redis, API and workers in a data folder; stop them in the end."""
    clipbert = shutil.which("clipbert", path=str(Path(sys.executable).parent))
    if clipbert is None:
        raise SystemExit("the project is not installed beside this python: make setup")
    up = [clipbert, "up", "--data", data, "--port", "0", "--media-root", media, "--model", model]
    subprocess.run([*up, "--background"], check=True)
    try:
        client = json.loads((data / "client.json").read_text())
        headers = {"Authorization": f"Bearer {client['api_key']}"}
        with httpx.Client(base_url=client["api_url"], headers=headers, timeout=600) as api:
            yield api
    finally:
        subprocess.run([clipbert, "down", "--data", data], check=True)


def index(api: httpx.Client, paths: Sequence[Path]) -> float:
    """Index files in one batch; give the seconds that it took. All must succeed."""
    begun = time.monotonic()
    lines = "".join(json.dumps({"uri": path.as_uri()}) + "\n" for path in paths)
    headers = {"Content-Type": "application/x-ndjson"}
    batch = _json(api.post("/v1/batches", content=lines, headers=headers))
    told_at = begun
    while True:
        polled = _json(api.get(f"/v1/batches/{batch['id']}"))
        if polled["done"] == polled["total"] or time.monotonic() - told_at > _LINE_SECONDS:
            told_at = time.monotonic()
            print(f"indexing: {polled['counts']}, eta {polled['eta_seconds']} s", flush=True)
        if polled["done"] == polled["total"]:
            break
        time.sleep(_POLL_SECONDS)
    if polled["counts"]["succeeded"] != len(paths):
        raise SystemExit(f"not all files were indexed: {polled['counts']}")
    return time.monotonic() - begun


def import_labels(api: httpx.Client, labels: Sequence[Mapping[str, str]]) -> float:
    """Import labels; give the seconds that it took. None may be refused."""
    begun = time.monotonic()
    lines = "".join(json.dumps(label) + "\n" for label in labels)
    headers = {"Content-Type": "application/x-ndjson"}
    told = _json(api.post("/v1/labels", content=lines, headers=headers))
    print(f"labels: {told['num_inserted']} new, {told['num_unchanged']} known", flush=True)
    return time.monotonic() - begun


@dataclass(frozen=True)
class Finetuned:
    """A finetune that is over, not always well.

    Attributes:
        resource: as the API gives it.
        stage_seconds: how long each stage took, by what polling saw.
    """

    resource: Mapping[str, Any]
    stage_seconds: Mapping[str, float]


def finetune(api: httpx.Client, body: Mapping[str, Any]) -> Finetuned:
    """Finetune, and wait until it is over."""
    resource = _json(api.post("/v1/finetunes", json=body))
    seconds: defaultdict[str, float] = defaultdict(float)
    polled_at = told_at = time.monotonic()
    told = None
    while resource["state"] not in _OVER:
        time.sleep(_POLL_SECONDS)
        stage = resource["stage"] or resource["state"]
        seconds[stage] += time.monotonic() - polled_at
        polled_at = time.monotonic()
        resource = _json(api.get(f"/v1/finetunes/{resource['id']}"))
        if resource["stage"] != told or polled_at - told_at > _LINE_SECONDS:
            told_at, told = polled_at, resource["stage"]
            print(_describe(resource), flush=True)
    return Finetuned(resource, {stage: round(each, 1) for stage, each in seconds.items()})


def _describe(finetune: Mapping[str, Any]) -> str:
    progress = finetune["progress"]
    return (
        f"finetune: {finetune['state']}, {finetune['stage']}, step {progress['done']} of "
        f"{progress['total']}, loss {finetune['loss']}, {finetune['seconds_left']} s left"
    )


def _json(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        raise SystemExit(f"{response.request.method} {response.request.url}: {response.text}")
    answer: dict[str, Any] = response.json()
    return answer
