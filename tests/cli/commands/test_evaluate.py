"""`clipbert evaluate` as a process."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpus import write_corpus
from videos import cut

from cli.commands.evaluate import evaluate
from cli.errors import CliError
from cli.main import main
from clipbert.inference.clipbert import ClipBert
from clipbert.model.config import ClipBertConfig

pytestmark = pytest.mark.slow

EVALUATE = [sys.executable, "-m", "cli.main", "evaluate"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    ClipBert.create(ClipBertConfig.preset("clipbert-tiny"), seed=0).save_pretrained(folder)
    return folder


@pytest.fixture
def command(corpus, model):
    def build(kind, *options, videos=corpus.videos):
        files = ["--data", str(corpus.files[kind]), "--videos", str(videos)]
        return [*EVALUATE, "--model", str(model), *files, "--clips", "2", *map(str, options)]

    return build


@pytest.fixture
def inputs(corpus, model):
    return {"model": model, "data": corpus.files["retrieval"], "videos": corpus.videos}


def run(command):
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_figures_are_printed_and_written(command, corpus, tmp_path):
    result = run(command("retrieval", "--limit", 40, "--out", tmp_path / "out"))

    assert result.returncode == 0, result.stderr
    assert "the retrieval head of" in result.stderr
    assert "was never trained" in result.stderr
    assert "\r" not in result.stderr  # no progress bar where nobody looks
    assert "R@10" in result.stdout
    assert "over 40 of 40 lines and 20 of 20 videos" in result.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["counts"]["clips"] == 40
    assert results["counts"]["pairs"] == 40 * 40
    assert results["metrics"]["text_to_video"]["num_queries"] == 40
    assert results["metrics"]["video_to_text"]["num_queries"] == 20
    assert results["plan"]["num_clips"] == 2
    assert "paper: MSRVTT 1k-A" in (tmp_path / "out" / "results.md").read_text()


def test_json_is_all_that_stands_on_stdout_when_asked_for(inputs, corpus, capsys):
    questions = inputs | {"data": corpus.files["msrvtt_qa"]}

    evaluate(**questions, as_json=True, plan="authors", frames=2, clips=2)

    results = json.loads(capsys.readouterr().out)
    assert (results["task"], results["head"], results["kind"]) == ("qa", "qa", "msrvtt_qa")
    assert results["plan"]["name"] == "authors"
    assert results["plan"]["frames_per_clip"] == 2
    assert set(results["metrics"]["by_type"]) == {"what", "how"}
    assert results["counts"]["evaluated"] == 100


def test_unusable_videos_are_listed(command, corpus, tmp_path):
    for path in corpus.videos.iterdir():
        if path.stem not in ("video01", "video02"):
            (tmp_path / path.name).symlink_to(path)
    cut(corpus.videos / "video02.mp4", tmp_path / "video02.mp4", share=0.5)

    result = run(command("tgif_action", videos=tmp_path))

    assert result.returncode == 0, result.stderr
    assert "over 48 of 50 lines and 48 of 50 videos" in result.stdout
    assert "2 videos could not be used" in result.stdout
    listed = [line.split()[:3] for line in result.stdout.splitlines()[-2:]]
    assert listed == [["video01", "1", "media_not_found"], ["video02", "1", "truncated_media"]]


def test_an_interrupted_run_goes_on_from_its_scores(command, inputs, tmp_path, capsys):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command("retrieval", "--out", out, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while len(list(out.glob("scores/*.npy"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)

    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "the same command goes on from here" in stderr
    assert "Traceback" not in stderr
    num_found = len(list(out.glob("scores/*.npy")))
    assert 3 <= num_found < 50

    evaluate(**inputs, out=out, as_json=True, clips=2)
    resumed = capsys.readouterr()
    evaluate(**inputs, out=out, as_json=True, clips=2, resume=False)

    results, whole = json.loads(resumed.out), json.loads(capsys.readouterr().out)
    assert f"going on: the scores of {num_found} videos are there" in resumed.err
    assert results["counts"]["resumed_videos"] == num_found
    assert results["counts"]["clips"] == 2 * (50 - num_found)
    assert whole["counts"]["clips"] == 2 * 50
    assert results["metrics"] == whole["metrics"]


def test_what_cannot_be_evaluated_is_one_line(command, monkeypatch, capsys):
    _python, _module, _main, *arguments = command("tgif_count")
    monkeypatch.setattr(sys, "argv", ["clipbert", *arguments])

    with pytest.raises(SystemExit) as ended:
        main()

    said = capsys.readouterr()
    assert ended.value.code == 1
    assert said.err == "clipbert: the model has no count head\n"
    assert said.out == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": Path("nowhere.jsonl")}, "nowhere.jsonl"),
        ({"videos": Path("nowhere")}, "nowhere is not a folder"),
        ({"model": Path("nowhere")}, "no config.json in nowhere"),
        ({"device": "tpu"}, "no device is named tpu"),
        ({"device": "cuda:99"}, "there is no cuda:99 here"),
        ({"task": "count"}, "does not say what is right, as count needs"),
        ({"split": "test"}, "has no line of the split"),
    ],
)
def test_a_wrong_option_is_said(inputs, options, said):
    with pytest.raises(CliError, match=said):
        evaluate(**{**inputs, **options})


def test_scores_of_other_inputs_are_not_used(inputs, tmp_path, capsys):
    evaluate(**inputs, out=tmp_path, limit=2, as_json=True)
    evaluate(**inputs, out=tmp_path, limit=2, as_json=True)
    going_on = capsys.readouterr().err
    evaluate(**inputs, out=tmp_path, limit=2, as_json=True, clips=3, device="cpu")

    assert "going on: the scores of 1 videos are there" in going_on
    assert "starting afresh: plan changed since the last run" in capsys.readouterr().err
