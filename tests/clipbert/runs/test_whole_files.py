import pytest

from clipbert.runs.whole_files import replace_file, write_beside


def test_the_old_content_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    with write_beside(path) as beside:
        beside.write_text("new")
        before = path.read_text()

    assert (before, path.read_text()) == ("old", "new")
    assert [*tmp_path.iterdir()] == [path]


def test_a_write_that_fails_leaves_the_old_content_alone(tmp_path):
    path = tmp_path / "file"
    replace_file(path, "old")

    with pytest.raises(UnicodeEncodeError):
        replace_file(path, "half\ud800")

    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]
