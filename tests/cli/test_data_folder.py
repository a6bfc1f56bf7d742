import stat

import pytest

from cli.data_folder import ClientSettings, find_data_folder, read_client, write_client
from cli.errors import CliError
from embedded.running_up import RunningUp, read_running, remove_running, write_running


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    monkeypatch.delenv("CLIPBERT_API_URL", raising=False)
    monkeypatch.delenv("CLIPBERT_API_KEY", raising=False)


def test_the_nearest_data_folder_above_is_found(tmp_path):
    (tmp_path / ".clipbert").mkdir()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)

    assert find_data_folder(None, start=deep) == tmp_path / ".clipbert"


def test_without_one_it_is_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert find_data_folder(None, start=tmp_path) == tmp_path / "home" / ".clipbert"


def test_the_option_wins(tmp_path):
    (tmp_path / ".clipbert").mkdir()

    assert find_data_folder(tmp_path / "other", start=tmp_path) == tmp_path / "other"


def test_the_key_is_readable_by_its_owner_only(tmp_path):
    write_client(tmp_path, ClientSettings("http://h:1", "cb_secret"))

    assert stat.S_IMODE((tmp_path / "client.json").stat().st_mode) == 0o600
    assert read_client(tmp_path) == ClientSettings("http://h:1", "cb_secret")
    assert [path.name for path in tmp_path.iterdir()] == ["client.json"]


def test_variables_win_over_the_file(tmp_path, monkeypatch):
    write_client(tmp_path, ClientSettings("http://h:1", "cb_file"))
    monkeypatch.setenv("CLIPBERT_API_KEY", "cb_variable")

    assert read_client(tmp_path) == ClientSettings("http://h:1", "cb_variable")


@pytest.mark.parametrize("content", ["", "[]", '{"api_url": "http://h:1"}', "\x00"])
def test_a_broken_client_file_is_one_clear_error(tmp_path, content):
    (tmp_path / "client.json").write_text(content)

    with pytest.raises(CliError, match=r"client\.json cannot be read"):
        read_client(tmp_path)


def test_without_a_service_the_cure_is_named(tmp_path):
    with pytest.raises(CliError) as error:
        read_client(tmp_path)

    assert "clipbert up" in error.value.cure


def test_what_runs_is_remembered_until_it_stops(tmp_path):
    running = RunningUp(pid=7, api_url="http://h:1", ready=True, environment={"STORE_X": "y"})

    write_running(tmp_path, running)

    assert read_running(tmp_path) == running
    assert stat.S_IMODE((tmp_path / "up.json").stat().st_mode) == 0o600
    remove_running(tmp_path)
    assert read_running(tmp_path) is None
