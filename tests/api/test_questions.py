import threading
import time
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from failed_videos import fail_video

from store.jobs.repository import JobRepository
from store.jobs.state import JobKind
from store.models.repository import ModelRepository
from store.results.questions import QuestionRepository
from store.table_base import Task

pytestmark = pytest.mark.usefixtures("generation_id")

CHOICES = ["a parrot", "a dog"]
RESULT = {
    "answer": "a parrot",
    "answers": [
        {"answer": "a parrot", "probability": 0.7, "logit": 1.5},
        {"answer": "a dog", "probability": 0.3, "logit": 0.6},
    ],
    "zero_shot": True,
    "abstained": False,
    "task": "multiple_choice",
    "aggregation": "lse",
    "evidence": [
        {
            "clip_index": 0,
            "start_seconds": 0.0,
            "end_seconds": 2.0,
            "instants": [1.0],
            "share": 1.0,
            "logit": 1.5,
        }
    ],
    "uncertainty": {
        "score": 0.9,
        "entropy": 0.88,
        "disagreement": 0.2,
        "start_seconds": 0.0,
        "end_seconds": 2.0,
    },
    "model_id": None,
    "model": "clipbert-mini",
    "generation_id": None,
    "served_together": 2,
}


def serve(sessions, *, result=None, error=None):
    """Do what the interactive worker does with the next question."""
    deadline = time.monotonic() + 120
    claims = []
    while not claims and time.monotonic() < deadline:
        with sessions.begin() as session:
            claims = JobRepository(session).claim(
                [JobKind.QUESTION], limit=1, owner="test", lease=timedelta(seconds=60)
            )
        time.sleep(0.02)
    with sessions.begin() as session:
        jobs = JobRepository(session)
        if error is not None:
            jobs.fail(claims[0], code=error, message="It could not be done.")
            return
        QuestionRepository(session).complete(claims[0].id, result)
        jobs.finish(claims[0], result)


def test_a_question_with_choices_is_answered(client, sessions, make_video):
    video_id = make_video()
    worker = threading.Thread(target=serve, args=(sessions,), kwargs={"result": RESULT})
    worker.start()

    answer = client.post(
        "/v1/questions?wait=20",
        json={"video_id": str(video_id), "text": "Which animal?", "choices": CHOICES},
    )
    worker.join()

    question = answer.json()
    assert answer.status_code == 200
    assert question["result"] == {**RESULT, "starts_at_seconds": 0.0}
    assert (question["video_id"], question["choices"]) == (str(video_id), CHOICES)
    with sessions() as session:
        job = JobRepository(session).get(UUID(question["id"]))
    assert job.video_id == video_id
    assert job.input == {
        "video_id": str(video_id),
        "text": "Which animal?",
        "choices": CHOICES,
        "top_k": 5,
    }


def test_a_question_that_fails_shows_why(client, sessions, make_video):
    worker = threading.Thread(target=serve, args=(sessions,), kwargs={"error": "no_qa_model"})
    worker.start()

    answer = client.post(
        "/v1/questions?wait=20",
        json={"video_id": str(make_video()), "text": "Which?", "choices": CHOICES},
    )
    worker.join()

    assert (answer.status_code, answer.json()["state"]) == (200, "failed")
    assert answer.json()["error"] == {"code": "no_qa_model", "message": "It could not be done."}
    assert answer.json()["result"] is None


def test_an_open_question_needs_a_qa_model(client, sessions, make_video):
    body = {"video_id": str(make_video()), "text": "What is this?"}

    refused = client.post("/v1/questions", json=body)
    promote_qa_model(sessions, visual_sha256="1" * 64)
    accepted = client.post("/v1/questions", json=body)

    assert (refused.status_code, refused.json()["code"]) == (409, "no_qa_model")
    assert accepted.status_code == 202
    assert accepted.json()["choices"] is None


def test_a_qa_model_that_waits_for_its_generation_does_not_answer_yet(client, sessions, make_video):
    body = {"video_id": str(make_video()), "text": "What is this?"}
    promote_qa_model(sessions, visual_sha256="2" * 64)

    refused = client.post("/v1/questions", json=body)

    assert (refused.status_code, refused.json()["code"]) == (409, "no_qa_model")
    assert "clipbert-qa 1 answers as soon as" in refused.json()["detail"]


def promote_qa_model(sessions, *, visual_sha256):
    with sessions.begin() as session:
        models = ModelRepository(session)
        model = models.register(
            name="clipbert-qa",
            version="1",
            heads=["qa"],
            tasks=[Task.QA],
            folder_key="models/qa",
            sha256="5" * 64,
            visual_sha256=visual_sha256,
            config={"answers": ["a parrot", "a dog"]},
        )
        models.promote(model.id, [Task.QA])
        return model.id


def test_a_question_about_an_unknown_video_is_refused(client):
    body = {"video_id": str(uuid4()), "text": "Which?", "choices": CHOICES}

    answer = client.post("/v1/questions", json=body)

    assert (answer.status_code, answer.json()["code"]) == (404, "video_not_found")


@pytest.mark.parametrize("failed", [False, True])
def test_a_question_about_a_video_that_is_not_ready_is_refused(
    client, sessions, make_video, failed
):
    video_id = make_video(ready=False)
    if failed:
        with sessions.begin() as session:
            fail_video(session, video_id, code="decode_failed", message="The frames are broken.")

    answer = client.post(
        "/v1/questions", json={"video_id": str(video_id), "text": "Which?", "choices": CHOICES}
    )

    assert (answer.status_code, answer.json()["code"]) == (409, "video_not_ready")
    assert ("frames are broken" in answer.json()["detail"]) == failed
    assert client.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    "changed",
    [
        {"choices": ["only one"]},
        {"choices": ["same", " same "]},
        {"choices": []},
        {"choices": ["a", ""]},
        {"choices": ["a", "\u200b"]},
        {"text": ""},
        {"text": "\u3164 \u200b"},
        {"video_id": 7},
        {"top_k": 0},
    ],
)
def test_a_question_that_makes_no_sense_is_refused(client, make_video, changed):
    body = {"video_id": str(make_video()), "text": "Which?", "choices": CHOICES} | changed

    answer = client.post("/v1/questions", json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["field"].startswith(f"body.{next(iter(changed))}")


def test_equal_choices_are_refused_in_our_own_words(client, make_video):
    body = {"video_id": str(make_video()), "text": "Which?", "choices": ["a", "a"]}

    answer = client.post("/v1/questions", json=body)

    assert answer.json()["detail"] == "body.choices: the choices must differ"


def test_questions_are_listed_by_video_and_outlive_it(client, make_video):
    videos = [make_video(b"1"), make_video(b"2")]
    ids = [
        client.post(
            "/v1/questions", json={"video_id": str(video), "text": "Which?", "choices": CHOICES}
        ).json()["id"]
        for video in videos
    ]

    of_first = client.get(f"/v1/questions?video_id={videos[0]}").json()["items"]
    client.delete(f"/v1/videos/{videos[0]}")
    listed = client.get("/v1/questions").json()["items"]

    assert [question["id"] for question in of_first] == [ids[0]]
    assert [question["id"] for question in listed] == ids[::-1]
    assert listed[1]["video_id"] is None
    assert client.get(f"/v1/questions/{ids[0]}").json()["state"] == "cancelled"
