"""`clipbert keys` on a database of its own, with no service beside it."""

import json

import pytest

from cli.data_folder import ClientSettings, read_client_file, write_client
from store.api_keys import ApiKeyRepository


@pytest.fixture
def folder(sessions, database_url, monkeypatch, tmp_path):
    """A data folder whose client.json has a key of this database."""
    monkeypatch.setenv("STORE_DATABASE_URL", database_url)
    monkeypatch.setenv("STORE_BLOB_URL", tmp_path.as_uri())
    with sessions.begin() as session:
        key = ApiKeyRepository(session).create("clipbert up")
    write_client(tmp_path, ClientSettings("http://127.0.0.1:1", key))
    return tmp_path


def is_valid(sessions, plain):
    with sessions() as session:
        return ApiKeyRepository(session).verify(plain) is not None


def test_a_key_is_replaced_by_another(clipbert, sessions, folder):
    old = read_client_file(folder).api_key

    new = clipbert("keys", "create", "me", "--use", "--data", folder).out.strip()
    said = clipbert("keys", "revoke", "clipbert up", "--data", folder).out

    assert said.startswith(f"revoked clipbert up ({old[:9]}..., ")
    assert "client.json" not in said
    assert read_client_file(folder) == ClientSettings("http://127.0.0.1:1", new)
    assert [is_valid(sessions, old), is_valid(sessions, new)] == [False, True]


def test_who_revokes_the_key_of_the_commands_is_told_how_to_get_another(clipbert, folder):
    said = clipbert("keys", "revoke", "clipbert up", "--data", folder).out

    assert f"clipbert keys create --data {folder} NAME --use" in said


def test_keys_are_listed_and_none_is_shown(clipbert, folder):
    secret = read_client_file(folder).api_key
    other = clipbert("keys", "create", "a colleague", "--data", folder).out.strip()
    clipbert("keys", "revoke", other, "--data", folder)

    table = clipbert("keys", "list", "--data", folder)
    listed = clipbert("keys", "list", "--json", "--data", folder)

    for said in (table, listed):
        assert secret[9:] not in said.out + said.err
        assert secret[:9] in said.out
    assert [line.split()[-1] == "valid" for line in table.out.splitlines()[1:]] == [True, False]
    assert [each["name"] for each in json.loads(listed.out)] == ["clipbert up", "a colleague"]
    assert json.loads(listed.out)[1]["expires_at"].endswith("+00:00")


@pytest.mark.parametrize(
    ("wanted", "why"),
    [("twice", "2 keys fit: "), ("cb_nothing", "no key has this id, name or beginning")],
)
def test_a_key_that_is_not_the_only_one_or_none_is_refused(clipbert, folder, wanted, why):
    for _ in range(2):
        clipbert("keys", "create", "twice", "--data", folder)

    said = clipbert("keys", "revoke", wanted, "--data", folder, code=1)

    assert why in said.err
