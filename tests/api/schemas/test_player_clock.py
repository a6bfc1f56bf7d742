"""Seconds that people are given and give lead a player to the moment.

The video here starts at 1.4 s of its file's clock, where the first frame is shown.
"""

import json
from uuid import UUID

import pytest

from api.schemas.player_clock import on_player_clock, take_span
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.labels.tables import Label
from store.results.questions import QuestionRepository
from store.results.searches import SearchRepository
from store.videos.repository import VideoRepository

STARTS_AT = 1.4


@pytest.fixture
def video_id(make_video, generation_id):
    return make_video(
        generation_id=generation_id,
        duration_seconds=20.0,
        probe={"starts_at_seconds": STARTS_AT, "mended": ["clock_gap"]},
        damaged_spans=[(4.0, 5.0)],
    )


MOMENT = {"start_seconds": 2.0, "end_seconds": 4.0}


def test_a_video_says_where_it_starts_and_what_is_wrong_with_it(client, video_id):
    shown = client.get(f"/v1/videos/{video_id}").json()

    assert shown["starts_at_seconds"] == STARTS_AT
    assert shown["mended"] == ["clock_gap"]
    assert shown["is_partial"] is True
    assert shown["damaged_spans"] == [{"start_seconds": 5.4, "end_seconds": 6.4}]


def test_clips_are_on_the_players_clock(client, video_id):
    [clip] = client.get(f"/v1/videos/{video_id}/clips").json()["items"]

    assert (clip["start_seconds"], clip["end_seconds"], clip["instants"]) == (1.4, 3.4, [2.4])


def test_hits_and_their_moments_are_on_the_players_clock(client, sessions, video_id, make_video):
    deleted = make_video(b"another", generation_id=None)
    hits = [
        {
            "rank": rank,
            "score": 0.5,
            "video_id": str(video),
            "uri": "file:///a.mp4",
            "clip_index": 0,
            "instants": [2.5, 3.5],
            "moments": [{"clip_index": 0, "score": 0.5, **MOMENT}],
            **MOMENT,
        }
        for rank, video in enumerate([video_id, deleted], start=1)
    ]
    with sessions.begin() as session:
        job = JobRepository(session).enqueue(NewJob(kind=JobKind.SEARCH, input={"text": "a"}))
        search = SearchRepository(session).create(job, text="a")
        search.input = {"text": "a"}
        search.result = {"hits": hits, "stages": ["recall"], "candidates": 2}
        VideoRepository(session).delete(deleted)

    for shown in (
        client.get(f"/v1/searches/{job.id}").json(),
        client.get("/v1/searches").json()["items"][0],
    ):
        first, second = shown["result"]["hits"]
        assert (first["start_seconds"], first["end_seconds"]) == (3.4, 5.4)
        assert first["instants"] == [3.9, 4.9]
        assert first["moments"][0]["start_seconds"] == 3.4
        assert (first["starts_at_seconds"], first["is_missing"]) == (STARTS_AT, False)
        assert (second["starts_at_seconds"], second["is_missing"]) == (0.0, True)


def test_evidence_and_suggestions_are_on_the_players_clock(client, sessions, video_id):
    result = {
        "answer": "a",
        "answers": [{"answer": "a", "probability": 0.5, "logit": 0.0}],
        "zero_shot": True,
        "task": "multiple_choice",
        "evidence": [{"clip_index": 0, "instants": [2.5], "share": 1.0, "logit": 0.0, **MOMENT}],
        "uncertainty": {"score": 0.9, "entropy": 0.9, "disagreement": 0.1, **MOMENT},
    }
    asked = {"video_id": str(video_id), "text": "what?", "choices": ["a", "b"]}
    with sessions.begin() as session:
        job = JobRepository(session).enqueue(
            NewJob(kind=JobKind.QUESTION, input=asked, video_id=video_id)
        )
        question = QuestionRepository(session).create(job, text="what?")
        question.result, question.uncertainty = result, 0.9

    for shown in (
        client.get(f"/v1/questions/{job.id}").json(),
        client.get("/v1/questions").json()["items"][0],
    ):
        [evidence] = shown["result"]["evidence"]
        assert (evidence["start_seconds"], evidence["instants"]) == (3.4, [3.9])
        assert shown["result"]["uncertainty"]["end_seconds"] == 5.4
        assert shown["result"]["starts_at_seconds"] == STARTS_AT
    [suggestion] = client.get("/v1/labels/suggestions", params={"task": "multiple_choice"}).json()[
        "items"
    ]
    assert (suggestion["start_seconds"], suggestion["end_seconds"]) == (3.4, 5.4)


def test_labels_are_given_taken_changed_and_exported_on_the_players_clock(
    client, sessions, video_id
):
    new = {"video": str(video_id), "question": "what?", "answer": "a"}
    answer = client.post("/v1/labels", json={**new, "start_seconds": 3.4, "end_seconds": 5.4})
    label = answer.json()
    assert (label["start_seconds"], label["end_seconds"]) == (3.4, 5.4)

    def stored():
        with sessions.begin() as session:
            row = session.get(Label, UUID(label["id"]))
            return row.start_seconds, row.end_seconds

    assert stored() == (2.0, 4.0)
    place = f"/v1/labels/{label['id']}"
    changed = client.patch(place, json={"end_seconds": 6.4}).json()
    assert (changed["start_seconds"], changed["end_seconds"]) == (3.4, 6.4)
    assert stored() == (2.0, 5.0)
    history = client.get(f"{place}/history").json()["items"]
    assert [revision["end_seconds"] for revision in history] == [5.4, 6.4]
    line = json.loads(client.get("/v1/labels:export").text)
    assert (line["start_seconds"], line["end_seconds"]) == (3.4, 6.4)
    assert client.get("/v1/labels").json()["items"][0]["end_seconds"] == 6.4
    # What was exported is what was imported.
    again = client.post(
        "/v1/labels",
        content=json.dumps(line),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert again.json()["num_unchanged"] == 1


def test_a_moment_before_the_first_frame_is_refused(client, video_id):
    new = {"video": str(video_id), "caption": "black", "start_seconds": 0.0, "end_seconds": 1.2}

    answer = client.post("/v1/labels", json=new)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_span")
    assert "1.4" in answer.json()["detail"]


def test_turning_seconds_to_and_fro_gives_the_same():
    for starts_at in (0.0, 1.4, 0.1, 1 / 3):
        for start, end in ((2.7, 9.1), (None, 3.3), (1.5, None), (None, None)):
            taken = take_span(start, end, starts_at_seconds=starts_at)
            shown = [None if each is None else on_player_clock(each, starts_at) for each in taken]
            assert shown == [start, end]
    # What begins before the first frame begins with it.
    assert take_span(0.5, 3.0, starts_at_seconds=1.0) == (0.0, 2.0)
