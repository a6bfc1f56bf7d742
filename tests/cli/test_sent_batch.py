import json
import os
import signal
import time
from pathlib import Path

import pytest

from cli.sent_batch import SaidOfAll, start_batch, upload_files, without_outside
from clipbert_client.client import ApiClient
from tests.cli.fake_api import batch

ID = "0198c0df-5555-7aaa-8bbb-1234567890ab"


@pytest.fixture
def outside(api):
    """An API that may read no file of this machine where it is."""

    def create(request):
        items = json.loads(request.body)["items"]
        if items:
            errors = [{"index": i, "code": "outside_media_roots"} for i in range(len(items))]
            return 403, {"code": "outside_media_roots", "detail": "outside", "errors": errors}
        return 202, batch(ID)

    api.answer("POST", "/v1/batches", create)
    api.answer("POST", "/v1/videos", {"id": "job"}, 202)
    return api


def test_what_lies_in_or_below_a_refused_folder_is_left_out():
    files = [Path(name) for name in ("/in/a", "/out/b", "/out/c", "/out/deep/d", "/in/e")]

    remaining = without_outside(files, [{"index": 1, "code": "outside_media_roots"}])

    assert remaining == [Path("/in/a"), Path("/in/e")]


def test_a_refused_link_does_not_speak_for_its_folder(tmp_path):
    (tmp_path / "plain").touch()
    (tmp_path / "link").symlink_to("/etc/hostname")
    files = [tmp_path / "link", tmp_path / "plain"]

    assert without_outside(files, [{"index": 0}]) == [tmp_path / "plain"]


def test_a_file_that_cannot_be_read_is_a_row_and_the_others_are_uploaded(
    outside, open_folder, as_nobody
):
    folder = open_folder
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "endless").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    (folder / "secret").touch(mode=0)
    (folder / "good").write_bytes(b"film")
    names = ["dangling", "endless", "pipe", "secret", "good"]

    with ApiClient(outside.url, "key") as client, as_nobody():
        not_sent = upload_files(client, ID, files=[folder / name for name in names])

    assert {each.path.name: each.message for each in not_sent} == {
        "dangling": "No such file or directory",
        "endless": "it is not a regular file",
        "pipe": "it is not a regular file",
        "secret": "Permission denied",
    }
    assert [each.filename for each in outside.sent("POST", "/v1/videos")] == ["good"]


def test_a_file_that_the_api_refuses_is_a_row_and_the_others_are_uploaded(outside, tmp_path):
    def receive(request):
        if request.filename == "large":
            return 413, {"code": "payload_too_large", "detail": "too large"}
        return 202, {"id": "job"}

    outside.answer("POST", "/v1/videos", receive)
    for name in ("large", "good"):
        (tmp_path / name).write_bytes(b"film")

    with ApiClient(outside.url, "key") as client:
        not_sent = upload_files(client, ID, files=[tmp_path / "large", tmp_path / "good"])

    assert [(each.path.name, each.code) for each in not_sent] == [("large", "payload_too_large")]
    assert len(outside.sent("POST", "/v1/videos")) == 2


def test_a_name_of_any_bytes_is_uploaded(outside, tmp_path):
    path = tmp_path / os.fsdecode(b"bad\xff\n.mp4")
    path.write_bytes(b"film")

    with ApiClient(outside.url, "key") as client:
        assert upload_files(client, ID, files=[path]) == []

    (sent,) = outside.sent("POST", "/v1/videos")
    assert sent.filename == "bad\N{REPLACEMENT CHARACTER} .mp4"


def test_the_command_lists_what_was_not_sent_and_fails(outside, clipbert, tmp_path):
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "good.mp4").write_bytes(b"film")
    outside.answer("GET", f"/v1/batches/{ID}", batch(ID, succeeded=1, duplicates=1))
    cut = {"index": 0, "uri": "upload:///good.mp4", "state": "succeeded", "is_partial": True}
    outside.answer("GET", f"/v1/batches/{ID}/items", {"items": [cut], "next_page_token": None})

    said = clipbert("index", tmp_path, "--wait", code=1)

    first, _progress, outcome, partial, _header, row = said.out.splitlines()
    assert partial == (
        "indexed in part only, since they are damaged or cut off: good.mp4; "
        "what is missing: clipbert videos show NAME"
    )
    assert first == f"batch {ID}: 1 file, 1 of them to upload; 1 besides cannot be read"
    assert outcome == "1 indexed (1 of them known already), 0 failed, 1 not sent"
    assert row.split()[:2] == ["gone.mp4", "not_readable"]


def test_the_counts_are_those_of_what_is_sent(api, clipbert, tmp_path):
    for name in ("in-1.mp4", "in-2.mp4", "in-3.mp4", "elsewhere"):
        (tmp_path / name).write_bytes(b"film")
    (tmp_path / "out.mp4").symlink_to(tmp_path / "elsewhere")  # a link stands for itself only
    (tmp_path / "dead.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.mp4")

    def answer(request):
        uris = [item["uri"] for item in json.loads(request.body)["items"]]
        outside = [index for index, uri in enumerate(uris) if uri.endswith("out.mp4")]
        errors = [{"index": index, "code": "outside_media_roots"} for index in outside]
        problem = {"code": "outside_media_roots", "detail": "outside", "errors": errors}
        return (403, problem) if outside else (202, batch(ID))

    api.answers["POST", "/v1/batches"] = answer
    api.answer("POST", "/v1/videos", {"id": "job"})

    said = clipbert("index", tmp_path, code=1)

    (first, *_) = said.out.splitlines()
    assert first == f"batch {ID}: 4 files, 1 of them to upload; 2 besides cannot be read"
    assert "uploading 1 of 1: out.mp4" in said.err


def test_json_lists_what_was_not_sent(outside, clipbert, tmp_path):
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere")
    outside.answer("GET", f"/v1/batches/{ID}", batch(ID))

    said = clipbert("index", tmp_path, "--json", code=1)

    (failed,) = json.loads(said.out)["failed_items"]
    assert failed["error"]["code"] == "not_readable"
    assert ID in said.err


def test_who_breaks_the_uploads_off_knows_the_batch(outside, clipbert, tmp_path):
    def interrupt(_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)  # the interrupt comes first
        return 202, {"id": "job"}

    outside.answer("POST", "/v1/videos", interrupt)
    (tmp_path / "good.mp4").write_bytes(b"film")

    said = clipbert("index", tmp_path, code=130)

    assert said.out.splitlines() == [
        f"batch {ID}: 1 file, 1 of them to upload",
        f"indexing of what was sent goes on; follow it with: clipbert batches show {ID}",
    ]


def test_a_service_that_stays_away_leaves_word_of_the_batch(
    outside, clipbert, tmp_path, monkeypatch
):
    monkeypatch.setattr("cli.show.batch_outcome.PATIENCE_SECONDS", 0.2)
    (tmp_path / "good.mp4").write_bytes(b"film")

    def break_off(_):
        raise ConnectionAbortedError

    outside.answer("GET", f"/v1/batches/{ID}", break_off)

    said = clipbert("index", tmp_path, "--wait", code=3)

    assert f"what was sent is safe; follow it with: clipbert batches show {ID}" in said.err


def test_strict_is_said_of_every_file_wherever_it_is_sent(api, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"film")
    api.answer("POST", "/v1/batches", batch(ID), 202)
    api.answer("POST", "/v1/videos", {"id": "job"}, 202)

    said = SaidOfAll(strict=True)
    with ApiClient(api.url, "key") as client:
        start_batch(client, [tmp_path / "a.mp4"], name=None, said=said)
        upload_files(client, ID, files=[tmp_path / "a.mp4"], said=said)

    created, uploaded = api.requests
    assert json.loads(created.body)["items"][0]["strict"] is True
    assert b'name="strict"\r\n\r\ntrue' in uploaded.body
