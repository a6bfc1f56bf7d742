"""What goes wrong, as a person reads it."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "path", "field", "message", "said"),
    [
        (
            ["search", "x" * 1001],
            "/v1/searches",
            "body.text",
            "must have at most 1000 characters",
            "the text: must have at most 1000 characters",
        ),
        (
            ["index", __file__, "--name", ""],
            "/v1/batches",
            "body.name",
            "must have at least 1 character",
            "--name: must have at least 1 character",
        ),
        (
            ["ask", "v.mp4", "What?", "--choice", "a", "--choice", "a"],
            "/v1/questions",
            "body.choices",
            "the choices must differ",
            "--choice: the choices must differ",
        ),
    ],
)
def test_a_refused_field_is_called_as_on_the_command_line(
    api, clipbert, *, arguments, path, field, message, said
):
    video = {"id": "v", "uri": "file:///v.mp4"}
    api.answer("GET", "/v1/videos", {"items": [video], "next_page_token": None})
    errors = [{"field": field, "message": message}]
    api.refuse("POST", path, 422, "invalid_request", errors=errors)

    assert clipbert(*arguments, code=1).err == f"clipbert: {said} (invalid_request)\n"


def test_a_refused_filter_is_called_as_on_the_command_line(api, clipbert):
    errors = [{"field": "query.state", "message": "must be 'queued' or 'running'"}]
    api.refuse("GET", "/v1/jobs", 422, "invalid_request", errors=errors)

    said = clipbert("jobs", "list", "--state", "done", code=1)

    assert "--state: must be 'queued' or 'running'" in said.err


def test_one_choice_is_no_choice(api, clipbert):
    said = clipbert("ask", "v.mp4", "What?", "--choice", "a", code=1)

    assert "give two or more --choice, or none" in said.err
    assert api.requests == []


def test_a_text_that_is_none_is_refused_and_does_not_crash(api, clipbert):
    api.refuse("POST", "/v1/searches", 422, "invalid_request")

    clipbert("search", os.fsdecode(b"\xff"), code=1)

    assert api.requests[0].body.startswith(b'{"text": "\\udcff"')


@pytest.mark.parametrize(
    "arguments",
    [
        *(("jobs", name) for name in ("show", "cancel", "retry")),
        *(("batches", name) for name in ("show", "cancel", "retry")),
    ],
)
def test_what_is_no_id_goes_nowhere(api, clipbert, arguments):
    said = clipbert(*arguments, "../videos", code=2)

    assert "'../videos' is not an id" in said.err
    assert api.requests == []


def test_the_doctor_says_what_to_set_and_not_to_call_the_doctor(api, clipbert, monkeypatch):
    monkeypatch.setenv("CLIPBERT_API_URL", "http://127.0.0.1:9")
    for name in ("STORE_DATABASE_URL", "STORE_BLOB_URL", "WORKER_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    said = clipbert("doctor", code=1)

    assert "`clipbert up`, or set STORE_DATABASE_URL and STORE_BLOB_URL" in said.out
    assert "`clipbert doctor`" not in said.out
    assert "-> clipbert up" in said.out


def test_the_doctor_looks_at_the_rest_when_the_data_folder_is_closed(
    api, clipbert, open_folder, as_nobody
):
    (open_folder / "closed").mkdir(mode=0)

    with as_nobody():
        said = clipbert("doctor", "--data", open_folder / "closed" / "data", code=1)

    lines = said.out.splitlines()
    assert any(line.startswith("PROBLEM  data folder  cannot look: ") for line in lines)
    assert any(line.startswith("ok       python") for line in lines)


def test_down_says_what_a_killed_up_left(clipbert, tmp_path):
    (tmp_path / "up.json").write_text(
        '{"pid": 1234567, "api_url": "http://127.0.0.1:9", "ready": true, "environment": {}}'
    )

    first = clipbert("down", "--data", tmp_path).out
    second = clipbert("down", "--data", tmp_path).out

    assert first == f"`clipbert up` (pid 1234567) on {tmp_path} was killed\n"
    assert second == f"nothing is running on {tmp_path}\n"


def run(api, *arguments, **options):
    environment = {**os.environ, "CLIPBERT_API_URL": api.url, "CLIPBERT_API_KEY": "cb_key"}
    environment |= options.pop("environment", {})
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
        **options,
    )


def test_output_that_cannot_be_written_is_one_line(api):
    api.answer_list("/v1/jobs", [])

    with open("/dev/full", "w") as full:  # noqa: PTH123
        result = run(api, "jobs", "list", stdout=full)

    assert result.returncode == 1
    assert result.stderr == b"clipbert: No space left on device\n"


def test_a_name_that_the_terminal_has_no_letters_for_is_escaped(api):
    api.answer_list("/v1/videos", [{"id": "v", "uri": "file:///%C3%BC.mp4", "state": "ready"}])
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    result = run(api, "videos", "list", stdout=subprocess.PIPE, environment=plain)

    assert result.returncode == 0, result.stderr
    assert b"\\xfc.mp4" in result.stdout
