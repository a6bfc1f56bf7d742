"""Every command with every option, against an API that answers with the examples of its document.

The fake refuses what the document does not have (tests/cli/fake_api.py); here each request that a
command can make is made once, and each answer that it reads is one that the API gives.
"""

import io
import re
import shlex
from collections.abc import Iterator
from functools import cache

import click
import pytest
from PIL import Image

from cli.commands.doctor import check_api
from cli.registry import COMMANDS, LazyCommands
from tests.cli.api_document import example

VIDEO = example("GET", "/v1/videos")["items"][0]
BATCH = example("POST", "/v1/batches")
FINETUNE = example("GET", "/v1/finetunes")["items"][0]
ID = FINETUNE["id"]
FINETUNE_OPTIONS = (
    "--base clipbert-qa --name n --set epochs=4 --source review --tag birds --min-holdout 60 "
    "--min-gain 0.1 --max-drop 0.1 --confidence 0.9 --any-gain --no-promote --regression {ID} "
)
SCHEDULE_OPTIONS = (
    "--cron '0 3 * * *' --tz Europe/Berlin --task qa --min-new-labels 5 --misfire skip "
    "--overlap queue " + FINETUNE_OPTIONS
)
CALLS = [
    "index clip.mp4 --wait --name n --tag birds --all --strict --list-skipped --json",
    "index clip.mp4 --upload --tag birds --strict",
    "index clip.mp4 --dry-run",
    "search parrot --limit 3 --video {VIDEO} --tag birds --by clip --mode exhaustive --timeout 5",
    "search parrot --sheet hits.png",
    "ask parrot.mp4 'What animal is this?' --choice parrot --choice dog --top-k 2 --timeout 5",
    "videos list --tag birds --state ready --name parrot --limit 3",
    "videos list --all",
    "videos show parrot.mp4",
    "videos delete parrot.mp4",
    "videos delete --tag birds --state ready --name parrot --dry-run",
    "videos delete --tag birds --yes",
    "batches list --limit 3",
    "batches list --all",
    "batches show {ID}",
    "batches cancel {ID}",
    "batches retry {ID}",
    "jobs list --state failed --kind ingest --limit 3",
    "jobs list --all",
    "jobs show {ID}",
    "jobs cancel {ID}",
    "jobs retry {ID}",
    "label import labels.jsonl --kind msrvtt_qa --split train --source review --on-error skip",
    "label export out.jsonl --task qa --split train --source review --video parrot.mp4 "
    "--video-as filename",
    "label list --task qa --split train --source review --video parrot.mp4 --limit 3",
    "label list --all",
    "label show {ID}",
    "label delete {ID} {ID} --yes",
    "label answers --split train --source review",
    "label suggest --task qa --from asked --video parrot.mp4 --limit 3",
    "label suggest --lines",
    "finetune --task qa --video parrot.mp4 --after 2026-01-05 --before 2026-02-05 --dataset {ID} "
    "--wait " + FINETUNE_OPTIONS,
    "finetune --task qa --check",
    "finetunes list --task qa --limit 3",
    "finetunes list --all",
    "finetunes show {ID} --wait",
    "finetunes show last",
    "finetunes pause {ID}",
    "finetunes resume {ID}",
    "finetunes cancel {ID}",
    "finetunes retry {ID}",
    "finetunes curves {ID} curves.png",
    "finetunes curves {ID} curves.json",
    "finetunes events {ID}",
    "schedule create nightly " + SCHEDULE_OPTIONS,
    "schedule update 'every night' " + SCHEDULE_OPTIONS,
    "schedule list",
    "schedule show 'every night'",
    "schedule pause {ID}",
    "schedule resume {ID}",
    "schedule run-now {ID}",
    "schedule fires {ID} --limit 3",
    "schedule fires {ID} --all",
    "schedule delete {ID} --yes",
    "models list",
    "models show clipbert-qa",
    "models show {ID}",
    "models promote clipbert-qa --task qa",
    "models rollback {ID}",
    "models rollback --task qa",
    "models delete clipbert-qa --yes",
    "generations list --limit 3",
    "generations list --all",
    "generations show {ID}",
]
# What works on folders, or on the database itself. `doctor` has a test of its own below, and what
# `demo` sends are the requests of index, search and ask.
SEND_NOTHING = {
    *("up", "down", "doctor", "demo", "migrate", "train", "evaluate"),
    *("keys", "weights", "data", "models register"),
}
SAY_HOW_TO_PRINT = {"--json", "--data"}


@pytest.fixture
def service(api):
    api.speaks_by_example = True
    over = {
        **BATCH,
        "state": "finished",
        "counts": {**BATCH["counts"], "queued": 0, "succeeded": 2},
    }
    api.answer("GET", f"/v1/batches/{BATCH['id']}", over)
    api.answer("POST", "/v1/finetunes", lambda request: (200, finetune_answer(request)))
    api.answer("GET", "/v1/labels:export", b'{"video": "a"}\n')
    api.answer("GET", f"/v1/finetunes/{ID}/curves.png", b"a picture")
    api.answer("GET", f"/v1/videos/{VIDEO['id']}/media", b"no film")
    Image.new("RGB", (16, 16)).save(poster := io.BytesIO(), "jpeg")
    api.answer("GET", f"/v1/videos/{VIDEO['id']}/thumbnails/poster", poster.getvalue())
    return api


def finetune_answer(request):
    return example("POST", "/v1/finetunes") if request.query else FINETUNE


def words(call):
    return shlex.split(call.format(ID=ID, VIDEO=VIDEO["id"]))


@pytest.mark.parametrize("call", CALLS)
def test_the_api_takes_what_a_command_sends_and_gives_what_it_reads(
    service, clipbert, tmp_path, monkeypatch, call
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"film")
    (tmp_path / "labels.jsonl").write_text('{"video": "a"}\n')

    said = clipbert(*words(call), "--data", tmp_path / "other")

    named = re.findall(r"clipbert \w[^\n`]*", said.out + said.err)
    assert [line for line in named if f"--data {tmp_path / 'other'}" not in line] == []
    assert service.refused == []
    assert service.requests or "--dry-run" in call


def test_the_doctor_asks_what_the_api_answers(service, clipbert, tmp_path):
    assert "answers and takes the key" in check_api(tmp_path).text
    assert len(service.requests) == 2


def test_no_command_and_no_option_is_left_out():
    called = {}
    for call in map(words, CALLS):
        name = " ".join(call[:2]) if " ".join(call[:2]) in commands() else call[0]
        called.setdefault(name, set()).update(word for word in call if word.startswith("--"))
    options = {
        name: {each.opts[0] for each in command.params if each.param_type_name == "option"}
        for name, command in commands().items()
        if name not in SEND_NOTHING
    }

    assert called.keys() == options.keys()
    for name, wanted in options.items():
        spelled = called[name] | SAY_HOW_TO_PRINT | {"--significant", "--promote"}
        assert wanted <= spelled, name


@cache
def commands():
    """Return every command by its words."""
    return dict(_leaves())


def _leaves() -> Iterator[tuple[str, click.Command]]:
    loaded = LazyCommands()
    for name in COMMANDS.keys() - SEND_NOTHING:  # some load torch
        command = loaded[name]
        below = getattr(command, "commands", None)
        if below is None:
            yield name, command
        else:
            yield from ((f"{name} {each}", one) for each, one in below.items())
