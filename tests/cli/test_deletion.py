"""Commands that delete have one rule: what is named in full goes at once, all else is asked."""

import pytest

from tests.cli.test_requests import ID, VIDEO, commands

DELETING = [name for name in commands() if name.endswith((" delete", " revoke"))]


@pytest.mark.parametrize("name", [*sorted(DELETING), "keys revoke"])
def test_every_command_that_deletes_takes_yes(clipbert, name):
    said = clipbert(*name.split(), "--help").out

    assert "-y, --yes" in said


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["label", "delete", ID], f"/v1/labels/{ID}"),
        (["videos", "delete", "parrot.mp4"], f"/v1/videos/{VIDEO['id']}"),
        (["videos", "delete", VIDEO["id"]], f"/v1/videos/{VIDEO['id']}"),
        (["schedule", "delete", "every night"], None),
        (["models", "delete", "clipbert-qa@5d1f0e2a617a"], None),
    ],
)
@pytest.mark.parametrize("yes", [[], ["--yes"], ["-y"]])
def test_what_is_named_in_full_is_deleted_at_once(api, clipbert, arguments, path, yes):
    api.speaks_by_example = True

    clipbert(*arguments, *yes)

    (deleted,) = [each.path for each in api.requests if each.method == "DELETE"]
    assert path in {None, deleted}


@pytest.mark.parametrize(
    "arguments",
    [
        ["videos", "delete", "parrot"],
        ["videos", "delete", "--tag", "birds"],
        ["models", "delete", "clipbert-qa"],
    ],
)
def test_what_is_not_named_in_full_wants_yes_where_nobody_can_be_asked(
    api, clipbert, monkeypatch, arguments
):
    api.speaks_by_example = True
    monkeypatch.setattr("sys.stdin", None)

    said = clipbert(*arguments, code=1)

    assert "--yes deletes without asking" in said.err
    assert [each for each in api.requests if each.method == "DELETE"] == []
    clipbert(*arguments, "--yes")
    assert len([each for each in api.requests if each.method == "DELETE"]) == 1
