"""`clipbert data check`, run as people run it."""

import json
import os
import subprocess
import sys

import pytest
from videos import cut, write_counting_video

from clipbert.inference.clipbert import ClipBert
from clipbert.model.config import ClipBertConfig

pytestmark = pytest.mark.slow


def check(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "data", "check", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def said(result):
    """The lines on stdout, with single spaces."""
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One good video, one broken one; `gone` is missing."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "videos").mkdir()
    good = write_counting_video(folder / "videos/good.mp4", 20, fps=10)
    cut(good, folder / "videos/broken.mp4", share=0.5)
    questions = [
        {"video": "good", "question": "which number?", "answer": "seven"},
        {"video": "good", "question": "which colour?", "answer": "grey"},
    ]
    write(folder / "sound.jsonl", *questions)
    write(
        folder / "wrong.jsonl",
        *questions,
        questions[0],
        {"video": "broken", "question": "which number?", "answer": "eight"},
        {"video": "gone", "question": "which number?", "answer": "nine"},
        {"video": "gone", "question": "which colour?"},
    )
    (folder / "ans2label.json").write_text('{"seven": 0, "eight": 1}')
    return folder


def test_a_sound_data_set_exits_with_zero(folder):
    result = check("sound.jsonl", "--videos", "videos", cwd=folder)

    assert result.returncode == 0
    assert result.stderr == ""
    lines = said(result)
    assert "kind labels, for qa" in lines
    assert "videos 1 named, 0 missing" in lines
    assert "answers 2 distinct; grey 1, seven 1" in lines
    assert lines[-1] == "nothing is wrong"


def test_a_data_set_with_one_of_each_fault_says_so_and_exits_with_one(folder):
    result = check(
        *("wrong.jsonl", "--videos", "videos", "--answers", "ans2label.json"), cwd=folder
    )

    assert result.returncode == 1
    assert result.stderr == ""
    lines = said(result)
    assert "doubled lines 1: 3 and 1" in lines
    assert "not in vocabulary 2 answers; grey 1, nine 1" in lines
    assert "6 answer is missing" in lines
    assert "gone 1" in lines
    assert any(line.startswith("broken 1 truncated_media ") for line in lines)
    assert lines[-1] == "WRONG: 1 unreadable line, 1 missing video, 1 broken video"


def test_json_says_the_same_to_machines(folder):
    result = check("wrong.jsonl", "--videos", "videos", "--json", "--kind", "labels", cwd=folder)

    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["is_sound"] is False
    assert report["bad_lines"] == [{"line": 6, "field": "answer", "reason": "is missing"}]
    assert report["media"]["missing"] == {"gone": 1}
    assert [video["name"] for video in report["media"]["broken"]] == ["broken"]


def test_no_probe_opens_no_video(folder):
    result = check("wrong.jsonl", "--videos", "videos", "--no-probe", cwd=folder)

    assert result.returncode == 1
    assert "none opened" in result.stdout
    assert said(result)[-1] == "WRONG: 1 unreadable line, 1 missing video"


def test_a_model_says_which_texts_it_cuts_and_which_answers_it_lacks(folder, tmp_path):
    config = ClipBertConfig.preset("clipbert-tiny")
    ClipBert.create(config, seed=0).save_pretrained(tmp_path / "tiny")
    question = {"video": "good", "question": "x " * 500, "answer": "no such answer"}
    path = write(tmp_path / "long.jsonl", question)

    result = check(path, "--videos", "videos", "--model", tmp_path / "tiny", cwd=folder)

    assert result.returncode == 0
    lines = said(result)
    assert "too long 1 texts that the model cuts" in lines
    assert "not in vocabulary 1 answers; no such answer 1" in lines


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.jsonl", "--videos", "videos"], "none.jsonl: cannot be read"),
        (["sound.jsonl", "--videos", "nowhere"], "nowhere is not a folder"),
        (["sound.jsonl", "--videos", "videos", "--kind", "x"], "--kind is one of retrieval,"),
        (["sound.jsonl", "--videos", "videos", "--kind", "vqa"], "sound.jsonl:1: image_id"),
        (["sound.jsonl", "--videos", "videos", "--answers", "sound.jsonl"], "is not JSON"),
        (["ans2label.json", "--videos", "videos"], "is of no known kind (it has eight, seven)"),
        (["sound.jsonl", "--videos", "videos", "--model", "."], "config.json"),
    ],
)
def test_what_a_person_can_put_right_is_a_clear_line(arguments, sentence, folder):
    result = check(*arguments, cwd=folder)

    assert result.returncode == 1
    assert result.stderr.startswith("clipbert: ")
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
