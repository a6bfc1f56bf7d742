import os

import pytest

from clipbert.errors import MediaNotFound, UnsupportedMedia
from workers.errors import JobError, MediaChanged
from workers.media import hash_file, open_media


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    return root


def opened(uri, root, blobs, blob_key=None):
    with open_media(uri=uri, blob_key=blob_key, roots=[root], blobs=blobs) as media:
        return media


def test_a_file_under_a_root_opens_under_its_real_path(root, blobs):
    (root / "a b.mp4").write_bytes(b"film")
    (root / "link.mp4").symlink_to("a b.mp4")

    assert opened((root / "a b.mp4").as_uri(), root, blobs).size_bytes == 4
    assert opened((root / "link.mp4").as_uri(), root, blobs).path == root / "a b.mp4"


def test_nothing_outside_the_roots_opens(root, blobs, tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    (root / "link.mp4").symlink_to(secret)
    (tmp_path / "videos-2").mkdir()
    (tmp_path / "videos-2" / "v.mp4").write_bytes(b"film")
    uris = [
        secret.as_uri(),
        f"file://{root}/../secret.mp4",
        (root / "link.mp4").as_uri(),
        (tmp_path / "videos-2" / "v.mp4").as_uri(),
        "http://localhost/v.mp4",
        "file://otherhost/v.mp4",
        "/etc/passwd",
    ]

    for uri in uris:
        with pytest.raises(JobError) as caught:
            opened(uri, root, blobs)
        assert caught.value.code == "outside_media_roots", uri


def test_a_missing_file_and_a_missing_blob_say_so(root, blobs):
    with pytest.raises(MediaNotFound):
        opened((root / "gone.mp4").as_uri(), root, blobs)
    with pytest.raises(MediaNotFound):
        opened(None, root, blobs, blob_key="media/ab/abcd")


def test_folders_and_pipes_are_no_media(root, blobs):
    os.mkfifo(root / "pipe.mp4")

    for path in (root, root / "pipe.mp4"):
        with pytest.raises(UnsupportedMedia):
            opened(path.as_uri(), root, blobs)


def test_an_uploaded_blob_opens_as_a_file(root, blobs):
    blobs.put_bytes("media/ab/abcd", b"film")

    with open_media(uri=None, blob_key="media/ab/abcd", roots=[root], blobs=blobs) as media:
        assert media.path.read_bytes() == b"film"


def test_a_file_that_is_still_being_copied_is_noticed(root, blobs):
    path = root / "v.mp4"
    path.write_bytes(b"half")
    media = opened(path.as_uri(), root, blobs)

    media.check_unchanged()
    path.write_bytes(b"half and more")

    with pytest.raises(MediaChanged):
        media.check_unchanged()


def test_hashes_are_those_of_sha256sum(root):
    (root / "v.mp4").write_bytes(b"abc")

    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_file(root / "v.mp4") == expected
