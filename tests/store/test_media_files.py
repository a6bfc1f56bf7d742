import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store.errors import MediaFileMissing, NotARegularFile, OutsideMediaRoots
from store.media_files import (
    hash_descriptor,
    is_settled,
    open_media_file,
    stamp_of,
    trusted_stamp,
)

INSIDE, OUTSIDE = b"a film", b"a secret"

# Puts a file, then a link to a secret, then the file in the place of one name, for ever.
SWAP_FILE = """
import os, sys
folder, secret = sys.argv[1:]
os.chdir(folder)
while True:
    os.symlink(secret, "link"); os.replace("link", "v.mp4")
    with open("new", "wb") as file: file.write(b"a film")
    os.replace("new", "v.mp4")
"""
# The same with a folder on the way, by the kernel's own exchange of two names.
SWAP_FOLDER = """
import ctypes, os, sys
folder, secrets = sys.argv[1:]
os.chdir(folder)
os.symlink(secrets, "other")
libc = ctypes.CDLL(None, use_errno=True)
while True:
    if libc.renameat2(-100, b"sub", -100, b"other", 2) != 0: sys.exit(1)
"""


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "videos"
    (root / "sub").mkdir(parents=True)
    (root / "v.mp4").write_bytes(INSIDE)
    (root / "sub" / "v.mp4").write_bytes(INSIDE)
    return root


@pytest.fixture
def secrets(tmp_path):
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "v.mp4").write_bytes(OUTSIDE)
    return folder


def content(path, *roots):
    with open_media_file(path, roots) as file:
        return os.pread(file.descriptor, 100, 0)


@pytest.mark.parametrize(
    ("program", "place", "target"),
    [(SWAP_FILE, "v.mp4", "v.mp4"), (SWAP_FOLDER, "sub/v.mp4", ".")],
    ids=["file", "folder"],
)
def test_no_outside_file_opens_while_somebody_swaps_it_for_a_link(
    root, secrets, program, place, target
):
    attacker = subprocess.Popen([sys.executable, "-c", program, root, secrets / target])
    got = []
    try:
        ends_at = time.monotonic() + 120
        # Until both have been met often, so that the swaps fall between the steps of an opening.
        while len(got) < 1000 or not {INSIDE, OutsideMediaRoots} <= set(got):
            assert time.monotonic() < ends_at, set(got)
            assert attacker.poll() is None
            try:
                got.append(content(root / place, root))
            except (OutsideMediaRoots, MediaFileMissing) as error:
                got.append(type(error))
    finally:
        attacker.kill()
        attacker.wait()

    assert OUTSIDE not in got
    assert set(got) <= {INSIDE, OutsideMediaRoots, MediaFileMissing}


def test_links_are_followed_as_long_as_they_lead_under_a_root(root, secrets, tmp_path):
    (root / "sub" / "up.mp4").symlink_to("../v.mp4")
    (root / "absolute.mp4").symlink_to(root / "sub" / "up.mp4")
    (root / "folder").symlink_to("sub")
    (tmp_path / "root link").symlink_to("videos")
    (tmp_path / "elsewhere").symlink_to(root / "sub")

    for path in (
        root / "sub" / "up.mp4",
        root / "absolute.mp4",
        root / "folder" / "v.mp4",
        tmp_path / "root link" / "v.mp4",
        tmp_path / "elsewhere" / "v.mp4",
        root / "sub" / ".." / "v.mp4",
    ):
        assert content(path, root) == INSIDE
        assert content(path, tmp_path / "root link") == INSIDE

    (root / "out.mp4").symlink_to(secrets / "v.mp4")
    (root / "out").symlink_to(secrets)
    for path in (root / "out.mp4", root / "out" / "v.mp4", root / ".." / "secrets" / "v.mp4"):
        with pytest.raises(OutsideMediaRoots):
            content(path, root)


def test_what_cannot_be_opened_is_named_with_its_path_and_the_reason(root):
    (root / "loop.mp4").symlink_to("loop.mp4")
    (root / "dangling.mp4").symlink_to("nothing.mp4")
    reasons = {
        root / "gone.mp4": "no such file",
        root / "dangling.mp4": "no such file",
        root / "loop.mp4": "circle",
        root / ("n" * 300 + ".mp4"): "too long",
        root / "v.mp4" / "x.mp4": "not a folder",
    }

    for path, reason in reasons.items():
        with pytest.raises(MediaFileMissing, match=reason) as caught:
            content(path, root)
        assert str(path) in str(caught.value)


def test_whether_there_is_a_file_outside_is_not_told(root, secrets):
    for path in (secrets / "v.mp4", secrets / "gone.mp4", secrets.parent / "gone" / "x.mp4"):
        with pytest.raises(OutsideMediaRoots):
            content(path, root)


def test_folders_pipes_and_sockets_are_refused_without_opening_them(root):
    os.mkfifo(root / "pipe.mp4")  # opening it would wait for a writer for ever

    for path in (root / "pipe.mp4", root / "sub", root):
        with pytest.raises(NotARegularFile):
            content(path, root)


def test_a_disk_that_is_not_mounted_is_a_missing_file(root, tmp_path):
    absent = tmp_path / "unmounted"

    with pytest.raises(MediaFileMissing):
        content(absent / "v.mp4", root, absent)


def test_no_descriptor_stays_open(root, secrets):
    (root / "out.mp4").symlink_to(secrets / "v.mp4")

    def num_open():
        return len([*Path("/proc/self/fd").iterdir()])

    before = num_open()
    for path in (root / "v.mp4", root / "out.mp4", root / "gone.mp4", root / "sub"):
        for _ in range(5):
            try:
                content(path, root)
            except (OutsideMediaRoots, MediaFileMissing, NotARegularFile):
                continue

    assert num_open() == before


def test_a_stamp_shows_what_the_time_of_writing_hides(root):
    path = root / "v.mp4"
    before = path.stat()
    path.write_bytes(INSIDE[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    after = path.stat()

    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert stamp_of(after) != stamp_of(before)


def test_a_stamp_of_what_was_just_written_is_not_trusted(root):
    path = root / "v.mp4"
    old = path.stat()
    while time.time_ns() - old.st_ctime_ns < 2_100_000_000:
        time.sleep(0.1)

    assert trusted_stamp(old) == stamp_of(old)
    # A camera's clock that is years ahead says nothing of when the file was written.
    os.utime(path, (time.time() + 1e8, time.time() + 1e8))
    assert trusted_stamp(path.stat()) is None
    assert is_settled(path.stat(), for_ns=0)


def test_a_hash_is_of_the_open_file_whatever_lies_at_its_place(root):
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path = root / "abc"
    path.write_bytes(b"abc")

    with open_media_file(path, [root]) as file:
        path.unlink()
        path.write_bytes(b"other")

        assert hash_descriptor(file.descriptor) == expected
