import threading
import time
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from store.jobs.repository import JobRepository
from store.jobs.state import JobKind
from store.labels.datasets import DatasetRepository
from store.labels.repository import LabelRepository, NewLabel
from store.labels.tables import Dataset
from store.models.finetunes import FinetuneRepository
from store.models.repository import GenerationRepository, ModelRepository
from store.table_base import Task
from store.videos.contents import curves_key

REPORT = {
    "candidate": {"name": "the candidate", "metric": "accuracy", "metrics": {"accuracy": 0.9}},
    "reference": {"name": "the commonest answer", "model_id": None, "metric": "accuracy"},
    "decision": {
        "promoted": False,
        "code": "too_few_examples",
        "reason": "the holdout has 2 examples and at least 50 are needed",
        "holdout": {
            "candidate": 0.9,
            "reference": 0.5,
            "difference": 0.4,
            "low": 0.1,
            "high": 0.7,
            "num_examples": 2,
        },
        "regression": None,
    },
}


@pytest.fixture
def videos(make_video, generation_id):
    return [
        make_video(
            f"video {number}".encode(), filename=f"v{number}.mp4", generation_id=generation_id
        )
        for number in range(6)
    ]


@pytest.fixture
def labels(sessions, videos):
    """Questions of six videos, two of them held out."""
    new = [
        NewLabel(
            video,
            "qa",
            "What colour?",
            answer="red" if number % 2 else "green",
            split="holdout" if number < 2 else "train",
            source="review",
        )
        for number, video in enumerate(videos)
    ]
    with sessions.begin() as session:
        LabelRepository(session).add_many(new)


def claim(sessions):
    with sessions.begin() as session:
        jobs = JobRepository(session)
        return jobs.claim([JobKind.FINETUNE], limit=1, owner="w", lease=timedelta(seconds=60))[0]


def event(sessions, held, type_, **data):
    with sessions.begin() as session:
        JobRepository(session).add_event(held, type_, data)


def finish(sessions, held):
    with sessions.begin() as session:
        model_id = (
            ModelRepository(session)
            .register(
                name="clipbert-qa",
                version="1",
                heads=["qa"],
                tasks=[Task.QA],
                folder_key="models/qa",
                sha256="5" * 64,
                visual_sha256="1" * 64,
                config={},
            )
            .id
        )
        FinetuneRepository(session).complete(held.id, model_id=model_id, report=REPORT)
        JobRepository(session).finish(held, {"model_id": str(model_id)})
    return model_id


@pytest.mark.usefixtures("labels")
def test_a_finetune_is_accepted_with_all_it_will_be(client, sessions, generation_id):
    answer = client.post("/v1/finetunes", json={"task": "qa", "recipe": {"epochs": 3}})

    found = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/finetunes/{found['id']}"
    assert (found["state"], found["done"], found["name"]) == ("queued", False, "clipbert-qa")
    assert found["base_model"] == "clipbert-mini 1"
    assert found["dataset"]["num_train"] == 4
    assert (found["dataset"]["num_holdout"], found["dataset"]["num_videos"]) == (2, 6)
    assert found["dataset"]["answers"] == ["green", "red"]
    assert (found["recipe"]["epochs"], found["recipe"]["visual"]) == (3.0, "frozen")
    assert found["gate"]["min_holdout"] == 50
    assert "the holdout has 2 labels" in found["warnings"][0]
    assert (found["loss"], found["decision"], found["model_id"]) == (None, None, None)
    assert client.get(answer.headers["location"]).json() == found
    assert client.get("/v1/finetunes?task=qa").json()["items"] == [found]
    assert client.get("/v1/finetunes?task=retrieval").json()["items"] == []
    job = client.get(f"/v1/jobs/{found['id']}").json()
    assert (job["kind"], job["video_id"]) == ("finetune", None)


@pytest.mark.usefixtures("labels", "generation_id")
def test_a_check_starts_nothing_and_keeps_nothing(client, sessions):
    answer = client.post("/v1/finetunes?validate_only=true", json={"task": "qa"})

    plan = answer.json()
    assert answer.status_code == 200
    assert (plan["name"], plan["dataset"]["id"], plan["dataset"]["num_train"]) == (
        "clipbert-qa",
        None,
        4,
    )
    assert plan["recipe"]["task"] == "qa"
    assert len(plan["warnings"]) == 1
    assert client.get("/v1/finetunes").json()["items"] == []
    with sessions() as session:
        assert session.query(Dataset).count() == 0


@pytest.mark.usefixtures("labels", "generation_id")
def test_the_same_key_gives_the_same_finetune(client):
    headers = {"Idempotency-Key": "once"}

    first = client.post("/v1/finetunes", json={"task": "qa"}, headers=headers).json()
    again = client.post("/v1/finetunes", json={"task": "qa"}, headers=headers).json()
    other = client.post("/v1/finetunes", json={"task": "qa", "name": "another"}, headers=headers)

    assert again["id"] == first["id"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    assert len(client.get("/v1/finetunes").json()["items"]) == 1


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"task": "dance"}, 422, "unknown_task"),
        ({"task": "recall"}, 422, "unknown_task"),
        ({"task": "retrieval"}, 409, "no_labels"),
        ({"labels": {"sources": ["nobody"]}}, 409, "no_labels"),
        ({"labels": {"colours": ["red"]}}, 422, "invalid_request"),
        ({"labels": {"created_after": "yesterday"}}, 422, "invalid_request"),
        ({"recipe": {"epoch": 3}}, 422, "unknown_recipe_field"),
        ({"recipe": {"epochs": -3}}, 422, "invalid_recipe"),
        ({"recipe": {"epochs": "many"}}, 422, "invalid_recipe"),
        ({"recipe": [1]}, 422, "invalid_request"),
        ({"gate": {"min_gain": 3}}, 422, "invalid_request"),
        ({"gate": {"regression_dataset_id": str(UUID(int=7))}}, 404, "dataset_not_found"),
        ({"base_model_id": str(UUID(int=7))}, 404, "model_not_found"),
        ({"dataset_id": str(UUID(int=7))}, 404, "dataset_not_found"),
        ({"name": ""}, 422, "invalid_request"),
        ({"epochs": 3}, 422, "invalid_request"),
    ],
)
@pytest.mark.usefixtures("labels", "generation_id")
def test_a_finetune_that_cannot_be_done_is_refused_at_once(client, changed, status, code):
    answer = client.post("/v1/finetunes", json={"task": "qa"} | changed)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert client.get("/v1/jobs").json()["items"] == []


@pytest.mark.usefixtures("labels", "generation_id")
def test_a_refusal_names_the_field_and_what_was_meant(client):
    problem = client.post("/v1/finetunes", json={"task": "qa", "recipe": {"epoch": 3}}).json()

    assert problem["errors"][0]["field"] == "body.recipe.epoch"
    assert problem["nearest"][0] == "epochs"
    assert "epochs" in problem["detail"]


def test_labels_that_teach_nothing_are_refused(client, sessions, videos):
    def add(*answers_and_splits):
        new = [
            NewLabel(video, "qa", "What?", answer=answer, split=split)
            for video, (answer, split) in zip(videos, answers_and_splits, strict=False)
        ]
        with sessions.begin() as session:
            LabelRepository(session).add_many(new)
        answer = client.post("/v1/finetunes", json={"task": "qa"})
        return answer.status_code, answer.json().get("code")

    one, two = ("red", "train"), ("green", "train")
    assert add(one) == (409, "one_answer")
    assert add(one, two) == (409, "holdout_empty")
    assert add(one, two, ("red", "holdout")) == (202, None)


def test_nothing_indexed_or_a_deleted_video_is_a_conflict(client, sessions, labels, videos):
    with sessions.begin() as session:
        dataset_id = DatasetRepository(session).freeze("qa").id
    client.delete(f"/v1/videos/{videos[5]}")

    answer = client.post("/v1/finetunes", json={"task": "qa", "dataset_id": str(dataset_id)})

    assert (answer.status_code, answer.json()["code"]) == (409, "video_deleted")
    assert str(videos[5]) in answer.json()["detail"]


def test_nothing_can_be_trained_before_anything_is_indexed(client, sessions, make_video):
    new = [
        NewLabel(make_video(str(n).encode()), "qa", "What?", answer=str(n), split=split)
        for n, split in enumerate(["train", "train", "holdout"])
    ]
    with sessions.begin() as session:
        LabelRepository(session).add_many(new)

    answer = client.post("/v1/finetunes", json={"task": "qa"})

    assert (answer.status_code, answer.json()["code"]) == (409, "no_active_generation")


@pytest.mark.usefixtures("labels", "generation_id")
def test_a_finetune_shows_how_far_it_is_and_what_came_of_it(client, sessions, blobs):
    finetune_id = client.post("/v1/finetunes", json={"task": "qa"}).json()["id"]
    url = f"/v1/finetunes/{finetune_id}"
    no_picture = client.get(f"{url}/curves.png")

    held = claim(sessions)
    with sessions.begin() as session:
        JobRepository(session).report_progress(held, done=4, total=9, stage="training")
    for step in (2, 4):
        figures = {"learning_rate": 1e-4, "clips_per_second": 50.0, "seconds_left": 7.5}
        event(sessions, held, "metrics", step=step, loss=1 / step, **figures)
    event(sessions, held, "metrics", step=4, accuracy=0.5)
    running = client.get(url).json()
    blobs.put_bytes(curves_key(finetune_id, "curves.png"), b"\x89PNG curves")
    event(sessions, held, "evaluation", candidate=REPORT["candidate"])
    model_id = finish(sessions, held)
    done = client.get(url).json()

    assert (no_picture.status_code, no_picture.json()["code"]) == (404, "curves_not_ready")
    assert (running["state"], running["stage"]) == ("running", "training")
    assert running["progress"] == {"done": 4, "total": 9}
    assert (running["loss"], running["seconds_left"]) == (0.25, 7.5)
    assert (running["learning_rate"], running["clips_per_second"]) == (1e-4, 50.0)
    assert (done["state"], done["model_id"]) == ("succeeded", str(model_id))
    assert (done["seconds_left"], done["warnings"]) == (None, [])
    assert done["decision"] == REPORT["decision"]
    assert done["report"] == REPORT
    curves = client.get(f"{url}/curves").json()
    assert [(point["step"], point.get("loss")) for point in curves["points"]] == [
        (2, 0.5),
        (4, 0.25),
        (4, None),
    ]
    assert curves["evaluations"] == [{"candidate": REPORT["candidate"]}]
    assert len(client.get(f"{url}/curves?max_points=2").json()["points"]) == 2
    picture = client.get(f"{url}/curves.png")
    assert (picture.content, picture.headers["content-type"]) == (b"\x89PNG curves", "image/png")
    assert client.get(f"/v1/models/{model_id}").json()["finetune_id"] == finetune_id
    events = client.get(f"{url}/events").json()["items"]
    assert [each["type"] for each in events][:2] == ["queued", "claimed"]


@pytest.mark.usefixtures("labels", "generation_id")
def test_a_request_waits_for_the_end(client, sessions):
    finetune_id = client.post("/v1/finetunes", json={"task": "qa"}).json()["id"]

    def work():
        time.sleep(0.3)
        finish(sessions, claim(sessions))

    worker = threading.Thread(target=work)
    worker.start()
    found = client.get(f"/v1/finetunes/{finetune_id}?wait=20")
    worker.join()
    same = client.get(
        f"/v1/finetunes/{finetune_id}", headers={"If-None-Match": found.headers["etag"]}
    )

    assert found.json()["state"] == "succeeded"
    assert same.status_code == 304


@pytest.mark.usefixtures("labels", "generation_id")
def test_a_finetune_is_paused_resumed_cancelled_and_retried(client, sessions):
    finetune_id = client.post("/v1/finetunes", json={"task": "qa"}).json()["id"]

    def act(verb):
        answer = client.post(f"/v1/finetunes/{finetune_id}:{verb}")
        return answer.json().get("state") or answer.json()["code"]

    waiting = [act(verb) for verb in ("pause", "pause", "resume", "resume")]
    claim(sessions)
    asked = client.post(f"/v1/finetunes/{finetune_id}:pause").json()
    running = [act(verb) for verb in ("cancel", "retry", "pause")]

    assert waiting == ["paused", "paused", "queued", "illegal_state"]
    assert (asked["state"], asked["pause_requested"]) == ("running", True)
    assert running == ["cancelling", "illegal_state", "illegal_state"]


@pytest.mark.usefixtures("labels", "generation_id")
def test_a_cancelled_finetune_goes_round_again(client):
    finetune_id = client.post("/v1/finetunes", json={"task": "qa"}).json()["id"]

    cancelled = client.post(f"/v1/finetunes/{finetune_id}:cancel").json()
    again = client.post(f"/v1/finetunes/{finetune_id}:retry").json()

    assert (cancelled["state"], cancelled["done"]) == ("cancelled", True)
    assert (again["state"], again["dataset"]) == ("queued", cancelled["dataset"])


@pytest.mark.parametrize("path", ["", "/curves", "/curves.png", "/events"])
def test_a_finetune_that_is_not_there_is_not_found(client, sessions, path):
    with sessions.begin() as session:
        question_id = JobRepository(session).enqueue(new_question()).id
    for name in (uuid4(), "nonsense", question_id):
        answer = client.get(f"/v1/finetunes/{name}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "finetune_not_found")


def test_only_finetunes_are_acted_on_as_such(client, sessions):
    with sessions.begin() as session:
        question_id = JobRepository(session).enqueue(new_question()).id

    for verb in ("pause", "resume", "cancel", "retry"):
        answer = client.post(f"/v1/finetunes/{question_id}:{verb}")
        assert (answer.status_code, answer.json()["code"]) == (404, "finetune_not_found")
    assert client.get(f"/v1/jobs/{question_id}").json()["state"] == "queued"


def new_question():
    from store.jobs.repository import NewJob

    return NewJob(JobKind.QUESTION, {})


def test_a_generation_is_needed_only_where_its_tokens_are(client, sessions, labels):
    with sessions.begin() as session:
        base_id = GenerationRepository(session).active().model_id

    answer = client.post(
        "/v1/finetunes",
        json={"task": "qa", "base_model_id": str(base_id), "recipe": {"visual": "trained"}},
    )

    assert (answer.status_code, answer.json()["recipe"]["visual"]) == (202, "trained")
