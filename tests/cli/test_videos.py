import os

import pytest

from cli.client import ApiClient
from cli.errors import CliError
from cli.videos import find_video

ONE, TWO = "0198c0df-0001-7aaa-8bbb-1234567890ab", "0198c0df-0002-7aaa-8bbb-1234567890ab"


def video(video_id, name):
    return {"id": video_id, "uri": f"file:///v/{name}"}


@pytest.fixture
def library(api):
    """two.mp4, and one.mp4 with the copies `two copies.mp4` and `copy.mp4`."""
    one, two = video(ONE, "one.mp4"), video(TWO, "two.mp4")
    names = {"one.mp4": one, "copy.mp4": one, "two copies.mp4": one, "two.mp4": two}

    def find(request):
        whole, part = request.query.get("name"), request.query.get("name_part")
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
