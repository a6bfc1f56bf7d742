"""How many short files a second can one process have probed, each in a process of its own?

    python benchmarks/probes.py [--files 40]

The same file with its poster and strip: in processes that are forked from one that has loaded the
decoders, as the workers do it, and in processes that load them each. The ratio is of both in one
run, in turns.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from clipbert.video.probe_process import probe_in_subprocess  # noqa: E402

OUT = PROJECT / "benchmarks" / "out" / "probes.json"
SAMPLE = PROJECT / "samples" / "potted_plant.mp4"
ROUNDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=40, help="of each kind")
    each = parser.parse_args().files // ROUNDS
    seconds = {"forked": 0.0, "loaded": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        poster, strip = Path(folder) / "poster.jpg", Path(folder) / "strip.jpg"

        def forked() -> None:
            probe_in_subprocess(SAMPLE, poster=poster, strip=strip)

        def loaded() -> None:
            command = [sys.executable, "-P", "-m", "clipbert.video.probe_process", str(SAMPLE)]
            pictures = ["--poster", str(poster), "--strip", str(strip)]
            subprocess.run([*command, *pictures], check=True, capture_output=True)

        forked()  # loads, once
        for _ in range(ROUNDS):
            seconds["forked"] += taken(forked, each)
            seconds["loaded"] += taken(loaded, each)
    rates = {kind: round(each * ROUNDS / spent, 2) for kind, spent in seconds.items()}
    ratio = round(rates["forked"] / rates["loaded"], 2)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"files_per_second": rates, "ratio": ratio}, indent=1))
    print(f"{rates['forked']} files a second forked, {rates['loaded']} loaded each: {ratio} times")


def taken(probe: Callable[[], None], number: int) -> float:
    began = time.monotonic()
    for _ in range(number):
        probe()
    return time.monotonic() - began


if __name__ == "__main__":
    main()
