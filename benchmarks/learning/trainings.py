"""Run the product's trainer in a process of its own, and say how long it took."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from clipbert.training.recipe import Recipe

PROJECT = Path(__file__).resolve().parents[2]
_TIME_FILE = "benchmark_seconds.json"


@dataclass(frozen=True)
class Training:
    """A training that was done.

    Attributes:
        folder: of the model.
        seconds: that it took on the clock, all parts together if it was interrupted.
        cpu_seconds: of all cores; where they are shared with others, this tells more.
    """

    folder: Path
    seconds: float
    cpu_seconds: float


def run_training(
    name: str, recipe: Recipe, *, base: Path, tokens: Path, data: Path, out: Path
) -> Training:
    """Train from stored tokens; one that is done already is not done again.

    Args:
        name: shown while it runs.
        recipe: with a frozen visual side.
        base: model folder to start from.
        tokens: token folder.
        data: labels file with splits.
        out: folder of the run; of the same recipe if it is there.
    """
    spent = out / _TIME_FILE
    if spent.is_file():
        return Training(out, **json.loads(spent.read_text()))
    out.parent.mkdir(parents=True, exist_ok=True)
    recipe_path = out.parent / f"{out.name}.toml"
    recipe_path.write_text(recipe.to_toml(), encoding="utf-8")
    command = [sys.executable, "-m", "clipbert.training", str(recipe_path), "--resume"]
    # It ends with this process, however that ends.
    command += ["--supervised", "--data", str(data), "--split", "train", "--tokens", str(tokens)]
    command += ["--model", str(base), "--out", str(out)]
    begun, cpu_before = time.monotonic(), os.times()
    with (out.parent / f"{out.name}.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                time.sleep(1)
                _show(name, out / "progress.json", time.monotonic() - begun)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
    print()
    if process.returncode != 0:
        raise SystemExit(f"training {name} failed; see {log.name}")
    cpu_after = os.times()
    took = {
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": round(
            cpu_after.children_user
            + cpu_after.children_system
            - cpu_before.children_user
            - cpu_before.children_system,
            1,
        ),
    }
    spent.write_text(json.dumps(took) + "\n")
    return Training(out, **took)


def _show(name: str, progress: Path, seconds: float) -> None:
    try:
        told = json.loads(progress.read_text())
    except (OSError, ValueError):  # not written yet
        return
    step, total = told.get("step") or 0, told.get("total_steps") or 0
    print(
        f"\r{name}: {told['stage']}, step {step} of {total}, {seconds:.0f} s   ", end="", flush=True
    )
