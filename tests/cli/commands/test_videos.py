import json
import os
import unicodedata

import pytest

from cli.errors import CliError
from cli.video_names import find_video
from clipbert_client.client import ApiClient

ONE, TWO = "0198c0df-0001-7aaa-8bbb-1234567890ab", "0198c0df-0002-7aaa-8bbb-1234567890ab"


def video(video_id, name):
    return {"id": video_id, "uri": f"file:///v/{name}"}


@pytest.fixture
def library(api):
    """two.mp4, and one.mp4 with the copies `two copies.mp4` and `copy.mp4`."""
    one, two = video(ONE, "one.mp4"), video(TWO, "two.mp4")
    names = {"one.mp4": one, "copy.mp4": one, "two copies.mp4": one, "two.mp4": two}

    def find(request):
        whole, part = request.query.get("named"), request.query.get("name_part")
        fitting = {
            found["id"]: found
            for name, found in names.items()
            if name == whole or (part is not None and part.lower() in name)
        }
        return 200, {"items": list(fitting.values()), "next_page_token": None}

    api.answer("GET", "/v1/videos", find)
    api.answer("GET", f"/v1/videos/{ONE}", one)
    for video_id in (ONE, TWO):
        api.answer("DELETE", f"/v1/videos/{video_id}", b"", 204)
    return api


@pytest.mark.parametrize("wanted", [ONE, "one.mp4", "copy.mp4", "ONE", "py.mp"])
def test_a_video_is_found_by_its_id_its_names_and_parts_of_them(library, wanted):
    with ApiClient(library.url, "key") as client:
        assert find_video(client, wanted)["id"] == ONE


def test_a_whole_name_comes_before_a_part_of_another(library):
    with ApiClient(library.url, "key") as client:
        assert find_video(client, "two.mp4")["id"] == TWO


def test_a_part_that_several_have_is_refused_with_their_names(library):
    with (
        ApiClient(library.url, "key") as client,
        pytest.raises(CliError, match="2 videos are named like 'two'"),
    ):
        find_video(client, "two")


@pytest.mark.parametrize("wanted", ["", " "])
def test_no_name_is_not_every_video(library, clipbert, wanted):
    said = clipbert("ask", wanted, "What is it?", code=1)

    assert said.err.startswith("clipbert: name a video\n")
    assert library.requests == []


def test_a_name_that_is_no_text_is_searched_as_its_text(library, clipbert):
    said = clipbert("videos", "show", os.fsdecode(b"bad\xff"), code=1)

    assert "no video named like 'bad\N{REPLACEMENT CHARACTER}'" in said.err


@pytest.mark.parametrize("wanted", [ONE, "one.mp4"])
def test_a_video_named_in_full_is_deleted_at_once(library, clipbert, wanted):
    said = clipbert("videos", "delete", wanted)

    assert said.out == f"deleted one.mp4 ({ONE})\n"


@pytest.mark.parametrize("wanted", ["one", "copy.mp4"])
def test_a_video_named_by_a_part_or_a_copy_is_not_deleted_without_a_yes(library, clipbert, wanted):
    said = clipbert("videos", "delete", wanted, code=1)

    assert f"{wanted!r} may mean one.mp4 ({ONE})" in said.err
    assert library.sent("DELETE", f"/v1/videos/{ONE}") == []

    clipbert("videos", "delete", wanted, "--yes")

    assert len(library.sent("DELETE", f"/v1/videos/{ONE}")) == 1


@pytest.fixture
def failed(api):
    """Three videos that failed; the second is gone by the time it is to be deleted."""
    videos = [{**video(f"{ONE[:-1]}{i}", f"{i}.mp4"), "state": "failed"} for i in range(3)]
    api.answer_list("/v1/videos", videos)
    for each in videos:
        api.answer("DELETE", f"/v1/videos/{each['id']}", b"", 204)
    api.refuse("DELETE", f"/v1/videos/{videos[1]['id']}", 404, "video_not_found")
    return api


def test_a_dry_run_of_a_deletion_lists_and_deletes_nothing(failed, clipbert):
    said = clipbert("videos", "delete", "--state", "failed", "--tag", "old", "--dry-run")

    assert said.out.splitlines()[0] == f"would delete 0.mp4 ({ONE[:-1]}0)"
    assert said.out.splitlines()[-1] == "3 videos would be deleted"
    assert [each.method for each in failed.requests] == ["GET"]
    assert failed.requests[0].query["state"] == "failed"
    assert failed.requests[0].query["tag"] == "old"


def test_a_deletion_says_how_many_labels_go_with_the_videos(api, clipbert):
    one, two = video(ONE, "one.mp4") | {"num_labels": 3}, video(TWO, "two.mp4") | {"num_labels": 1}
    api.answer_list("/v1/videos", [one, two, video(ONE, "x.mp4") | {"num_labels": 0}])
    api.answer("GET", f"/v1/videos/{ONE}", one)
    api.answer("DELETE", f"/v1/videos/{ONE}", b"", 204)

    dry = clipbert("videos", "delete", "--tag", "old", "--dry-run").out.splitlines()
    refused = clipbert("videos", "delete", "--tag", "old", code=1).err
    deleted = clipbert("videos", "delete", ONE).out

    assert dry == [
        f"would delete one.mp4 ({ONE}) and its 3 labels",
        f"would delete two.mp4 ({TWO}) and its 1 label",
        f"would delete x.mp4 ({ONE})",
        "3 videos and their 4 labels would be deleted",
    ]
    assert "3 videos and their 4 labels would be deleted" in refused
    assert deleted == f"deleted one.mp4 ({ONE}) and its 3 labels\n"


def test_a_filter_deletes_only_with_a_yes_and_goes_on_past_what_is_gone(failed, clipbert):
    refused = clipbert("videos", "delete", "--state", "failed", code=1)
    said = clipbert("videos", "delete", "--state", "failed", "--yes")

    assert "3 videos would be deleted" in refused.err
    assert said.out.count("deleted ") == 2


@pytest.mark.parametrize("arguments", [[], ["one.mp4", "--tag", "a"]])
def test_a_deletion_names_a_video_or_a_filter(api, clipbert, arguments):
    said = clipbert("videos", "delete", *arguments, code=1)

    assert "name either a video, or what to delete" in said.err
    assert api.requests == []


def test_names_of_two_unicode_forms_are_one_name(api, clipbert):
    decomposed, composed = "u\u0308.mp4", "\u00fc.mp4"
    api.answer_list("/v1/videos", [video(ONE, decomposed)])
    api.answer("DELETE", f"/v1/videos/{ONE}", b"", 204)

    assert ONE in clipbert("videos", "delete", composed).out


def test_a_search_goes_to_videos_tags_and_clips(library, clipbert):
    result = {"hits": [], "stages": ["recall"], "recall_model": "m"}
    library.answer("POST", "/v1/searches", {"id": "s", "state": "succeeded", "result": result})

    said = clipbert(
        "search", "a dog", "--video", "one.mp4", "--tag", "a", "--tag", "b", "--by", "clip"
    )

    (asked,) = library.sent("POST", "/v1/searches")
    body = json.loads(asked.body)
    assert body["group_by"] == "clip"
    assert body["filters"] == {"video_ids": [ONE], "tags": ["a", "b"]}
    assert said.out == "nothing found in these videos\n"


def test_a_search_is_by_video_or_clip(api, clipbert):
    assert (
        "--by is one of video, clip, not frame"
        in clipbert("search", "x", "--by", "frame", code=1).err
    )


def test_a_part_of_a_name_is_searched_in_the_unicode_form_of_names(library):
    with ApiClient(library.url, "key") as client, pytest.raises(CliError, match="no video named"):
        find_video(client, unicodedata.normalize("NFD", "Käse"))

    parts = [each.query.get("name_part") for each in library.sent("GET", "/v1/videos")]
    assert parts == [None, "Käse"]


@pytest.mark.parametrize("wanted", ["v/one.mp4", "/v/one.mp4", "file:///w/one.mp4", "./one.mp4"])
def test_a_path_that_names_no_video_is_not_taken_for_a_part_of_a_name(
    library, clipbert, wanted, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    said = clipbert("videos", "show", wanted, code=1)

    assert f"no video named like {wanted!r}" in said.err
    (asked,) = library.sent("GET", "/v1/videos")
    is_from_here = wanted.startswith("./")
    assert asked.query["named"] == (str(tmp_path / "one.mp4") if is_from_here else wanted)


def test_what_is_missing_or_partial_says_so(api, clipbert):
    shown = {
        **video(ONE, "one.mp4"),
        "state": "missing",
        "is_partial": True,
        "damaged_spans": [{"start_seconds": 5.4, "end_seconds": 66.0}],
        "starts_at_seconds": 1.4,
        "codec": "h264",
    }
    api.answer("GET", "/v1/videos", {"items": [shown], "next_page_token": None})
    api.answer("GET", f"/v1/videos/{ONE}", shown)
    api.answer("GET", f"/v1/videos/{ONE}/clips", {"items": []})

    assert "missing, partial" in clipbert("videos", "list").out
    said = clipbert("videos", "show", ONE).out
    assert "0:05.4-1:06.0" in said
    assert "1.4" in said
    assert "{" not in said
