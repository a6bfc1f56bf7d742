import pytest

from cli.errors import CliError
from cli.model_names import find_model
from clipbert_client.client import ApiClient

OLD, NEW = "0198c0df-0001-7aaa-8bbb-1234567890ab", "0198c0df-0002-7aaa-8bbb-1234567890ab"
MINI = "0198c0df-0003-7aaa-8bbb-1234567890ab"


def model(model_id, name, version, *, serves=()):
    return {"id": model_id, "name": name, "version": version, "serves": list(serves), "heads": []}


@pytest.fixture
def models(api):
    """Two versions of clipbert-qa, of which the newer serves, and clipbert-mini."""
    listed = [
        model(NEW, "clipbert-qa", "b2", serves=["qa"]),
        model(OLD, "clipbert-qa", "a1"),
        model(MINI, "clipbert-mini", "c3", serves=["recall"]),
    ]
    api.answer_list("/v1/models", listed)
    for each in listed:
        api.answer("GET", f"/v1/models/{each['id']}", each)
    api.listed = listed
    return api


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (OLD, OLD),
        ("clipbert-mini", MINI),
        ("clipbert-qa", NEW),  # the one that serves
        ("clipbert-qa@a1", OLD),
        ("clipbert-qa@a", OLD),
    ],
)
def test_a_model_is_found_by_id_name_and_version(models, wanted, found):
    with ApiClient(models.url, "key") as client:
        assert find_model(client, wanted)["id"] == found


def test_a_name_of_several_of_which_none_serves_is_refused_with_their_versions(models):
    models.listed[0]["serves"] = []

    with (
        ApiClient(models.url, "key") as client,
        pytest.raises(CliError, match=r"2 models are named 'clipbert-qa': clipbert-qa@b2, "),
    ):
        find_model(client, "clipbert-qa")


@pytest.mark.parametrize("wanted", ["nothing", MINI.replace("0003", "0009")])
def test_an_unknown_model_is_said(models, wanted):
    with ApiClient(models.url, "key") as client, pytest.raises(CliError, match="no model "):
        find_model(client, wanted)


@pytest.mark.parametrize("wanted", [[NEW], ["clipbert-qa"], ["--task", "qa"]])
def test_a_rollback_says_what_serves_afterwards(models, clipbert, wanted):
    def roll_back(_):
        models.listed[0]["serves"], models.listed[1]["serves"] = [], ["qa"]
        return 200, models.listed[0]

    models.answer("POST", f"/v1/models/{NEW}:rollback", roll_back)

    said = clipbert("models", "rollback", *wanted)

    assert said.out == (
        "clipbert-qa@b2 serves nothing any more\nqa: clipbert-qa@a1 serves it now\n"
    )


@pytest.mark.parametrize("arguments", [[], ["clipbert-qa", "--task", "qa"]])
def test_a_rollback_is_of_a_model_or_of_a_task(models, clipbert, arguments):
    said = clipbert("models", "rollback", *arguments, code=1)

    assert "name a model or a --task" in said.err
    assert models.requests == []


def test_a_rollback_of_what_nobody_serves_is_said(models, clipbert):
    said = clipbert("models", "rollback", "--task", "retrieval", code=1)

    assert "no model serves retrieval" in said.err


@pytest.mark.parametrize("arguments", [["promote", "clipbert-qa"], ["rollback"]])
def test_a_task_that_is_none_is_said(models, clipbert, arguments):
    said = clipbert("models", *arguments, "--task", "count", code=1)

    assert "--task is one of qa, multiple_choice, retrieval, recall, not count" in said.err
    assert models.requests == []


def test_a_model_is_promoted_by_hand(models, clipbert):
    promoted = model(OLD, "clipbert-qa", "a1", serves=["qa"])
    models.answer("POST", f"/v1/models/{OLD}:promote", promoted)

    said = clipbert("models", "promote", "clipbert-qa@a1", "--task", "qa")

    assert said.out == "clipbert-qa@a1 serves qa\n"
    assert models.sent("POST", f"/v1/models/{OLD}:promote")[0].body == b'{"tasks": ["qa"]}'


def test_generations_are_listed_with_what_they_hold(api, clipbert):
    each = {"id": "g", "state": "building", "model_id": MINI, "created_at": "2026-01-05T09:00:00Z"}
    api.answer_list("/v1/generations", [each | {"num_indexed": 3, "num_videos": 11}])

    _header, row = clipbert("generations", "list").out.splitlines()

    assert row.split()[:4] == ["g", "building", MINI, "3/11"]
