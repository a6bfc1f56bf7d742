"""Labels in, a better model serving: the whole loop by the command line, with everything real."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import passable_folder
from videos import write_video

from clipbert.checkpoints.mini.build import build_mini

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
COLORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
NUM_VIDEOS = 24
HELD_OUT = {1, 4, 6}  # of the rounds through the colours
VIDEO, RIGHT = "12", "red"  # one of them
SWITCH_SECONDS = 60  # by itself a few
QUESTION = "what color is it?"
# Thirty steps of four texts are enough for three colours.
RECIPE = ("steps=30", "learning_rate=5e-4", "clips=1", "videos_per_step=4", "videos_per_forward=4")


@dataclass(frozen=True)
class Place:
    """The folder that commands are typed in, and the data folder of the service."""

    home: Path
    data: Path

    def run(self, *arguments, code=0, timeout=600):
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CLIPBERT_", "STORE_", "WORKER_", "API_"))
        }
        result = subprocess.run(
            [sys.executable, "-m", "cli.main", *map(str, arguments), "--data", str(self.data)],
            cwd=self.home,
            env={
                **environment,
                "HOME": str(self.home),
                "PYTHONPATH": str(ROOT),
                # Standing back is for machines that also search; here other tests would starve it.
                "WORKER_FINETUNE_NICENESS": "0",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in result.stderr + result.stdout
        assert result.returncode == code, result.stderr + result.stdout
        return result

    def json(self, *arguments, code=0):
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def finetune(self, *options):
        """Train, wait, and return the finetune as it ended."""
        settings = [part for field in RECIPE for part in ("--set", field)]
        return self.json("finetune", "--task", "qa", *settings, *options, "--wait")

    def ask(self, video):
        """Return the first answer, and which model gave it."""
        result = self.json("ask", video, QUESTION)["result"]
        return result["answers"][0]["answer"], result["model_id"]

    def wait_for_answer_of(self, model_id, *, until_then):
        """Ask until a model answers; while a worker loads it, the one before does."""
        deadline = time.monotonic() + SWITCH_SECONDS
        while (answered_by := self.ask(VIDEO)[1]) != model_id:
            assert answered_by == until_then
            assert time.monotonic() < deadline, "the model was not picked up"


@pytest.fixture
def place():
    """A fresh service on the default model, with videos of one colour each indexed."""
    model = build_mini(ROOT / ".cache" / "clipbert-mini")
    with passable_folder() as folder:
        place = Place(home=folder / "home", data=folder / "data")
        write_library(place.home)
        place.run(
            *("up", "--background", "--port", 0, "--media-root", place.home),
            *("--device", "cpu", "--model", model),
        )
        try:
            place.run("index", place.home / "videos", "--wait")
            yield place
        except BaseException:
            print((place.data / "up.log").read_text()[-20_000:])  # noqa: T201  with the failure
            raise
        finally:
            place.run("down")


def write_library(home):
    """Write videos, each of a shade of red, green or blue, and a label for each."""
    (home / "videos").mkdir(parents=True)
    lines = []
    for number in range(NUM_VIDEOS):
        name, color = list(COLORS.items())[number % len(COLORS)]
        frame = np.full((48, 64, 3), np.array(color) * (255 - 2 * number), dtype=np.uint8)
        write_video(home / "videos" / f"{number:02d}.mp4", [frame] * 4, fps=10, codec="mpeg4")
        split = "test" if number // len(COLORS) in HELD_OUT else "train"
        lines.append({"video": f"{number:02d}", "question": QUESTION, "answer": name})
        lines[-1] |= {"split": split, "source": "colours"}
    (home / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_labels_become_a_model_that_serves_and_can_be_rolled_back(place):
    labels = place.home / "labels.jsonl"
    none_yet = place.run("finetune", "--task", "qa", code=1)
    assert "(no_labels)" in none_yet.stderr
    assert "(no_qa_model)" in place.run("ask", VIDEO, QUESTION, code=1).stderr
    assert place.json("label", "import", labels)["num_inserted"] == NUM_VIDEOS
    assert place.json("label", "import", labels)["num_unchanged"] == NUM_VIDEOS

    # The first model has only the commonest answer to beat, on as many examples as the gate wants.
    too_few = place.run("finetune", "--task", "qa", "--check")
    assert "24 of 24 videos: 15 to train, 9 held out" in too_few.stdout
    assert "at least 50" in too_few.stderr
    first = place.finetune("--min-holdout", 9)
    assert first["decision"]["code"] == "promoted"
    assert first["decision"]["holdout"]["candidate"] > 0.6
    assert first["decision"]["holdout"]["num_examples"] == 9
    assert place.ask(VIDEO) == (RIGHT, first["model_id"])

    # What has learnt next to nothing stays a candidate, and serves only if a person says so.
    second = place.finetune("--min-holdout", 9, "--set", "steps=1", "--set", "seed=7")
    assert second["decision"]["code"] in {"no_gain", "not_significant"}
    assert place.ask(VIDEO)[1] == first["model_id"]
    place.run("models", "promote", second["model_id"])
    place.wait_for_answer_of(second["model_id"], until_then=first["model_id"])

    back = place.run("models", "rollback", "--task", "qa").stdout
    place.wait_for_answer_of(first["model_id"], until_then=second["model_id"])
    assert place.ask(VIDEO) == (RIGHT, first["model_id"])
    states = {model["id"]: model["state"] for model in place.json("models", "list")}
    assert (states[first["model_id"]], states[second["model_id"]]) == ("serving", "retired")
    assert "serves nothing any more" in back

    curves = place.home / "curves.png"
    place.run("finetunes", "curves", first["id"], curves)
    assert curves.read_bytes().startswith(b"\x89PNG")
    losses = [event["data"] for event in place.json("finetunes", "events", first["id"])]
    assert any("loss" in data for data in losses)
