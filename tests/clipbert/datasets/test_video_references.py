"""What a text may name: nothing that is written is left out."""

import pytest

from clipbert.datasets.video_references import (
    FileName,
    Fit,
    ReferenceIndex,
    VideoReference,
    file_of_uri,
    split_ending,
)

URI = "file:///films/cam2/K%C3%A4se%201.mp4"


@pytest.mark.parametrize(
    ("written", "fit"),
    [
        (URI, Fit.EXACT),
        ("/films/cam2/K\u00e4se 1.mp4", Fit.EXACT),
        ("FILE://localhost/films/cam2/K\u00e4se 1.mp4", Fit.EXACT),
        ("file:/films/x/../cam2/./K%c3%a4se%201.mp4", Fit.WHOLE),
        ("file:///films/cam2/Ka%CC%88se%201.mp4", Fit.WHOLE),
        ("/films//cam2/Ka\u0308se 1.mp4", Fit.WHOLE),
        ("films/cam2/K\u00e4se 1.mp4", Fit.WHOLE),
        ("./cam2/K\u00e4se 1.mp4", Fit.WHOLE),
        ("K\u00e4se 1.mp4", Fit.WHOLE),
        ("Ka\u0308se 1", Fit.WITHOUT_ENDING),
        ("upload:///K%C3%A4se%201.mp4", None),
        ("file://there/films/cam2/K%C3%A4se%201.mp4", None),
        ("s3://films/cam2/K%C3%A4se%201.mp4", None),
        ("file:///cam2/K%C3%A4se%201.mp4", None),
        ("/cam2/K\u00e4se 1.mp4", None),
        ("cam3/K\u00e4se 1.mp4", None),
        ("m2/K\u00e4se 1.mp4", None),
        ("../cam2/K\u00e4se 1.mp4", None),
        ("cam2/K\u00e4se 1", None),
        ("K\u00e4se 1.avi", None),
        ("K\u00e4se 1.mp4.jpg", None),
        ("k\u00e4se 1.mp4", None),
        ("K\u00e4se 1.MP4", None),
        ("K%C3%A4se%201.mp4", None),
        ("cam2", None),
        ("cam2/", None),
        ("file:///films/cam2/K%C3%A4se%201.mp4/", None),
        ("file:///films/cam2/K%C3%A4se%201.mp4#t=3", None),
        ("..", None),
        ("/", None),
        ("", None),
        ("\ud800", None),
    ],
)
def test_a_file_is_named_by_what_is_true_of_it_and_by_nothing_else(written, fit):
    assert VideoReference(written).fit(file_of_uri(URI)) == fit


def test_an_upload_has_a_name_and_no_folder():
    upload = file_of_uri("upload:///a%20b.mp4")
    fits = {
        written: VideoReference(written).fit(upload)
        for written in ("upload:///a%20b.mp4", "a b.mp4", "a b", "/a b.mp4", "x/a b.mp4")
    }

    assert list(fits.values()) == [Fit.EXACT, Fit.WHOLE, Fit.WITHOUT_ENDING, None, None]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("v1.2.MP4", ("v1.2", ".MP4")),
        ("v1.2", ("v1.2", "")),
        ("a.avi.mp4", ("a.avi", ".mp4")),
        (".mp4", (".mp4", "")),
        ("report.txt", ("report.txt", "")),
    ],
)
def test_an_ending_is_one_of_media(name, parts):
    assert split_ending(name) == parts


def test_bytes_that_are_no_text_are_told_apart_by_the_uri_alone():
    files = [file_of_uri(f"file:///v/a%F{digit}.mp4") for digit in "EF"]
    index = ReferenceIndex((file, file.uri) for file in files)

    assert index.find(VideoReference("file:///v/a%fe.mp4")) == ["file:///v/a%FE.mp4"]
    assert len(index.find(VideoReference("a\N{REPLACEMENT CHARACTER}.mp4"))) == 2


def test_a_whole_name_goes_before_one_without_its_ending():
    index = ReferenceIndex((FileName(None, (name,)), name) for name in ("7", "7.mp4", "7.mp4.mp4"))

    assert index.find(VideoReference("7")) == ["7"]
    assert index.find(VideoReference("7.mp4")) == ["7.mp4"]
