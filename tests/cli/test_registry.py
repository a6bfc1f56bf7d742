"""What each command loads, which decides how soon it answers."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

from cli.registry import COMMANDS
from tests.cli.fake_api import batch

ID = "0198c0df-5555-7aaa-8bbb-1234567890ab"
# Each takes a tenth of a second and more of a processor to import.
HEAVY = {
    "torch",
    "transformers",
    "numpy",
    "sqlalchemy",
    "celery",
    "httpx",
    "pydantic",
    "rich",
    "av",
}
JOB = {"id": ID, "kind": "ingest", "state": "succeeded", "created_at": "2026-01-05T09:00:00Z"}


@pytest.fixture
def service(api, tmp_path):
    api.answer_list("/v1/jobs", [JOB])
    for path in ("videos", "batches", "labels", "finetunes", "models", "schedules", "generations"):
        api.answer_list(f"/v1/{path}", [])
    api.answer("POST", "/v1/batches", batch(ID, queued=1))
    api.answer("GET", f"/v1/batches/{ID}", batch(ID, succeeded=1))
    api.answer_list(f"/v1/batches/{ID}/items", [])
    result = {"hits": [], "stages": ["recall"], "recall_model": "m"}
    api.answer("POST", "/v1/searches", {"id": ID, "state": "succeeded", "result": result})
    counts = {"num_lines": 1, "num_inserted": 1, "num_unchanged": 0, "num_refused": 0}
    api.answer("POST", "/v1/labels", counts)
    (tmp_path / "a.mp4").write_bytes(b"film")
    (tmp_path / "labels.jsonl").write_text('{"video": "a"}\n')
    return api


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["search", "a dog"],
        ["jobs", "list", "--limit", "3"],
        ["videos", "list", "--json"],
        ["batches", "list"],
        ["index", "a.mp4", "--wait"],
        ["label", "import", "labels.jsonl"],
        ["finetunes", "list"],
        ["models", "list"],
        ["schedule", "list"],
        ["generations", "list"],
        ["down"],
        ["up", "--help"],
    ],
    ids=" ".join,
)
def test_a_command_loads_nothing_heavy(service, tmp_path, arguments):
    code = (
        "import sys\n"
        "from cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        f"print('loaded:', code, sorted({HEAVY!r} & set(sys.modules)))"
    )
    environment = {"CLIPBERT_API_URL": service.url, "CLIPBERT_API_KEY": "key"}
    environment["CLIPBERT_DATA"] = str(tmp_path / "data")

    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    loaded = result.stdout.splitlines()[-1]
    assert loaded in {"loaded: 0 []", "loaded: None []"}, result.stdout + result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_where_the_table_says(name):
    module, _, attribute = COMMANDS[name].target.partition(":")

    assert hasattr(import_module(f"cli.commands.{module}"), attribute)


def test_every_command_is_listed_with_a_whole_line(clipbert):
    said = clipbert("--help").out

    listed = [line for line in said.splitlines() if line.startswith("  ")]
    for name, command in COMMANDS.items():
        if command.help:
            assert any(line.split() == [name, *command.help.split()] for line in listed), name
    assert "..." not in said.partition("Commands:")[2]


def test_a_misspelled_command_is_told_the_right_one(clipbert):
    assert "Did you mean 'jobs'?" in clipbert("jbos", code=2).err


@pytest.mark.parametrize(
    ("limit", "why"),
    [("many", "'many' is not a whole number"), ("0", "0 is less than 1"), ("1.5", "not a whole")],
)
def test_a_number_that_is_none_or_out_of_bounds_is_named(api, clipbert, limit, why):
    said = clipbert("jobs", "list", "--limit", limit, code=2)

    assert "--limit" in said.err
    assert why in said.err
    assert api.requests == []


def test_the_version_is_told(clipbert):
    assert clipbert("--version").out == f"clipbert {version('clipbert-workers')}\n"


def test_a_service_of_another_version_is_named_once(api, clipbert):
    api.answer_list("/v1/jobs", [JOB] * 600)  # two pages
    api.headers["X-Clipbert-Version"] = "99.1"

    said = clipbert("jobs", "list", "--limit", "600")

    assert said.err.count("the service 99.1") == 1
    assert said.out.count(ID) == 600


def test_a_service_of_the_same_version_is_not_spoken_of(api, clipbert):
    api.answer_list("/v1/jobs", [JOB])
    api.headers["X-Clipbert-Version"] = version("clipbert-workers")

    assert clipbert("jobs", "list").err == ""


@pytest.mark.parametrize(
    "name", [name for name, command in COMMANDS.items() if command.target.endswith(":app")]
)
def test_the_commands_of_a_noun_are_listed_with_whole_sentences(clipbert, name):
    said = clipbert(name, "--help").out

    assert "..." not in said.partition("Commands:")[2]
