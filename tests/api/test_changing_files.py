"""Files in place that change under the API's hands, and what people are told of it."""

import hashlib
import os
import time
import unicodedata

import pytest

from api.responses.media import FileWritten, open_media
from api.services import content_checks
from api.services.media_roots import MediaRoots
from store.media_files import stamp_of
from store.videos.locations import VideoLocations
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState


@pytest.fixture
def place(media_root):
    path = media_root / "changing.mp4"
    path.write_bytes(b"before")
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def video_id(make_video, place):
    return make_video(b"before", uri=place.as_uri(), filename="changing.mp4")


def media(client, video_id):
    return client.get(f"/v1/videos/{video_id}/media")


def row(sessions, video_id):
    with sessions.begin() as session:
        return VideoRepository(session).get(video_id)


def test_a_file_with_other_content_is_not_sent_however_its_times_were_set(client, place, video_id):
    before = place.stat()
    assert media(client, video_id).content == b"before"
    for content in (b"after!", b"longer than before"):
        place.write_bytes(content)
        os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))

        answer = media(client, video_id)

        assert (answer.status_code, answer.json()["code"]) == (409, "media_changed")
    place.write_bytes(b"before")
    assert media(client, video_id).content == b"before"


def test_a_file_is_hashed_once_and_known_by_its_stamp_afterwards(
    client, sessions, place, video_id, monkeypatch
):
    while time.time_ns() - place.stat().st_ctime_ns < 2_100_000_000:
        time.sleep(0.1)  # until its stamp can be trusted
    assert media(client, video_id).status_code == 200
    assert row(sessions, video_id).file_stamp == stamp_of(place.stat())

    hashed = []
    monkeypatch.setattr(
        content_checks, "hash_descriptor", lambda *_: hashed.append(1) or "another hash"
    )
    assert media(client, video_id).status_code == 200
    assert hashed == []

    place.write_bytes(b"after!")
    assert media(client, video_id).status_code == 409
    assert hashed == [1]


def test_sending_ends_when_the_file_is_written_to(place, blobs, media_root, video_id, sessions):
    content = os.urandom(600_000)
    place.write_bytes(content)
    video = row(sessions, video_id)
    video.sha256, video.size_bytes = hashlib.sha256(content).hexdigest(), 600_000
    source = open_media(
        video, blobs=blobs, media_roots=MediaRoots([media_root]), on_checked=lambda _: None
    )
    pieces = source.read(0, source.size_bytes)
    assert content.startswith(next(pieces))
    time.sleep(0.02)  # more than a tick of the file system's clock

    with place.open("r+b") as file:
        file.seek(300_000)
        file.write(b"other")

    with pytest.raises(FileWritten):
        b"".join(pieces)


def test_a_superseded_video_is_shown_by_its_id_only_and_none_of_its_pictures(
    client, sessions, make_video, video_id
):
    new_id = make_video(b"after!", filename="changing.mp4")
    with sessions.begin() as session:
        VideoLocations(session).supersede([video_id], by=new_id)

    shown = client.get(f"/v1/videos/{video_id}").json()
    assert (shown["state"], shown["superseded_by"]) == ("superseded", str(new_id))
    listed = client.get("/v1/videos").json()["items"]
    assert [video["id"] for video in listed] == [str(new_id)]
    listed = client.get("/v1/videos", params={"state": "superseded"}).json()["items"]
    assert [video["id"] for video in listed] == [str(video_id)]
    for part in ("media", "thumbnails/poster"):
        answer = client.get(f"/v1/videos/{video_id}/{part}")
        assert (answer.status_code, answer.json()["code"]) == (409, "media_changed")
        assert answer.json()["superseded_by"] == str(new_id)


def test_a_question_about_a_superseded_video_names_the_one_to_ask_about(
    client, sessions, make_video, video_id, generation_id
):
    new_id = make_video(b"after!")
    with sessions.begin() as session:
        VideoLocations(session).supersede([video_id], by=new_id)

    answer = client.post(
        "/v1/questions", json={"video_id": str(video_id), "text": "?", "choices": ["a", "b"]}
    )

    assert (answer.status_code, answer.json()["code"]) == (409, "video_not_ready")
    assert str(new_id) in answer.json()["detail"]


def test_a_video_whose_file_is_gone_is_missing_until_the_file_returns(
    client, sessions, place, video_id
):
    def states():
        listed = client.get("/v1/videos").json()["items"]
        missing = client.get("/v1/videos", params={"state": "missing"}).json()["items"]
        ready = client.get("/v1/videos", params={"state": "ready"}).json()["items"]
        return [video["state"] for video in listed], len(missing), len(ready)

    assert states() == (["ready"], 0, 1)
    hidden = place.rename(place.with_name("hidden"))

    assert media(client, video_id).json()["code"] == "media_gone"

    assert states() == (["missing"], 1, 0)
    assert row(sessions, video_id).state == VideoState.READY
    hidden.rename(place)
    assert media(client, video_id).status_code == 200
    assert states() == (["ready"], 0, 1)


def test_a_path_is_refused_at_once_with_the_reason(client, media_root):
    (media_root / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(media_root / "fifo.mp4")
    wanted = {
        "loop.mp4": "circle",
        "fifo.mp4": "not a file",
        "n" * 300: "too long",
        "gone.mp4": "no such file",
    }

    for name, reason in wanted.items():
        answer = client.post("/v1/videos", json={"uri": f"{media_root}/{name}"})
        assert (answer.status_code, answer.json()["code"]) == (422, "media_not_found")
        assert reason in answer.json()["detail"]
        assert name in answer.json()["detail"]
    (media_root / "loop.mp4").unlink()
    (media_root / "fifo.mp4").unlink()


def test_a_name_is_found_in_whatever_unicode_form_it_is_asked_for(client, make_video):
    video_id = make_video(b"cheese", filename="Käse.mp4")

    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "Käse.mp4")
        for query in ({"name": name}, {"name_part": name[:4]}):
            found = client.get("/v1/videos", params=query).json()["items"]
            assert [video["id"] for video in found] == [str(video_id)]
        label = {"video": name, "question": "what is it?", "answer": "cheese"}
        assert client.post("/v1/labels", json=label).json()["video_id"] == str(video_id)


def test_strict_is_asked_of_the_ingest_job(client, place):
    answer = client.post("/v1/videos", json={"uri": str(place), "strict": True})
    assert answer.json()["input"]["strict"] is True
    answer = client.post("/v1/videos", files={"file": ("a.mp4", b"x")}, data={"strict": "true"})
    assert answer.json()["input"]["strict"] is True
    answer = client.post("/v1/videos", json={"uri": str(place)})
    assert "strict" not in answer.json()["input"]
    batch = client.post("/v1/batches", json={"items": [{"uri": str(place), "strict": True}]})
    [item] = client.get(f"/v1/batches/{batch.json()['id']}/items").json()["items"]
    assert client.get(f"/v1/jobs/{item['job_id']}").json()["input"]["strict"] is True
