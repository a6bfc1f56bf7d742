from pathlib import Path

import pytest

from cli.errors import CliError
from cli.index import collect_files


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
    files = collect_files([library], every_file=False).files

    assert names(files, library) == ["a.MOV", "b.mp4", "sub/c.webm", "sub/deep/d.jpg"]


def test_all_takes_every_file_that_is_not_hidden(library):
    files = collect_files([library], every_file=True).files

    assert "notes.txt" in names(files, library)
    assert ".hidden.mp4" not in names(files, library)


def test_a_file_named_by_itself_is_taken_whatever_it_is(library):
    files = collect_files([library / "notes.txt", library / ".hidden.mp4"], every_file=False).files

    assert names(files, library) == ["notes.txt", ".hidden.mp4"]


def test_a_file_that_is_found_twice_is_taken_once(library):
    files = collect_files([library / "b.mp4", library, library / "sub"], every_file=False).files

    assert names(files, library) == ["b.mp4", "a.MOV", "sub/c.webm", "sub/deep/d.jpg"]


def test_relative_paths_become_absolute(library, monkeypatch):
    monkeypatch.chdir(library / "sub")

    assert collect_files([Path("../b.mp4")], every_file=False).files == [library / "b.mp4"]


def test_a_path_that_does_not_exist_is_said(tmp_path):
    with pytest.raises(CliError, match=r"nowhere\.mp4 does not exist"):
        collect_files([tmp_path / "nowhere.mp4"], every_file=False)


def test_files_skipped_for_their_extension_are_counted(library):
    (library / "moving.gif").touch()

    found = collect_files([library], every_file=False)

    assert found.num_skipped == 1  # notes.txt; hidden files are nobody's videos
    assert library / "moving.gif" in found.files


def test_a_folder_that_may_not_be_looked_into_is_noted(open_folder, as_nobody):
    (open_folder / "a.mp4").touch()
    (open_folder / "closed").mkdir(mode=0)

    with as_nobody():
        found = collect_files([open_folder], every_file=False)

    assert found.files == [open_folder / "a.mp4"]
    assert [each.path for each in found.unreadable] == [open_folder / "closed"]


def test_a_path_that_may_not_be_looked_at_is_said(open_folder, as_nobody):
    (open_folder / "closed").mkdir(mode=0)

    with as_nobody(), pytest.raises(CliError, match="cannot be looked at: Permission denied"):
        collect_files([open_folder / "closed" / "v.mp4"], every_file=False)
