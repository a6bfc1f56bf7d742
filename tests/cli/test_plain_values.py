"""How the words of a command line become values, over all commands."""

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", ""],
        ["index", "films", ""],
        ["index", "films", "--data", ""],
        ["up", "--media-root", ""],
        ["up", "--model", ""],
        ["label", "import", ""],
        ["label", "export", ""],
        ["search", "a dog", "--sheet", ""],
        ["models", "register", ""],
        ["data", "check", "a.jsonl", "--videos", ""],
        ["weights", "info", ""],
        ["migrate", "--model", ""],
        ["evaluate", "--model", "", "--data", "a.jsonl", "--videos", "v"],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_none_and_not_this_folder(api, clipbert, arguments):
    said = clipbert(*arguments, code=2)

    assert "the path is empty; this folder is called ." in " ".join(said.err.split())
    assert api.requests == []


def test_a_data_folder_that_is_set_to_nothing_is_not_set(api, clipbert, monkeypatch):
    monkeypatch.setenv("CLIPBERT_DATA", "")
    api.answer_list("/v1/jobs", [])

    clipbert("jobs", "list")


@pytest.mark.parametrize("name", ["", "  ", "\u200b", "\udcff"])
def test_a_key_has_a_name_that_can_be_read(clipbert, name):
    assert "a key cannot be called" in clipbert("keys", "create", name, code=1).err
