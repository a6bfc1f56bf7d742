"""A command that a command names can be copied: it runs on the same data folder."""

import pytest

from cli.hints import runnable


@pytest.fixture
def on_another_folder(clipbert, tmp_path):
    """A command was given --data; return what others need."""
    folder = tmp_path / "my clips"
    assert "nothing is running" in clipbert("down", "--data", folder).out
    return f"--data '{folder}'"


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("stop it with: clipbert down", "stop it with: clipbert down OPTION"),
        ("`clipbert up` or `clipbert doctor`", "`clipbert up OPTION` or `clipbert doctor OPTION`"),
        ("clipbert finetunes show 7 --wait", "clipbert finetunes show OPTION 7 --wait"),
        ("clipbert schedule run-now x", "clipbert schedule run-now OPTION x"),
        ("clipbert finetune --task qa", "clipbert finetune OPTION --task qa"),
        ("clipbert weights mini FOLDER", "clipbert weights mini FOLDER"),
        ("the clipbert package", "the clipbert package"),
    ],
)
def test_the_option_is_in_each_command_that_takes_it(on_another_folder, hint, expected):
    assert runnable(hint) == expected.replace("OPTION", on_another_folder)


def test_twice_is_as_once(on_another_folder):
    once = runnable("clipbert jobs list")

    assert runnable(once) == once


def test_a_folder_that_is_found_without_it_needs_no_option(clipbert, tmp_path, monkeypatch):
    monkeypatch.delenv("CLIPBERT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".clipbert").mkdir()

    for given in ([], ["--data", ".clipbert"]):
        clipbert("down", *given)
        assert runnable("clipbert down") == "clipbert down"


def test_a_variable_reaches_the_next_command_by_itself(clipbert, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPBERT_DATA", str(tmp_path))

    clipbert("down")

    assert runnable("clipbert down") == "clipbert down"


def test_the_hint_of_an_error_has_it_too(api, clipbert, tmp_path, monkeypatch):
    monkeypatch.delenv("CLIPBERT_API_URL")

    said = clipbert("jobs", "list", "--data", tmp_path, code=1).err

    assert f"start the service with `clipbert up --data {tmp_path}`" in said
