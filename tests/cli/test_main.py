"""The command line as people and scripts meet it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.show.console import file_name, format_instant, format_span

CLIPBERT = [sys.executable, "-m", "cli.main"]
NOBODY_LISTENS = "http://127.0.0.1:9"  # the discard port


def run(*arguments, cwd, **variables):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CLIPBERT_")
    }
    return subprocess.run(
        [*CLIPBERT, *arguments],
        cwd=cwd,
        env={**environment, "HOME": str(cwd), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        *([name] for name in ("up", "down", "index", "search", "ask", "doctor", "migrate", "demo")),
        *([name] for name in ("videos", "batches", "jobs", "models", "keys", "weights")),
        *(["jobs", name] for name in ("list", "show", "cancel", "retry")),
        *(["batches", name] for name in ("list", "show", "cancel", "retry")),
        *(["videos", name] for name in ("list", "show", "delete")),
        *(["models", name] for name in ("list", "show", "promote", "rollback", "register")),
        *(["generations", name] for name in ("list", "show")),
        ["label"],
        *(["label", name] for name in ("import", "export", "list", "show", "delete", "answers")),
        ["label", "suggest"],
        ["finetune"],
        *(["finetunes", name] for name in ("list", "show", "pause", "resume", "cancel", "retry")),
        *(["finetunes", name] for name in ("curves", "events")),
        *(["schedule", name] for name in ("create", "update", "list", "show", "pause", "resume")),
        *(["schedule", name] for name in ("run-now", "fires", "delete")),
        ["keys", "create"],
        *(["weights", name] for name in ("mini", "info", "import", "export", "base")),
        ["data"],
        ["data", "check"],
        ["evaluate"],
        ["train"],
    ],
)
def test_every_command_has_help(arguments, tmp_path):
    result = run(*arguments, "--help", cwd=tmp_path)

    assert result.returncode == 0
    assert result.stdout.startswith("Usage: ")
    assert result.stderr == ""


def test_help_is_instant(tmp_path):
    """Measured as processor time of the child, which a busy machine does not stretch as much.

    It does stretch it (cores share their caches), so the quickest of some runs counts.
    """

    def help_seconds():
        before = os.times()
        result = run("--help", cwd=tmp_path)
        after = os.times()
        assert result.returncode == 0
        return (
            after.children_user + after.children_system - before.children_user
        ) - before.children_system

    assert any(help_seconds() < 0.3 for _ in range(10))


def test_help_imports_nothing_heavy(tmp_path):
    heavy = {"torch", "sqlalchemy", "celery", "httpx", "pydantic", "rich.console", "numpy"}
    code = (
        "import sys\n"
        "from cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('loaded:', sorted({heavy!r} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )

    assert result.stdout.splitlines()[-1] == "loaded: []"


def test_a_wrong_option_is_a_usage_error(tmp_path):
    result = run("search", "--no-such-option", "x", cwd=tmp_path)

    assert result.returncode == 2
    assert "No such option" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "a dog"], "no API address"),
        (["search", "a dog", "--mode", "fast"], "--mode is one of"),
        (["index", "nowhere.mp4"], "nowhere.mp4 does not exist"),
        (["index", "."], "no video or image in ."),
        (["up", "--media-root", "nowhere"], "--media-root nowhere is not a folder"),
        (["up", "--model", "nowhere", "--port", "0"], "no model in"),
        (["models", "register", ".", "--name", "x"], "is not a model folder"),
        (["migrate"], "STORE_DATABASE_URL"),
    ],
)
def test_what_a_person_can_put_right_is_one_clear_line(arguments, said, tmp_path):
    result = run(*arguments, cwd=tmp_path)

    assert result.returncode == 1
    assert result.stderr.startswith("clipbert: ")
    assert said in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_a_service_that_does_not_answer_has_its_own_exit_code(tmp_path):
    result = run(
        *("jobs", "list"),
        cwd=tmp_path,
        CLIPBERT_API_URL=NOBODY_LISTENS,
        CLIPBERT_API_KEY="cb_x",
    )

    assert result.returncode == 3
    assert f"no answer from {NOBODY_LISTENS}" in result.stderr
    assert "Traceback" not in result.stderr


def test_down_where_nothing_runs_is_no_error(tmp_path):
    result = run("down", "--data", str(tmp_path / "data"), cwd=tmp_path)

    assert result.returncode == 0
    assert "nothing is running" in result.stdout
    assert not (tmp_path / "data").exists()


def test_doctor_names_what_is_wrong_and_the_cure(tmp_path):
    result = run("doctor", "--data", str(tmp_path / "data"), cwd=tmp_path)

    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert any(line.startswith("ok") and "python" in line for line in lines)
    assert any(line.startswith("PROBLEM") and "service" in line for line in lines)
    assert any("-> clipbert up" in line for line in lines)
    assert result.stderr == ""


def test_instants_are_written_as_players_show_them():
    assert format_instant(7.46) == "0:07.5"
    assert format_instant(59.97) == "1:00.0"
    assert format_instant(3723) == "1:02:03.0"
    assert format_span(0, 75.25) == "0:00.0-1:15.2"


def test_a_video_is_called_by_the_last_part_of_its_uri():
    assert file_name("file:///a/holiday%20clip.mp4") == "holiday clip.mp4"
    assert file_name("/a/b.mov") == "b.mov"
    assert file_name("upload.avi") == "upload.avi"
    assert file_name(Path("/a/b?c.mp4").as_uri()) == "b?c.mp4"
