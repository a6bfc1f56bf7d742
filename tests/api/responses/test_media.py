import os
from pathlib import Path

import pytest

from api.errors import ApiError
from api.responses.ranges import Span, span_of_range
from store.videos.repository import VideoRepository

CONTENT = bytes(range(256)) * 4000  # more than one piece


@pytest.fixture(params=["upload", "file"])
def media(request, client, make_video, media_root):
    if request.param == "upload":
        video_id = make_video(CONTENT)
    else:
        path = media_root / "ranges.mp4"
        path.write_bytes(CONTENT)
        video_id = make_video(CONTENT, uri=path.as_uri())
    return f"/v1/videos/{video_id}/media"


def test_the_whole_file_is_sent(client, media):
    answer = client.get(media)

    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "parrot.mp4" in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=500000-", 500000, len(CONTENT)),
        ("bytes=-7", len(CONTENT) - 7, len(CONTENT)),
        ("bytes=-99999999", 0, len(CONTENT)),
        ("bytes=5-99999999", 5, len(CONTENT)),
        ("BYTES = 1-2", 1, 3),
    ],
)
def test_a_part_is_sent(client, media, wanted, start, end):
    answer = client.get(media, headers={"Range": wanted})

    assert answer.status_code == 206
    assert answer.content == CONTENT[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("wanted", [f"bytes={len(CONTENT)}-", "bytes=99999999-", "bytes=-0"])
def test_a_part_behind_the_end_is_refused(client, media, wanted):
    answer = client.get(media, headers={"Range": wanted})

    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,4-5", "frames=0-1", "bytes=a-b", "bytes=5-2", "bytes=-", "bytes=", "x"]
)
def test_a_range_that_is_not_understood_gives_the_whole(client, media, wanted):
    answer = client.get(media, headers={"Range": wanted})

    assert (answer.status_code, len(answer.content)) == (200, len(CONTENT))


def test_the_head_tells_size_and_etag_only(client, media):
    head = client.head(media)
    part = client.head(media, headers={"Range": "bytes=0-9"})

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(CONTENT))
    assert head.headers["etag"] == client.get(media).headers["etag"]
    assert (part.status_code, part.headers["content-length"]) == (206, "10")


def test_what_the_client_has_is_not_sent_again(client, media):
    etag = client.get(media).headers["etag"]

    assert client.get(media, headers={"If-None-Match": etag}).status_code == 304
    assert client.get(media, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_range_is_sent_only_if_the_file_is_still_the_same(client, media):
    etag = client.get(media).headers["etag"]
    wanted = {"Range": "bytes=0-9"}

    assert client.get(media, headers={**wanted, "If-Range": etag}).status_code == 206
    assert client.get(media, headers={**wanted, "If-Range": '"old"'}).status_code == 200


def test_no_file_stays_open(client, media):
    def num_open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    client.get(media)
    before = num_open_files()
    for headers in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=99999999-"}):
        for _ in range(5):
            client.get(media, headers=headers)
            client.head(media, headers=headers)
            client.get(media, headers={**headers, "If-None-Match": "*"})

    assert num_open_files() <= before


def test_a_file_that_is_gone_or_no_longer_under_a_root_is_not_sent(
    client, make_video, media_root, tmp_path
):
    gone = make_video(b"gone", uri=(media_root / "gone.mp4").as_uri())
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"outside")
    moved = make_video(b"outside", uri=outside.as_uri())
    link = media_root / "later-a-link.mp4"
    link.symlink_to(outside)
    linked = make_video(b"linked", uri=link.as_uri())
    pipe = media_root / "pipe.mp4"
    os.mkfifo(pipe)
    piped = make_video(b"piped", uri=pipe.as_uri())

    codes = [
        client.get(f"/v1/videos/{video_id}/media").json()["code"]
        for video_id in (gone, moved, linked, piped)
    ]

    assert codes == ["media_gone", "outside_media_roots", "outside_media_roots", "media_gone"]
    link.unlink()
    pipe.unlink()


@pytest.mark.parametrize(
    ("filename", "container", "media_type"),
    [
        ("a.mp4", None, "video/mp4"),
        ("a.html", "mov,mp4", "video/mp4"),
        ("a.html", None, "application/octet-stream"),
        ("a.svg", "svg_pipe", "application/octet-stream"),
        ("noname", "matroska,webm", "video/x-matroska"),
    ],
)
def test_the_type_is_never_one_that_a_browser_runs(
    *, client, make_video, sessions, filename, container, media_type
):
    video_id = make_video(filename.encode(), filename=filename)
    with sessions.begin() as session:
        VideoRepository(session).get(video_id).container = container

    assert client.get(f"/v1/videos/{video_id}/media").headers["content-type"] == media_type


def test_an_etag_that_is_insisted_on_must_be_the_file_s(client, media):
    etag = client.get(media).headers["etag"]

    for same in (etag, f'"other", {etag}', "*"):
        assert client.get(media, headers={"If-Match": same}).status_code == 200
    for other in ('"other"', f"W/{etag}"):
        refused = client.get(media, headers={"If-Match": other, "Range": "bytes=0-9"})
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")


def test_an_empty_file_has_no_part():
    with pytest.raises(ApiError):
        span_of_range("bytes=0-", 0)

    assert span_of_range("bytes=2-5", 10) == Span(2, 6)
