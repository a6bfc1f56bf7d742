"""The one list of what is read, and where it is used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import cli.commands.index
import clipbert.datasets.media_folder
import clipbert.video
from clipbert.errors import UnsupportedMedia
from clipbert.video import formats
from clipbert.video.decode import probe_video

ROOT = Path(__file__).parents[3]


def section_of_what_is_read() -> str:
    page = (ROOT / "docs" / "media.md").read_text()
    return re.search(r"^## What is read\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)[1]


def test_the_list_of_formats_imports_nothing():
    command = [sys.executable, "-S", "-c", "import sys; exec(sys.stdin.read()); print(sys.modules)"]

    before = subprocess.run(command, input="", text=True, capture_output=True, check=True)
    source = (ROOT / "clipbert/video/formats.py").read_text()
    after = subprocess.run(command, input=source, text=True, capture_output=True, check=True)

    assert after.stdout == before.stdout


def test_the_documents_list_each_extension_and_each_container():
    section = section_of_what_is_read()

    listed = re.search(r"that end in (.*?)\.", section, re.DOTALL)[1]
    assert {f".{word}" for word in re.split(r",\s+|\s+or\s+", listed)} == formats.MEDIA_EXTENSIONS
    names = re.split(r", | or | elementary stream", formats.READ_IN_WORDS)
    assert [name for name in names if name not in section] == []


def test_folders_of_the_cli_and_of_data_sets_take_the_same_files(tmp_path):
    for extension in (*formats.MEDIA_EXTENSIONS, ".txt", ".srt", ".json"):
        (tmp_path / f"a{extension}").touch()
        (tmp_path / f"B{extension.upper()}").touch()

    found = cli.commands.index.collect_files([tmp_path], every_file=False)
    folder = clipbert.datasets.media_folder.MediaFolder(tmp_path)

    assert {path.suffix.lower() for path in found.files} == formats.MEDIA_EXTENSIONS
    assert len(found.files) == len(folder) == 2 * len(formats.MEDIA_EXTENSIONS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document"),
        (b"%PDF-1.4\nall in plain letters", "a PDF document"),
        (b"ID3\x04\x00" + bytes(100), "an MP3 sound file"),
        (b"\xff\xfb\x90\x64" + bytes(100), "an MP3 or AAC sound file"),
        (b"RIFF\x00\x01\x00\x00WAVEfmt ", "a WAVE sound file"),
        (b"fLaC\x00\x00", "a FLAC sound file"),
        (b"\xef\xbb\xbf  <!DOCTYPE HTML><title>Not found</title>", "an HTML page"),
        (b"<?xml version='1.0'?>\n<MPD/>", "a playlist (DASH)"),
        (b"<?xml version='1.0'?>\n<svg/>", "an SVG drawing"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n", "a playlist (HLS or M3U)"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "a list of files to concatenate"),
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\n", "a session description"),
        (b"WEBVTT\n\n", "a file of subtitles"),
        (b'{"items": []}', "a JSON file"),
        (b"Dear all,\nhere is the film.\n", "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"II*\x00" + bytes(100), "a TIFF"),
        (bytes(5000), "nothing but zero bytes"),
        (b"\x07\x01\x00\xff\x80", "of no kind known here"),
    ],
)
@pytest.mark.parametrize("extension", [".mp4", ""])
def test_a_refusal_says_what_the_file_is_and_what_is_read(tmp_path, content, words, extension):
    path = tmp_path / f"holiday{extension}"
    path.write_bytes(content)

    with pytest.raises(UnsupportedMedia) as raised:
        probe_video(path)

    assert f"{path.name} is {words}" in str(raised.value)
    assert "what is read is MP4" in str(raised.value)
