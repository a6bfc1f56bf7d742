import os

import pytest

from clipbert_client.file_to_send import FileToSend
from clipbert_client.text import sendable_name


def test_a_file_is_sent_with_the_length_that_it_had_at_the_start(tmp_path):
    path = tmp_path / "growing"
    path.write_bytes(b"film")

    with FileToSend(path) as content:
        path.write_bytes(b"film and more")
        read = content.read(100), content.read(100)

    assert (content.size_bytes, read) == (4, (b"film", b""))


def test_a_file_that_became_shorter_is_not_sent_as_if_it_were_whole(tmp_path):
    path = tmp_path / "shrinking"
    path.write_bytes(b"film")

    with FileToSend(path) as content:
        path.write_bytes(b"")
        with pytest.raises(OSError, match="became shorter"):
            content.read(100)


def test_a_name_is_sent_as_text_on_one_line():
    assert sendable_name(os.fsdecode(b"bad\xff.mp4")) == "bad\N{REPLACEMENT CHARACTER}.mp4"
    assert sendable_name("two\nlines.mp4") == "two lines.mp4"
    assert sendable_name('"ü".mp4') == "'ü'.mp4"
