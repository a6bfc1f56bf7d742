"""What commands show of a resource: words, never a dict or a list as Python writes it."""

import re

import pytest

from cli.show.facts import facts_of
from tests.cli.fake_api import batch

ID = "0198c0df-5555-7aaa-8bbb-1234567890ab"
DEEP = {
    "id": ID,
    "name": "n",
    "uri": "file:///v.mp4",
    "state": "failed",
    "done": True,
    "error": {"code": "no_video", "message": "it has no picture"},
    "progress": {"done": 1, "total": 2},
    "metadata": {},
    "tags": ["a", "b"],
    "missing": None,
    "share": 0.1 + 0.2,
    "created_at": "2026-01-05T09:00:00.123456Z",
    "finetune": {"task": "qa", "recipe": {"epochs": 4, "steps": None}, "labels": {"tags": ["x"]}},
    "coverage": {"num_indexed": 1, "num_videos": 2},
    "promotions": [{"task": "qa"}],
}


def test_a_resource_is_told_in_words():
    assert dict(facts_of(DEEP)) == {
        "id": ID,
        "name": "n",
        "uri": "file:///v.mp4",
        "state": "failed",
        "done": "yes",
        "error": "code no_video, message it has no picture",
        "progress": "done 1, total 2",
        "tags": "a, b",
        "share": "0.3",
        "created at": "2026-01-05 09:00:00 UTC",
        "finetune": "task qa",
        "finetune recipe": "epochs 4",
        "finetune labels": "tags x",
        "coverage": "num indexed 1, num videos 2",
        "promotions": "1 (--json shows them)",
    }


def test_a_long_list_is_cut_and_says_so():
    (fact,) = facts_of({"answers": list("abcdefghijklmnopqrstuvwxyz")})

    assert fact[1].endswith("s, t and 6 more")


@pytest.mark.parametrize("noun", ["jobs", "batches", "generations", "label", "schedule", "models"])
def test_show_prints_no_dict(api, clipbert, noun):
    path = {"label": "labels", "schedule": "schedules"}.get(noun, noun)
    found = {**DEEP, **batch(ID, succeeded=1)} if noun == "batches" else DEEP
    api.answer("GET", f"/v1/{path}/{ID}", found)
    api.answer_list(f"/v1/{path}/{ID}/history", [])
    api.answer_list(f"/v1/{path}/{ID}/promotions", [])
    api.answer_list(f"/v1/{path}/{ID}/items", [])

    said = clipbert(noun, "show", ID).out

    assert re.search(r"[{}\[\]]|None|'", said) is None, said


def test_a_video_is_shown_without_a_dict(api, clipbert):
    api.answer("GET", f"/v1/videos/{ID}", {**DEEP, "links": {"media": "/m"}})
    api.answer("GET", f"/v1/videos/{ID}/clips", {"items": []})

    said = clipbert("videos", "show", ID).out

    assert re.search(r"[{}\[\]]|None|'", said) is None, said


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["jobs", "list"], "jobs"),
        (["batches", "list"], "batches"),
        (["videos", "list"], "videos"),
        (["label", "list"], "labels"),
        (["generations", "list"], "generations"),
    ],
)
def test_a_list_says_when_there_is_more_and_lists_all_on_request(api, clipbert, arguments, path):
    row = {**DEEP, **batch(ID, succeeded=1), "kind": "ingest", "task": "qa", "video_id": ID}
    row |= {"error": None, "model_id": ID, "text": "t", "state": "ready"}
    api.answer_list(f"/v1/{path}", [row] * 60)

    first = clipbert(*arguments, "--limit", "3")
    every = clipbert(*arguments, "--all")
    whole = clipbert(*arguments, "--limit", "60")

    assert first.out.count(ID) >= 3
    assert len(first.out.splitlines()) == 4
    assert "there are more than these 3: --all lists all" in first.err
    assert len(every.out.splitlines()) == len(whole.out.splitlines()) == 61
    assert every.err == whole.err == ""
