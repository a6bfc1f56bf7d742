"""Media are found by name, whatever their extension and however deep; doubt is an error."""

import unicodedata

import pytest

from clipbert.datasets.media_folder import MediaFolder
from clipbert.errors import AmbiguousMedia, MediaNotFound, VideoError


def make_files(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return MediaFolder(folder)


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

    assert name in str(raised.value)
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


def test_a_thumbnail_beside_a_video_makes_its_whole_name_no_less_clear(tmp_path):
    media = make_files(tmp_path, "c1.mp4", "c1.jpg", "c2.mp4", "c2.mp4.jpg", "v1.2.mp4")

    assert media.find("c1.mp4") == tmp_path / "c1.mp4"
    assert media.find("c1.jpg") == tmp_path / "c1.jpg"
    assert media.find("c2") == tmp_path / "c2.mp4"
    assert media.find("v1.2") == tmp_path / "v1.2.mp4"
    with pytest.raises(AmbiguousMedia, match=r"^c1 may be any of"):
        media.find("c1")


@pytest.mark.parametrize(
    "name",
    [
        "a.avi",
        "cam3/a.mp4",
        "m2/a.mp4",
        "/cam1/a.mp4",
        "../cam1/a.mp4",
        "upload:///a.mp4",
        "file:///cam1/a.mp4",
        "http://here/cam1/a.mp4",
        "cam1/a",
    ],
)
def test_no_part_of_what_is_written_is_left_out(name, tmp_path):
    media = make_files(tmp_path, "cam1/a.mp4")

    with pytest.raises(MediaNotFound):
        media.find(name)


def test_a_folder_or_a_whole_path_tells_files_of_one_name_apart(tmp_path):
    media = make_files(tmp_path, "cam1/a b.mp4", "cam2/a b.mp4", "x/cam2/c.mp4", "cam2/c.mp4")
    second = tmp_path / "cam2/a b.mp4"

    for name in ("cam2/a b.mp4", f"{tmp_path.name}/cam2/a b.mp4", str(second), second.as_uri()):
        assert media.find(name) == second
    with pytest.raises(AmbiguousMedia, match=r"^cam2/c\.mp4 may be any of"):
        media.find("cam2/c.mp4")


def test_a_video_goes_by_one_name_however_it_is_written(tmp_path):
    media = make_files(tmp_path, "cam1/a.mp4", "cam2/a.mp4", "b.mp4", "cam1/c.mp4", "c.mp4")

    assert {media.canonical_name(name) for name in ("b", "b.mp4", "./b.mp4")} == {"b"}
    assert media.canonical_name(str(tmp_path / "cam2/a.mp4")) == "cam2/a.mp4"
    assert media.canonical_name("cam1/c.mp4") == "cam1/c.mp4"
    assert media.canonical_name(str(tmp_path / "c.mp4")) == str(tmp_path / "c.mp4")


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
