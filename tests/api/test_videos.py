import hashlib
import os
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from api.intake.uploads import clean_filename
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from store.videos.batches import BatchRepository
from store.videos.contents import media_key, remove_unneeded_content
from store.videos.repository import VideoRepository
from workers.dispatch import Doorbell

VIDEO = b"\0\1\2 not really a video" * 1000


def job_of(sessions, answer):
    with sessions() as session:
        return JobRepository(session).get(UUID(answer.json()["id"]))


def write(folder: Path, name: str, content: bytes = VIDEO) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# Uploads


def test_an_upload_is_stored_by_its_hash_and_becomes_an_ingest_job(client, sessions, blobs):
    data = {"tags": ["birds", "white"], "metadata": '{"camera": 7}'}
    answer = client.post("/v1/videos", files={"file": ("parrot.mp4", VIDEO)}, data=data)

    sha256 = hashlib.sha256(VIDEO).hexdigest()
    job = job_of(sessions, answer)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job.id}"
    assert job.kind == JobKind.INGEST
    assert job.input == {
        "blob_key": f"media/{sha256[:2]}/{sha256}",
        "sha256": sha256,
        "filename": "parrot.mp4",
        "tags": ["birds", "white"],
        "metadata": {"camera": 7},
    }
    with blobs.open_read(job.input["blob_key"]) as file:
        assert file.read() == VIDEO


def test_content_that_is_known_is_linked_at_once(client, make_video):
    video_id = make_video(VIDEO)

    answer = client.post("/v1/videos", files={"file": ("again.mp4", VIDEO)})

    assert answer.status_code == 202
    assert answer.json()["video_id"] == str(video_id)


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 7])
def test_uploads_of_any_size_arrive_whole(client, sessions, blobs, size):
    content = os.urandom(size)

    answer = client.post("/v1/videos", files={"file": ("v.mp4", content)})

    job = job_of(sessions, answer)
    with blobs.open_read(job.input["blob_key"]) as file:
        assert file.read() == content


def test_content_that_looks_like_a_boundary_arrives_whole(client, sessions, blobs):
    content = b"\r\n--frontier\r\n--frontierX--\r\n\r\n--front" * 100
    body = (
        b'--frontiers\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n'
        b"Content-Type: video/mp4\r\n\r\n" + content + b"\r\n--frontiers--\r\n"
    )

    headers = {"Content-Type": 'multipart/form-data; boundary="frontiers"'}
    answer = client.post("/v1/videos", content=body, headers=headers)

    with blobs.open_read(job_of(sessions, answer).input["blob_key"]) as file:
        assert file.read() == content


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_that_is_too_large_is_refused_and_leaves_nothing(
    client, sessions, blob_folder, announced
):
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\n'
    body = head + b"x" * (5 * 2**20) + b"\r\n--b--\r\n"
    pieces = (body[i : i + 65536] for i in range(0, len(body), 65536))
    headers = {"Content-Type": "multipart/form-data; boundary=b"}

    answer = client.post("/v1/videos", content=body if announced else pieces, headers=headers)

    assert answer.status_code == 413
    assert answer.json()["code"] == "payload_too_large"
    assert list((blob_folder / ".staging").iterdir()) == []
    with sessions() as session:
        assert JobRepository(session).list().items == []


PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\nabc'


def test_text_before_the_first_part_is_ignored(client, sessions, blobs):
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    form = PART + b"\r\n--b--\r\n"

    for body in (b"a form --b\r\nof two lines\r\n" + form, b"\r\n" + form, form):
        answer = client.post("/v1/videos", content=body, headers=headers)

        with blobs.open_read(job_of(sessions, answer).input["blob_key"]) as file:
            assert file.read() == b"abc"


def test_a_form_whose_first_part_does_not_come_is_refused(client):
    headers = {"Content-Type": "multipart/form-data; boundary=b"}

    answer = client.post("/v1/videos", content=b"x" * 2**21, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_multipart")
    assert "have no boundary" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (PART, 400, "malformed_multipart"),  # broken off
        (b"no boundary anywhere", 400, "malformed_multipart"),
        (b"", 400, "malformed_multipart"),
        (b"--b--\r\n", 422, "invalid_request"),
        (PART + b"\r\n" + PART + b"\r\n--b--\r\n", 422, "invalid_request"),
        (PART.replace(b'; filename="v.mp4"', b"") + b"\r\n--b--\r\n", 422, "invalid_request"),
        (PART.replace(b'"file"', b'"film"') + b"\r\n--b--\r\n", 422, "invalid_request"),
        (PART.replace(b' name="file";', b"") + b"\r\n--b--\r\n", 400, "malformed_multipart"),
    ],
)
def test_broken_forms_are_refused(client, blob_folder, body, status, code):
    headers = {"Content-Type": "multipart/form-data; boundary=b"}

    answer = client.post("/v1/videos", content=body, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert list((blob_folder / ".staging").iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"colour": "red"}, "body.colour"),
        ({"metadata": "[1]"}, "body.metadata"),
        ({"metadata": "{"}, "body.metadata"),
        ({"batch_id": "x"}, "body.batch_id"),
        ({"tags": ["\0"]}, "body.tags.0"),
    ],
)
def test_wrong_fields_beside_the_file_are_named(client, fields, field):
    answer = client.post("/v1/videos", files={"file": ("v.mp4", VIDEO)}, data=fields)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\videos\\parrot.mp4", "parrot.mp4"),
        ("par\0rot\n.mp4", "parrot.mp4"),
        ("", "upload"),
        ("a/", "upload"),
        ("\u202egpj.exe", "gpj.exe"),
        ("x" * 300, "x" * 255),
        ("Ünïcode 鸟.mp4", "Ünïcode 鸟.mp4"),
    ],
)
def test_file_names_of_clients_are_only_text(sent, kept):
    assert clean_filename(sent) == kept


def test_an_upload_can_join_a_batch(client, media_root):
    uri = str(write(media_root, "in_place.mp4"))
    batch = client.post("/v1/batches", json={"items": [{"uri": uri}]}).json()

    for name in ("one.mp4", "two.mp4"):
        files = {"file": (name, name.encode())}
        answer = client.post("/v1/videos", files=files, data={"batch_id": batch["id"]})
        assert answer.status_code == 202

    items = client.get(f"/v1/batches/{batch['id']}/items").json()["items"]
    assert [item["index"] for item in items] == [0, 1, 2]
    assert [item["uri"] for item in items[1:]] == ["upload:///one.mp4", "upload:///two.mp4"]


def test_a_single_video_goes_before_bulk_and_is_of_its_key(client, media_root, sessions):
    uri = str(write(media_root, "in_place.mp4"))
    jobs = [
        client.post("/v1/videos", files={"file": ("one.mp4", b"one")}).json(),
        client.post("/v1/videos", json={"uri": uri}).json(),
    ]

    assert [job["priority"] for job in jobs] == [4, 4]
    with sessions() as session:
        found = [JobRepository(session).get(UUID(job["id"])) for job in jobs]
    assert None not in {job.api_key_id for job in found}
    assert len({job.api_key_id for job in found}) == 1


def test_an_upload_cannot_join_a_batch_that_is_not_there(client):
    files = {"file": ("v.mp4", VIDEO)}
    answer = client.post("/v1/videos", files=files, data={"batch_id": str(uuid4())})

    assert (answer.status_code, answer.json()["code"]) == (404, "batch_not_found")


def test_an_upload_that_is_refused_leaves_no_blob(client, blobs):
    key = {"Idempotency-Key": str(uuid4())}
    known = client.post("/v1/videos", files={"file": ("a.mp4", b"taken")}, headers=key)
    others = [
        ({"files": {"file": ("v.mp4", b"refused")}, "data": {"batch_id": str(uuid4())}}, 404),
        ({"files": {"file": ("v.mp4", b"refused")}, "headers": key}, 422),
    ]

    for asked, status in others:
        assert client.post("/v1/videos", **asked).status_code == status

    assert known.status_code == 202
    assert blobs.exists(media_key(hashlib.sha256(b"taken").hexdigest()))
    assert not blobs.exists(media_key(hashlib.sha256(b"refused").hexdigest()))


def test_an_upload_outlives_a_later_deletion_of_its_content(client, make_video, sessions, blobs):
    video_id = make_video(VIDEO)
    answer = client.post("/v1/videos", files={"file": ("again.mp4", VIDEO)})

    assert client.delete(f"/v1/videos/{video_id}").status_code == 204

    job = job_of(sessions, answer)
    assert (job.state, job.video_id) == (JobState.QUEUED, None)
    assert blobs.exists(job.input["blob_key"])


def test_an_upload_waits_for_a_deletion_of_its_content(client, make_video, sessions, blobs):
    video_id = make_video(VIDEO)

    with ThreadPoolExecutor(1) as pool, sessions.begin() as deleting:
        sha256 = VideoRepository(deleting).delete(video_id).sha256
        files = {"file": ("again.mp4", VIDEO)}
        uploading = pool.submit(client.post, "/v1/videos", files=files)
        wait([uploading], timeout=1)  # it meets the row that is being deleted
        deleting.commit()
        answer = uploading.result()
    remove_unneeded_content(sessions, blobs, sha256=sha256)

    assert answer.status_code == 202
    assert answer.json()["video_id"] is None
    assert blobs.exists(job_of(sessions, answer).input["blob_key"])


# Files under the media roots


@pytest.mark.parametrize("form", ["path", "uri", "localhost"])
def test_a_file_under_a_media_root_is_indexed_in_place(client, sessions, media_root, form):
    path = write(media_root, "sub folder/50% ü.mp4")
    uri = {
        "path": str(path),
        "uri": path.as_uri(),
        "localhost": path.as_uri().replace("file://", "file://localhost"),
    }[form]

    answer = client.post("/v1/videos", json={"uri": uri, "tags": ["a"]})

    assert answer.status_code == 202, answer.text
    assert job_of(sessions, answer).input == {
        "uri": path.as_uri(),
        "tags": ["a"],
        "metadata": {},
    }


def test_paths_that_lead_outside_the_media_roots_are_forbidden(client, media_root, tmp_path):
    outside = write(tmp_path, "secret.mp4")
    link = media_root / "link.mp4"
    link.symlink_to(outside)
    folder_link = media_root / "folder"
    folder_link.symlink_to(tmp_path)
    sibling = Path(f"{media_root}-other")

    for path in (
        outside,
        link,
        folder_link / "secret.mp4",
        f"{media_root}/../{outside.relative_to('/')}",
        f"{media_root}/../x",
        sibling / "x.mp4",
        "/etc/passwd",
        "/no/such/file",
    ):
        answer = client.post("/v1/videos", json={"uri": str(path)})
        assert (answer.status_code, answer.json()["code"]) == (403, "outside_media_roots"), path
    for each in (link, folder_link):
        each.unlink()


@pytest.mark.parametrize("name", ["missing.mp4", "x" * 300, "folder", ".", "loop/x"])
def test_a_file_that_is_not_there_is_told_at_once(client, media_root, name):
    (media_root / "folder").mkdir(exist_ok=True)
    loop = media_root / "loop"
    loop.symlink_to(loop)

    answer = client.post("/v1/videos", json={"uri": str(media_root / name)})

    loop.unlink()
    assert (answer.status_code, answer.json()["code"]) == (422, "media_not_found")


@pytest.mark.parametrize(
    "uri",
    [
        "http://example.com/v.mp4",
        "relative/v.mp4",
        "file://elsewhere/v.mp4",
        "file:///v.mp4?x",
        "//v.mp4",
        "file:///%00",
        "",
        "file://[",
    ],
)
def test_what_is_no_absolute_path_is_refused(client, uri):
    answer = client.post("/v1/videos", json={"uri": uri})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_another_content_type_is_refused(client):
    answer = client.post("/v1/videos", content=b"x", headers={"Content-Type": "video/mp4"})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_new_video_rings_the_ingest_queue(client, media_root, services):
    uri = str(write(media_root, "ring.mp4"))
    bell = Doorbell(services.redis_url)
    before = bell.queue_length("ingest")

    client.post("/v1/videos", json={"uri": uri})

    assert bell.queue_length("ingest") == before + 1
    bell.close()


def test_an_idempotency_key_makes_one_job(client, media_root):
    uri = str(write(media_root, "once.mp4"))
    headers = {"Idempotency-Key": str(uuid4())}

    first = client.post("/v1/videos", json={"uri": uri}, headers=headers)
    second = client.post("/v1/videos", json={"uri": uri}, headers=headers)
    batch = client.post("/v1/batches", json={"items": []}).json()
    assert first.json()["id"] == second.json()["id"]
    for other in ({"tags": ["x"]}, {"batch_id": batch["id"]}):
        answer = client.post("/v1/videos", json={"uri": uri, **other}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_conflict")


def test_an_idempotency_key_appends_to_a_batch_once(client, sessions):
    batch = client.post("/v1/batches", json={"items": []}).json()
    headers = {"Idempotency-Key": str(uuid4())}

    for _ in range(2):
        client.post(
            "/v1/videos",
            files={"file": ("v.mp4", VIDEO)},
            data={"batch_id": batch["id"]},
            headers=headers,
        )

    with sessions() as session:
        assert sum(BatchRepository(session).counts(UUID(batch["id"])).values()) == 1


# What became of them


def test_a_video_is_shown_with_its_links(client, make_video):
    video_id = make_video(VIDEO, duration_seconds=2.5, width=64, height=48, tags=["a"])

    shown = client.get(f"/v1/videos/{video_id}").json()

    assert shown["id"] == str(video_id)
    assert (shown["state"], shown["error"]) == ("ready", None)
    assert (shown["duration_seconds"], shown["width"], shown["height"]) == (2.5, 64, 48)
    for link in shown["links"].values():
        if "strip" not in link:
            assert client.get(link).status_code == 200


def test_videos_are_listed_in_pages_newest_first(client, make_video):
    ids = [str(make_video(bytes([i]), tags=["odd"] if i % 2 else [])) for i in range(7)]

    seen, token = [], None
    while True:
        params = {"page_size": 3} | ({"page_token": token} if token else {})
        page = client.get("/v1/videos", params=params).json()
        seen += [video["id"] for video in page["items"]]
        token = page["next_page_token"]
        if token is None:
            break
    tagged = client.get("/v1/videos?tag=odd").json()["items"]

    assert seen == ids[::-1]
    assert [video["id"] for video in tagged] == [ids[5], ids[3], ids[1]]


def test_videos_can_be_listed_by_state(client, make_video):
    make_video(b"ready")
    waiting = make_video(b"waiting", ready=False)

    items = client.get("/v1/videos?state=processing").json()["items"]

    assert [video["id"] for video in items] == [str(waiting)]


def test_videos_are_listed_by_what_may_name_one_of_them(client, make_video):
    first = str(make_video(b"1", uri="file:///t/cam1/0001.mp4", filename="0001.mp4"))
    second = str(make_video(b"2", uri="file:///t/cam2/0001.mp4", filename="0001.mp4"))

    def found(named, **more):
        answer = client.get("/v1/videos", params={"named": named, **more})
        return {video["id"] for video in answer.json()["items"]}

    assert found("0001") == found("0001.mp4") == {first, second}
    assert found("cam2/0001.mp4") == found("/t/cam2/0001.mp4") == found(second) == {second}
    assert found(hashlib.sha256(b"1").hexdigest()) == found("file:///t/cam1/0001.mp4") == {first}
    assert found("cam3/0001.mp4") == found("0001.avi") == found(second, state="failed") == set()
    page = client.get("/v1/videos", params={"named": "0001", "page_size": 1}).json()
    rest = client.get(
        "/v1/videos", params={"named": "0001", "page_token": page["next_page_token"]}
    ).json()
    assert [each["id"] for each in page["items"] + rest["items"]] == [second, first]


def test_videos_can_be_listed_by_their_names_and_those_of_copies(client, make_video, sessions):
    parrot = make_video(b"one", filename="Parrot 100%.mp4")
    make_video(b"two", filename="dog.mp4")
    copy = client.post("/v1/videos", files={"file": ("copy.mp4", b"one")}).json()["id"]
    with sessions.begin() as session:
        jobs = JobRepository(session)
        session.execute(update(Job).where(Job.id == UUID(copy)).values(priority=-1))
        (claim,) = jobs.claim([JobKind.INGEST], limit=1, owner="a", lease=timedelta(minutes=1))
        jobs.finish(claim, {"filename": "copy.mp4", "duplicate": True})

    def found(**named):
        return [each["id"] for each in client.get("/v1/videos", params=named).json()["items"]]

    for named in ("Parrot 100%.mp4", "copy.mp4"):
        assert found(name=named) == [str(parrot)]
    for part in ("parrot", "100%", "COP"):
        assert found(name_part=part) == [str(parrot)]
    assert found(name="parrot") == found(name_part="1%0") == []
    assert client.get("/v1/videos", params={"name": ""}).status_code == 422


def test_clips_of_the_active_generation_are_listed(client, make_video, generation_id):
    video_id = make_video(VIDEO, generation_id=generation_id)

    clips = client.get(f"/v1/videos/{video_id}/clips").json()

    assert clips == {
        "generation_id": str(generation_id),
        "items": [{"index": 0, "start_seconds": 0.0, "end_seconds": 2.0, "instants": [1.0]}],
    }


def test_a_deleted_video_is_gone_with_its_blobs(client, make_video, blobs):
    video_id = make_video(VIDEO)
    sha256 = hashlib.sha256(VIDEO).hexdigest()

    answer = client.delete(f"/v1/videos/{video_id}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get(f"/v1/videos/{video_id}").status_code == 404
    assert client.delete(f"/v1/videos/{video_id}").status_code == 404
    assert not blobs.exists(f"media/{sha256[:2]}/{sha256}")
    assert not blobs.exists(f"thumbnails/{sha256}/poster.jpg")


def test_deleting_a_video_leaves_the_file_under_the_media_root(client, make_video, media_root):
    path = write(media_root, "stays.mp4", b"stays")
    video_id = make_video(b"stays", uri=path.as_uri())

    client.delete(f"/v1/videos/{video_id}")

    assert path.read_bytes() == b"stays"


def test_thumbnails_are_served_and_cached(client, make_video):
    video_id = make_video(VIDEO)
    poster = f"/v1/videos/{video_id}/thumbnails/poster"

    first = client.get(poster)
    second = client.get(poster, headers={"If-None-Match": first.headers["etag"]})
    strip = client.get(f"/v1/videos/{video_id}/thumbnails/strip")
    other = client.get(f"/v1/videos/{video_id}/thumbnails/cover")

    assert first.headers["content-type"] == "image/jpeg"
    assert first.content.startswith(b"\xff\xd8")
    assert (second.status_code, second.content) == (304, b"")
    assert (strip.status_code, strip.json()["code"]) == (404, "thumbnail_not_found")
    assert (other.status_code, other.json()["code"]) == (404, "thumbnail_not_found")


def test_the_head_of_a_video_and_its_thumbnail_tells_whether_there_is_one(client, make_video):
    path = f"/v1/videos/{make_video(VIDEO)}"

    whole = client.get(f"{path}/thumbnails/poster")

    video, poster = client.head(path), client.head(f"{path}/thumbnails/poster")

    assert (video.status_code, video.content) == (200, b"")
    assert (poster.status_code, poster.content) == (200, b"")
    assert poster.headers["content-length"] == str(len(whole.content))
    assert client.head(f"{path}/thumbnails/strip").status_code == 404
    assert client.head(f"/v1/videos/{uuid4()}").status_code == 404
