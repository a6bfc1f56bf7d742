from pathlib import Path

import pytest

from cli.errors import CliError
from cli.index import Counts, collect_files, count_items, without_outside


@pytest.fixture
def library(tmp_path):
    for name in ("b.mp4", "a.MOV", "notes.txt", ".hidden.mp4", "sub/c.webm", "sub/deep/d.jpg"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "e.mp4").touch()
    return tmp_path


def names(files, folder):
    return [str(file.relative_to(folder)) for file in files]


def test_a_folder_gives_its_videos_and_images_at_any_depth(library):
    files = collect_files([library], every_file=False)

    assert names(files, library) == ["a.MOV", "b.mp4", "sub/c.webm", "sub/deep/d.jpg"]


def test_all_takes_every_file_that_is_not_hidden(library):
    files = collect_files([library], every_file=True)

    assert "notes.txt" in names(files, library)
    assert ".hidden.mp4" not in names(files, library)


def test_a_file_named_by_itself_is_taken_whatever_it_is(library):
    files = collect_files([library / "notes.txt", library / ".hidden.mp4"], every_file=False)

    assert names(files, library) == ["notes.txt", ".hidden.mp4"]


def test_a_file_that_is_found_twice_is_taken_once(library):
    files = collect_files([library / "b.mp4", library, library / "sub"], every_file=False)

    assert names(files, library) == ["b.mp4", "a.MOV", "sub/c.webm", "sub/deep/d.jpg"]


def test_relative_paths_become_absolute(library, monkeypatch):
    monkeypatch.chdir(library / "sub")

    assert collect_files([Path("../b.mp4")], every_file=False) == [library / "b.mp4"]


def test_a_path_that_does_not_exist_is_said(tmp_path):
    with pytest.raises(CliError, match=r"nowhere\.mp4 does not exist"):
        collect_files([tmp_path / "nowhere.mp4"], every_file=False)


def test_what_lies_in_or_below_a_refused_folder_is_left_out():
    files = [Path(name) for name in ("/in/a", "/out/b", "/out/c", "/out/deep/d", "/in/e")]

    remaining = without_outside(files, [{"index": 1, "code": "outside_media_roots"}])

    assert remaining == [Path("/in/a"), Path("/in/e")]


def test_a_refused_link_does_not_speak_for_its_folder(tmp_path):
    (tmp_path / "plain").touch()
    (tmp_path / "link").symlink_to("/etc/hostname")
    files = [tmp_path / "link", tmp_path / "plain"]

    assert without_outside(files, [{"index": 0}]) == [tmp_path / "plain"]


def test_a_batch_is_done_when_every_item_ended_somehow():
    ended = {"succeeded": 3, "failed": 2, "cancelled": 1, "quarantined": 1}

    counts = count_items({"total": 7, "counts": {"queued": 0, "running": 0, **ended}})

    assert counts == Counts(total=7, succeeded=3, failed=4)
    assert counts.done == counts.total
