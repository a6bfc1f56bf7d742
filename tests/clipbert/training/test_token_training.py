"""Whole runs of clipbert-tiny from stored tokens: frozen, interrupted, supervised, in parallel."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from token_corpus import ANSWERS, write_tokens
from trainer_processes import start_ranks, start_trainer

from clipbert.checkpoints.folder import VISUAL_PREFIXES, load_folder
from clipbert.datasets.token_index import StoredVideo, write_index
from clipbert.errors import AnnotationError, ConfigError
from clipbert.inference.clipbert import ClipBert
from clipbert.inference.clips import decode_clips
from clipbert.model.config import WEIGHTS_FILE, ClipBertConfig
from clipbert.sampling.plan import SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.training.finetune_recipes import default_recipe
from clipbert.training.recipe import Recipe
from clipbert.training.run import train
from clipbert.training.run_log import read_metrics
from clipbert.training.run_request import RunRequest
from clipbert.training.trainer import find_last_checkpoint
from clipbert.video.decode import probe_video
from store.models.folders import hash_visual_side

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[3]
SETTINGS = (
    "clips=2",
    "max_text_tokens=32",
    "precision=fp32",
    "videos_per_step=4",
    "videos_per_forward=2",
    "log_steps=1",
    "checkpoint_seconds=none",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """clipbert-tiny with random weights, and with dropout."""
    folder = tmp_path_factory.mktemp("models") / "base"
    ClipBert.create(ClipBertConfig.preset("clipbert-tiny"), seed=3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokens(tmp_path_factory, base):
    return write_tokens(tmp_path_factory.mktemp("tokens"), ClipBertConfig.from_folder(base))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, base, tokens):
    """Eight steps of two passes each, over almost two epochs."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "out"
    train(request_of(tokens, base, out, "steps=8", "checkpoint_steps=2"))
    return out


def recipe_of(task: str, *settings: str) -> Recipe:
    return default_recipe(task, 18).replace([*SETTINGS, *settings])


def request_of(given, base, out: Path, *settings: str, task: str = "qa", **changes) -> RunRequest:
    request = RunRequest(
        recipe=recipe_of(task, *settings),
        data=given.labels[task],
        videos=None,
        tokens=given.folder,
        out=out,
        model=base,
        split="train",
        device="cpu",
    )
    return dataclasses.replace(request, **changes)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = load_file(one / WEIGHTS_FILE), load_file(other / WEIGHTS_FILE)
    assert [name for name, weight in ours.items() if not torch.equal(weight, theirs[name])] == []


def test_loss_falls_from_stored_tokens(tmp_path, base, tokens):
    settings = ("steps=40", "learning_rate=1e-2", "decay=constant")

    report = train(request_of(tokens, base, tmp_path / "out", *settings))

    seen = losses(report.folder)
    assert sum(seen[-10:]) < 0.8 * sum(seen[:10])


@pytest.mark.parametrize("task", ["qa", "retrieval", "multiple_choice"])
def test_every_task_of_the_service_is_trained_from_tokens(tmp_path, base, tokens, task):
    report = train(request_of(tokens, base, tmp_path / "out", "steps=2", task=task))

    config = ClipBertConfig.from_folder(report.folder)
    assert config.trained_heads == (task,)
    assert config.plan == ClipBertConfig.from_folder(base).plan
    assert ClipBert.for_serving(report.folder).has_trained_head(task)


def test_curves_are_drawn_and_listed(whole_run):
    points = json.loads((whole_run / "curves.json").read_text())["points"]

    assert [point["step"] for point in points] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert points[0]["loss"] == losses(whole_run)[0]
    assert points[0]["learning_rate"] > points[-1]["learning_rate"]
    assert (whole_run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_visual_side_stays_the_same_to_the_bit(tmp_path, base, tokens, whole_run):
    before, after = load_folder(base).network, load_folder(whole_run).network

    assert hash_visual_side(base) == hash_visual_side(whole_run)
    checkpoint = load_file(find_last_checkpoint(whole_run / "checkpoints") / "model.safetensors")
    for name, weight in before.state_dict().items():
        if name.startswith(VISUAL_PREFIXES):
            assert torch.equal(checkpoint[f"model.{name}"], weight)
    assert not torch.equal(
        before.cross_encoder.state_dict()[next(iter(before.cross_encoder.state_dict()))],
        after.cross_encoder.state_dict()[next(iter(after.cross_encoder.state_dict()))],
    )


def test_a_base_of_half_precision_keeps_the_bytes_of_its_visual_side(tmp_path, base, tokens):
    half = tmp_path / "half"
    ClipBert.from_pretrained(base).save_pretrained(half)
    save_file(
        {name: weight.half() for name, weight in load_file(base / WEIGHTS_FILE).items()},
        half / WEIGHTS_FILE,
    )

    train(request_of(tokens, half, tmp_path / "out", "steps=1"))

    before, after = load_file(half / WEIGHTS_FILE), load_file(tmp_path / "out" / WEIGHTS_FILE)
    visual = [name for name in before if name.startswith(VISUAL_PREFIXES)]
    assert all(after[name].dtype == before[name].dtype for name in visual)
    assert all(torch.equal(after[name], before[name]) for name in visual)


def test_tokens_teach_what_videos_do(tmp_path, corpus, plain_folder):
    plan = SamplingPlan("segments", num_clips=2, frames_per_clip=1)
    model = ClipBert.for_serving(plain_folder, dtype=torch.float32)
    videos = {}
    for path in sorted(corpus.videos.iterdir()):
        probe = probe_video(path)
        clips = plan_clips(probe, plan)
        frames = decode_clips(path, clips, max_side_px=model.config.max_side_px)
        stored = tmp_path / f"{path.stem}.safetensors"
        save_file({"tokens": model.encode_clips(frames).tokens}, stored)
        times = tuple((clip.start_seconds, clip.end_seconds) for clip in clips)
        videos[path.stem] = StoredVideo(stored, times, probe.duration_seconds)
    write_index(tmp_path, videos.items())
    request = RunRequest(
        recipe=recipe_of("qa", "steps=3", "random_clips=false", "learning_rate=1e-3"),
        data=corpus.files["msrvtt_qa"],
        videos=None,
        tokens=tmp_path,
        out=tmp_path / "from_tokens",
        model=plain_folder,
        device="cpu",
    )

    train(request)
    train(
        dataclasses.replace(
            request, videos=corpus.videos, tokens=None, out=tmp_path / "from_videos", num_workers=0
        )
    )

    assert losses(tmp_path / "from_tokens") == pytest.approx(
        losses(tmp_path / "from_videos"), abs=1e-3
    )
    trained = [tmp_path / "from_tokens", tmp_path / "from_videos"]
    assert len({hash_visual_side(folder) for folder in [plain_folder, *trained]}) == 1


def test_videos_of_one_clip_are_seen_once(tmp_path, base, tokens):
    line = json.loads((tokens.folder / "index.jsonl").read_text().splitlines()[1])
    stored = load_file(line["file"])
    save_file({"tokens": stored["tokens"][:1]}, tmp_path / "p.safetensors")
    names = [f"v{number:02d}" for number in range(24)]
    picture = StoredVideo(tmp_path / "p.safetensors", ((0.0, 0.0),), 0.0)
    write_index(tmp_path, dict.fromkeys(names, picture).items())

    report = train(
        request_of(tokens, base, tmp_path / "out", "steps=1", "clips=8", tokens=tmp_path)
    )

    line = report.metrics[0]
    assert line["clips_per_second"] * line["seconds"] == pytest.approx(4, rel=0.2)


def test_unusable_tokens_are_reported_by_name(tmp_path, base, tokens):
    lines = (tokens.folder / "index.jsonl").read_text().splitlines()
    other = json.loads(lines[5])
    save_file({"tokens": torch.zeros(4, 3, 3, 8).half()}, tmp_path / "other.safetensors")
    other["file"] = str(tmp_path / "other.safetensors")
    (tmp_path / "index.jsonl").write_text("\n".join([*lines[:5], json.dumps(other), *lines[7:]]))

    report = train(request_of(tokens, base, tmp_path / "out", "steps=1", tokens=tmp_path))

    assert {video.video: video.code for video in report.unusable} == {
        "v05": "tokens_unusable",
        "v06": "tokens_unusable",
    }
    assert report.left_out == {"of videos that cannot be used": 2}


def test_labels_of_a_part_are_learned_from_its_clips(tmp_path, base, tokens):
    """The last clip shows another colour: only who looks nowhere else can tell it."""
    lines = [json.loads(line) for line in tokens.labels["qa"].read_text().splitlines()]
    data = tmp_path / "late.jsonl"
    for line in lines:
        answer = ANSWERS[(ANSWERS.index(line["answer"]) + 1) % len(ANSWERS)]
        line |= {"answer": answer, "start_seconds": 6.0}
    lines[1]["start_seconds"] = 9.0
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))

    report = train(request_of(tokens, base, tmp_path / "out", "steps=1", data=data))

    assert report.left_out == {"that hold only after their video's end": 1}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (["visual=trained"], "visual is 'trained': stored tokens cannot train it"),
        ({"videos": Path("x")}, "a folder of videos or one of tokens: name one of them"),
        ({"tokens": None}, "a folder of videos or one of tokens: name one of them"),
        (["max_side_px=512"], "max_side_px is 512: with visual 'frozen' it must be that of"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, base, tokens, changes, problem):
    settings, changed = (changes, {}) if isinstance(changes, list) else ([], changes)

    with pytest.raises(ConfigError, match=problem):
        train(request_of(tokens, base, tmp_path / "out", *settings, **changed))


def test_a_split_without_lines_is_refused(tmp_path, base, tokens):
    with pytest.raises(AnnotationError, match="has no line of the split 'dev'"):
        train(request_of(tokens, base, tmp_path / "out", split="dev"))


def test_a_resumed_run_may_hold_fewer_videos_at_once(tmp_path, base, tokens):
    folder = tmp_path / "plain"
    config = dataclasses.replace(ClipBertConfig.from_folder(base), dropout=0.0)
    ClipBert.create(config, seed=3).save_pretrained(folder)
    settings = ("steps=6", "checkpoint_steps=3", "learning_rate=1e-3")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(request_of(tokens, folder, whole, *settings))
    train(request_of(tokens, folder, parts, *settings, max_steps=3))

    train(request_of(tokens, folder, parts, *settings, "videos_per_forward=1", resume=True))

    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)


def test_a_run_killed_and_resumed_ends_with_the_same_weights(tmp_path, base, tokens, whole_run):
    out = tmp_path / "out"
    arguments = command_line(tokens, base, out, "steps=8", "checkpoint_steps=2")
    with start_trainer(*arguments) as running:
        running.wait_for(lambda: find_last_checkpoint(out / "checkpoints"))
        running.send_signal(signal.SIGKILL)
    assert not (out / WEIGHTS_FILE).exists()

    with start_trainer(*arguments) as running:
        assert running.wait(240) == 0

    assert losses(out) == losses(whole_run)
    assert_same_weights(out, whole_run)


def test_sigterm_ends_a_run_after_a_checkpoint(tmp_path, base, tokens):
    out = tmp_path / "out"
    arguments = command_line(tokens, base, out, "steps=100000", "log_steps=100000")
    with start_trainer(*arguments) as running:
        running.wait_for(lambda: progress_of(out).get("step", 0) > 2)
        running.send_signal(signal.SIGTERM)
        assert running.wait(120) == 5

    step = find_last_checkpoint(out / "checkpoints").name.removeprefix("checkpoint-")
    assert int(step) > 2
    # Who watches sees a line after the first step, however far apart the others are.
    assert [line["step"] for line in read_metrics(out / "metrics.jsonl")] == [1]
    assert not (out / WEIGHTS_FILE).exists()
    assert not (out / "error.json").exists()


def test_who_lost_the_fence_writes_nothing_more(tmp_path, base, tokens):
    out = tmp_path / "out"
    arguments = command_line(tokens, base, out, "steps=100000", "checkpoint_steps=50")
    (tmp_path / "fence").write_text("7\n")
    with start_trainer(*arguments, f"--fence={tmp_path / 'fence'}", "--token=7") as running:
        running.wait_for(lambda: find_last_checkpoint(out / "checkpoints"))
        (tmp_path / "fence").write_text("8")
        kept = find_last_checkpoint(out / "checkpoints")
        assert running.wait(120) == 3

    left = int(find_last_checkpoint(out / "checkpoints").name.removeprefix("checkpoint-"))
    assert left <= int(kept.name.removeprefix("checkpoint-")) + 50  # one may have been begun
    told = progress_of(out)
    with start_trainer(*arguments, f"--fence={tmp_path / 'fence'}", "--token=7") as running:
        assert running.wait(120) == 3
    assert progress_of(out) == told


def test_a_trainer_dies_with_its_parent(tmp_path, base, tokens):
    out = tmp_path / "out"
    arguments = command_line(tokens, base, out, "steps=100000")
    program = [sys.executable, "-m", "clipbert.training", *arguments]
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({program!r})"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not progress_of(out).get("step"):
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)

    parent.kill()
    parent.wait()

    told = None
    deadline = time.monotonic() + 120
    while told != (told := (out / "progress.json").read_text()):
        assert time.monotonic() < deadline
        time.sleep(5)  # it is replaced every two seconds


def test_a_failure_is_told_by_a_file(tmp_path, base, tokens):
    out = tmp_path / "out"
    with start_trainer(*command_line(tokens, base, out, "loss=bce", "aggregation=mean")) as running:
        assert running.wait(120) == 0  # steps=1

    with start_trainer(*command_line(tokens, base, out, "steps=3")) as running:
        assert running.wait(120) == 1

    error = json.loads((out / "error.json").read_text())
    assert error["code"] == "invalid_recipe"
    assert "the run in" in error["message"]


def test_two_processes_compute_what_one_does(tmp_path, base, tokens):
    folder = tmp_path / "plain"
    config = dataclasses.replace(ClipBertConfig.from_folder(base), dropout=0.0)
    ClipBert.create(config, seed=3).save_pretrained(folder)
    settings = ("steps=4", "learning_rate=1e-3", "checkpoint_seconds=1")
    one, two = tmp_path / "one", tmp_path / "two"
    train(request_of(tokens, folder, one, *settings))

    first, second = start_ranks(2, *command_line(tokens, folder, two, *settings))
    with first, second:
        assert (first.wait(280), second.wait(120)) == (0, 0), first.output() + second.output()

    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    theirs = load_file(one / WEIGHTS_FILE)
    for name, weight in load_file(two / WEIGHTS_FILE).items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-6, rtol=0.0)


def command_line(tokens, base, out: Path, *settings: str) -> list[str]:
    out.parent.mkdir(exist_ok=True)
    recipe = out.with_name("given.toml")
    recipe.write_text(recipe_of("qa", "steps=1", *settings).to_toml())
    return [
        str(recipe),
        f"--data={tokens.labels['qa']}",
        f"--tokens={tokens.folder}",
        f"--model={base}",
        f"--out={out}",
        "--split=train",
        "--device=cpu",
        "--resume",
        "--supervised",
    ]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY)}


def progress_of(out: Path) -> dict[str, object]:
    try:
        return json.loads((out / "progress.json").read_text())
    except FileNotFoundError:
        return {}
