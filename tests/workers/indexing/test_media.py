import os

import pytest

from clipbert.errors import MediaNotFound, UnsupportedMedia
from store.media_files import hash_descriptor, hash_file, stamp_of
from store.videos.tables import Video
from workers.errors import JobError, MediaChanged
from workers.indexing.media import name_in_uri, open_media, open_video_media


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    return root


def test_hashing_can_be_ended_between_two_pieces(root):
    path = root / "large.mp4"
    path.write_bytes(bytes(3 << 20))
    pieces = []

    def end_at_second():
        pieces.append(1)
        if len(pieces) == 2:
            raise InterruptedError

    with path.open("rb") as file, pytest.raises(InterruptedError):
        hash_descriptor(file.fileno(), on_piece=end_at_second)


def opening(uri, root, blobs, blob_key=None):
    name = "upload.mp4" if uri is None else name_in_uri(uri)
    return open_media(uri=uri, blob_key=blob_key, name=name, roots=[root], blobs=blobs)


def opened(uri, root, blobs, blob_key=None):
    with opening(uri, root, blobs, blob_key) as media:
        return media


def test_a_file_under_a_root_opens_under_its_real_path(root, blobs):
    (root / "a b.mp4").write_bytes(b"film")
    (root / "link.mp4").symlink_to("a b.mp4")

    assert opened((root / "a b.mp4").as_uri(), root, blobs).size_bytes == 4
    assert opened((root / "link.mp4").as_uri(), root, blobs).real_path == root / "a b.mp4"


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

    key = "media/ab/abcd"
    with open_media(uri=None, blob_key=key, name="v.mp4", roots=[root], blobs=blobs) as media:
        assert media.path.read_bytes() == b"film"
        assert media.name == "v.mp4"


def test_a_name_that_is_no_utf8_opens_and_is_told_as_text(root, blobs):
    path = root / os.fsdecode(b"bad\xff.mp4")
    path.write_bytes(b"film")

    with opening(path.as_uri(), root, blobs) as media:
        assert (media.real_path, media.name) == (path, "bad\N{REPLACEMENT CHARACTER}.mp4")
        path.unlink()
        with pytest.raises(MediaNotFound, match="bad\N{REPLACEMENT CHARACTER}"):
            media.check_in_place()


def test_a_file_that_is_still_being_copied_is_noticed(root, blobs):
    path = root / "v.mp4"
    path.write_bytes(b"half")
    with opening(path.as_uri(), root, blobs) as media:
        media.check_in_place()
        path.write_bytes(b"half and more")

        with pytest.raises(MediaChanged):
            media.check_unwritten()


def test_a_file_that_another_was_put_in_the_place_of_is_noticed_and_still_read(root, blobs):
    path = root / "v.mp4"
    path.write_bytes(b"film")
    with opening(path.as_uri(), root, blobs) as media:
        (root / "new").write_bytes(b"mlif")
        (root / "new").replace(path)

        media.check_unwritten()
        assert media.path.read_bytes() == b"film"
        with pytest.raises(MediaChanged):
            media.check_in_place()


def test_what_is_indexed_is_read_and_nothing_else(root, blobs):
    path = root / "v.mp4"
    path.write_bytes(b"film")
    sha256 = hash_file(path)

    for size_bytes, file_stamp in ((4, None), (None, "another stamp"), (4, stamp_of(path.stat()))):
        video = Video(
            uri=path.as_uri(), sha256=sha256, size_bytes=size_bytes, file_stamp=file_stamp
        )
        with open_video_media(video, roots=[root], blobs=blobs) as media:
            assert media.path.read_bytes() == b"film"

    path.write_bytes(b"mlif")
    for size_bytes in (4, None):
        video = Video(uri=path.as_uri(), sha256=sha256, size_bytes=size_bytes)
        with (
            pytest.raises(JobError) as caught,
            open_video_media(video, roots=[root], blobs=blobs),
        ):
            pass
        assert caught.value.code == "media_changed"


def test_hashes_are_those_of_sha256sum(root):
    (root / "v.mp4").write_bytes(b"abc")

    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_file(root / "v.mp4") == expected
