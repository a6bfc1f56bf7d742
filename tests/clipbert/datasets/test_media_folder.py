"""Media are found by name, whatever their extension and however deep; doubt is an error."""

import unicodedata

import pytest

from clipbert.datasets.media_folder import MediaFolder, media_name
from clipbert.errors import AmbiguousMedia, MediaNotFound, VideoError


def make_files(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return MediaFolder(folder)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("video7010", "video7010"),
        ("clips/video7010.mp4", "video7010"),
        ("a.b.c.WEBM", "a.b.c"),
        ("54322086@N00_240859.avi.mp4", "54322086@N00_240859"),
        ("v_-0r0HEwAYiQ", "v_-0r0HEwAYiQ"),
        ("report.txt", "report.txt"),
        ("", ""),
    ],
)
def test_a_name_is_without_folder_and_media_extensions(text, name):
    assert media_name(text) == name


def test_files_are_found_by_name_at_any_depth(tmp_path):
    media = make_files(
        tmp_path, "a.mp4", "test/deep/b.MKV", "c.d.gif", "e.webp", "a.srt", "notes.txt"
    )

    assert media.find("a") == tmp_path / "a.mp4"
    assert media.find("b") == tmp_path / "test/deep/b.MKV"
    assert media.find("c.d") == tmp_path / "c.d.gif"
    assert media.find("e.webp") == tmp_path / "e.webp"
    assert len(media) == 4


@pytest.mark.parametrize("name", ["b", "notes", "notes.txt", "A", "", "..", "/etc/passwd", "*"])
def test_a_missing_file_is_named(name, tmp_path):
    media = make_files(tmp_path, "a.mp4", "notes.txt")

    with pytest.raises(MediaNotFound, match="no video or picture named") as raised:
        media.find(name)

    assert media_name(name) in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_two_files_of_one_name_are_an_error_when_it_is_asked_for(tmp_path):
    media = make_files(tmp_path, "train/a.mp4", "test/a.avi", "b.mp4")

    with pytest.raises(AmbiguousMedia) as raised:
        media.find("a")

    error = raised.value
    assert error.name == "a"
    assert set(error.paths) == {tmp_path / "train/a.mp4", tmp_path / "test/a.avi"}
    assert all(str(path) in str(error) for path in error.paths)
    assert media.find("b") == tmp_path / "b.mp4"


def test_an_ambiguous_name_crosses_a_process_boundary_as_its_code():
    error = VideoError.from_code("ambiguous_media", "a may be any of x, y")

    assert isinstance(error, AmbiguousMedia)
    assert str(error) == "a may be any of x, y"
    assert error.paths == ()


@pytest.mark.parametrize(
    ("file", "names"),
    [
        (
            "COCO_train2014_000000123456.jpg",
            ["COCO_train2014_000000123456", "000000123456", "COCO_val2014_000000123456"],
        ),
        ("000000123456.jpg", ["000000123456", "COCO_train2014_000000123456"]),
        ("123456.jpg", ["123456", "000000123456", "COCO_test2015_000000123456"]),
    ],
)
def test_pictures_of_coco_are_found_by_each_of_their_names(file, names, tmp_path):
    media = make_files(tmp_path, f"images/{file}", "000000123456.txt")

    assert {media.find(name) for name in names} == {tmp_path / "images" / file}


def test_a_picture_of_visual_genome_never_stands_in_for_one_of_coco(tmp_path):
    """Both sets number their pictures from 1, and pretraining reads both."""
    media = make_files(tmp_path, "vg/9.jpg", "vg/5.jpg", "coco/COCO_train2014_000000000009.jpg")

    assert media.find("9") == tmp_path / "vg/9.jpg"
    assert media.find("000000000009") == tmp_path / "coco/COCO_train2014_000000000009.jpg"
    for name in ("000000000005", "7"):
        with pytest.raises(MediaNotFound):
            media.find(name)


def test_hidden_files_are_left_out(tmp_path):
    media = make_files(tmp_path, "._a.mp4", ".trash/b.mp4", "a.mp4")

    assert len(media) == 1
    assert media.find("a") == tmp_path / "a.mp4"


def test_links_to_folders_are_followed_and_their_circles_are_not(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/a.mp4").touch()
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "train").symlink_to(tmp_path / "disk")
    (videos / "again").symlink_to(videos)
    (videos / "twice").symlink_to(tmp_path / "disk")

    media = MediaFolder(videos)

    assert len(media) == 1
    assert media.find("a").samefile(tmp_path / "disk/a.mp4")


def test_what_is_no_folder_is_an_error(tmp_path):
    (tmp_path / "a.mp4").touch()

    for path in (tmp_path / "none", tmp_path / "a.mp4"):
        with pytest.raises(MediaNotFound, match="is not a folder"):
            MediaFolder(path)


def test_a_name_is_found_in_whatever_unicode_form_it_and_the_file_are_written(tmp_path):
    for on_disk, asked in (("NFD", "NFC"), ("NFC", "NFD")):
        folder = tmp_path / on_disk
        folder.mkdir()
        path = folder / unicodedata.normalize(on_disk, "Käse.mp4")
        path.touch()

        assert MediaFolder(folder).find(unicodedata.normalize(asked, "Käse")) == path
