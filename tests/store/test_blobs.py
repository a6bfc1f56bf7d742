"""Both stores of blobs behave alike; the remote one is fsspec's in memory."""

import os
import tempfile
import threading
import time
from uuid import uuid4

import pytest

from store.blobs import STAGED, STAGING, LocalBlobs, open_blobs
from store.errors import BlobNotFound, InvalidBlobKey

KEY = "media/ab/abcd"


@pytest.fixture(params=["local", "remote"])
def blobs(request, tmp_path):
    if request.param == "local":
        return open_blobs((tmp_path / "a folder").as_uri())
    return open_blobs(f"memory://{uuid4().hex}/prefix")


def files_of(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_blob_is_read_as_it_was_written(blobs, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"from a file")
    with blobs.open_write("a/written") as file:
        file.write(b"in ")
        file.write(b"parts")
    blobs.put_bytes("a/bytes", b"from memory")
    blobs.put_file("a/file", path)

    read = {}
    for name in ("written", "bytes", "file"):
        with blobs.open_read(f"a/{name}") as file:
            read[name] = file.read()

    assert read == {"written": b"in parts", "bytes": b"from memory", "file": b"from a file"}
    assert path.exists()


def test_a_file_is_taken_over(blobs):
    staged = blobs.staging_folder() / f"upload-{uuid4().hex}"
    staged.write_bytes(b"upload")

    blobs.take_file(KEY, staged)

    assert blobs.size(KEY) == 6
    staged.unlink(missing_ok=True)


def test_ranges_end_before_their_end_and_at_the_end_of_the_blob(blobs):
    blobs.put_bytes(KEY, bytes(range(10)))

    assert blobs.read_range(KEY, start=0, end=4) == bytes([0, 1, 2, 3])
    assert blobs.read_range(KEY, start=8, end=100) == bytes([8, 9])
    assert blobs.read_range(KEY, start=10, end=20) == b""
    assert blobs.read_range(KEY, start=5, end=5) == b""
    with blobs.open_read(KEY) as file:
        file.seek(7)
        assert file.read(2) == bytes([7, 8])


def test_a_blob_is_replaced_whole(blobs):
    blobs.put_bytes(KEY, b"a long first content")
    blobs.put_bytes(KEY, b"short")

    assert blobs.read_range(KEY, start=0, end=100) == b"short"
    assert blobs.size(KEY) == 5


def test_writing_that_breaks_off_leaves_what_was_there(blobs):
    blobs.put_bytes(KEY, b"before")

    def break_off(key):
        with blobs.open_write(key) as file:
            file.write(b"half")
            raise RuntimeError("broken")

    for key in (KEY, "new"):
        with pytest.raises(RuntimeError, match="broken"):
            break_off(key)

    assert blobs.read_range(KEY, start=0, end=100) == b"before"
    assert not blobs.exists("new")


def test_a_blob_that_is_not_there_is_not_found(blobs):
    blobs.put_bytes("a/b", b"")

    assert not blobs.exists("a")
    for key in ("a", "a/c", "b"):
        for read in (
            blobs.size,
            lambda key: blobs.read_range(key, start=0, end=1),
            lambda key: blobs.open_read(key).__enter__(),
            lambda key: blobs.as_local_file(key).__enter__(),
        ):
            with pytest.raises(BlobNotFound, match=key):
                read(key)


def test_deleting_is_quiet_about_what_is_not_there(blobs):
    blobs.put_bytes("a/b/c", b"x")
    blobs.put_bytes("a/d", b"x")

    blobs.delete("a/b/c")
    blobs.delete("a/b/c")
    blobs.delete("e/f")

    assert not blobs.exists("a/b/c")
    assert blobs.exists("a/d")


def test_a_blob_can_be_had_as_a_file(blobs):
    blobs.put_bytes("media/ab/film.mp4", b"frames")

    with blobs.as_local_file("media/ab/film.mp4") as path:
        assert path.read_bytes() == b"frames"
        assert path.name == "film.mp4"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../secret",
        "a/../../secret",
        "a/./b",
        "a//b",
        "a/",
        ".staging/x",
        "a/.hidden",
        "a\\..\\b",
        "a\0b",
        "a\nb",
        "\ud800",
        "x" * 901,
    ],
)
def test_a_key_that_could_leave_the_store_is_refused(blobs, key):
    for use in (
        blobs.size,
        blobs.exists,
        blobs.delete,
        blobs.local_path,
        lambda key: blobs.put_bytes(key, b""),
        lambda key: blobs.open_read(key).__enter__(),
        lambda key: blobs.open_write(key).__enter__(),
    ):
        with pytest.raises(InvalidBlobKey):
            use(key)


def test_local_blobs_are_files_already(tmp_path):
    blobs = LocalBlobs(tmp_path / "blobs")
    blobs.put_bytes(KEY, b"x")

    assert blobs.local_path(KEY) == tmp_path / "blobs" / KEY
    with blobs.as_local_file(KEY) as path:
        assert path == tmp_path / "blobs" / KEY
    for key in ("other", f"{KEY}/below"):
        with pytest.raises(BlobNotFound):
            blobs.local_path(key)
        with pytest.raises(BlobNotFound):
            blobs.read_range(key, start=0, end=1)
    blobs.delete(f"{KEY}/below")


def test_nobody_sees_half_a_blob_or_its_remains(tmp_path):
    blobs = LocalBlobs(tmp_path)
    with blobs.open_write(KEY) as file:
        file.write(b"half")
        file.flush()
        assert not blobs.exists(KEY)
    blobs.put_bytes("other", b"x")

    assert sorted(files_of(tmp_path)) == [tmp_path / KEY, tmp_path / "other"]


def test_deleting_takes_empty_folders_along(tmp_path):
    blobs = LocalBlobs(tmp_path)
    blobs.put_bytes("a/b/c", b"x")
    blobs.put_bytes("a/d", b"x")

    blobs.delete("a/b/c")

    assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "d").exists()


def test_writing_beside_a_deletion_loses_nothing(tmp_path):
    blobs, stop = LocalBlobs(tmp_path), threading.Event()

    def delete():
        while not stop.is_set():
            blobs.delete("folder/other")

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        for number in range(200):
            blobs.put_bytes(f"folder/{number}", b"x")
            assert blobs.exists(f"folder/{number}")
            blobs.delete(f"folder/{number}")
    finally:
        stop.set()
        thread.join()


def test_keys_below_a_folder_are_listed(blobs):
    for key in ("media/ab/1", "media/cd/2", "mediaeval/3", "tokens/4"):
        blobs.put_bytes(key, b"x")

    assert sorted(blobs.keys("media")) == ["media/ab/1", "media/cd/2"]
    assert list(blobs.keys("models")) == []


def test_a_download_can_be_ended_between_two_pieces():
    blobs = open_blobs(f"memory://{uuid4().hex}")
    blobs.put_bytes(KEY, b"film")

    def end():
        raise InterruptedError

    with pytest.raises(InterruptedError), blobs.as_local_file(KEY, on_piece=end):
        pass


def test_folders_that_a_killed_process_left_are_removed_after_a_day(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, new, foreign = (
        tmp_path / name for name in (f"{STAGED}old", f"{STAGED}new", "clipbert-not-ours")
    )
    for folder in (old, new, foreign):
        folder.mkdir()
        (folder / "poster.jpg").touch()
    for folder in (old, foreign):
        os.utime(folder, (time.time() - 90_000,) * 2)

    open_blobs("memory://x")

    assert sorted(tmp_path.iterdir()) == sorted([new, foreign])


def test_what_a_killed_writer_left_is_removed_after_a_day(tmp_path):
    LocalBlobs(tmp_path)
    old, new = tmp_path / STAGING / "old", tmp_path / STAGING / "new"
    for path, age_seconds in ((old, 90_000), (new, 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age_seconds,) * 2)

    LocalBlobs(tmp_path)

    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("url", ["blobs", "/blobs", "file://host/blobs", "file:blobs"])
def test_a_url_that_names_no_folder_is_refused(url):
    with pytest.raises(ValueError, match="file:///"):
        open_blobs(url)
