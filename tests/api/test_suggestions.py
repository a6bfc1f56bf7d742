import json
from uuid import UUID, uuid4

import pytest

from api.schemas.labels import NewLabel as NewLabelBody
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.labels.repository import LabelRepository, NewLabel
from store.models.repository import ModelRepository
from store.models.tables import Model
from store.results.questions import QuestionRepository
from store.results.trials import TrialRepository, TrialSource
from tests.api.test_questions import RESULT

pytestmark = pytest.mark.usefixtures("generation_id")

PATH = "/v1/labels/suggestions"


@pytest.fixture
def model_id(sessions) -> UUID:
    """A model with a trained QA head serves."""
    with sessions.begin() as session:
        (model,) = ModelRepository(session).list()
        models = ModelRepository(session)
        qa = models.register(
            name="qa",
            version="1",
            heads=["qa"],
            tasks=["qa"],
            folder_key="models/qa",
            sha256="2" * 64,
            visual_sha256=model.visual_sha256,
            config={},
        )
        models.promote(qa.id, ["qa"])
        return qa.id


def complete(session, job_id, score, *, task="qa", model_id=None):
    uncertainty = {**RESULT["uncertainty"], "score": score}
    result = {**RESULT, "task": task, "zero_shot": task != "qa", "uncertainty": uncertainty}
    QuestionRepository(session).complete(job_id, result, model_id=model_id, uncertainty=score)


@pytest.fixture
def answer(sessions, model_id):
    """Ask a question and answer it as the worker does."""

    def make(video_id, text, score, *, choices=None, by=model_id):
        task = "qa" if choices is None else "multiple_choice"
        asked = {"video_id": str(video_id), "text": text, "choices": choices, "top_k": 5}
        with sessions.begin() as session:
            job = JobRepository(session).enqueue(NewJob(JobKind.QUESTION, asked, video_id=video_id))
            QuestionRepository(session).create(job, text=text)
            complete(session, job.id, score, task=task, model_id=by)
            return str(job.id)

    return make


@pytest.fixture
def try_out(sessions, model_id):
    """Put a trial and answer it."""

    def make(video_id, text, score):
        with sessions.begin() as session:
            job = TrialRepository(session).create(
                TrialSource.UNLABELLED, video_id=video_id, text=text, model_id=model_id
            )
            complete(session, job.id, score, model_id=model_id)
            return str(job.id)

    return make


def ids(client, query=""):
    answer = client.get(PATH + query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["next_page_token"] is None
    return [item["question_id"] for item in answer.json()["items"]]


def test_what_is_worth_a_label_most_comes_first(client, make_video, answer, try_out):
    a, b = make_video(b"a"), make_video(b"b")
    low, high = answer(a, "What is it?", 0.2), answer(b, "What is it?", 0.9)
    trial = try_out(b, "Which colour?", 0.5)

    assert ids(client) == [high, trial, low]
    assert ids(client, "?limit=2") == [high, trial]
    assert ids(client, f"?video_id={a}") == [low]
    assert ids(client, "?source=asked") == [high, low]
    assert ids(client, "?source=unlabelled") == [trial]
    assert ids(client, "?task=multiple_choice") == []
    assert ids(client, f"?video_id={uuid4()}") == []


def test_a_suggestion_says_why_where_and_what_to_send(client, make_video, answer, model_id):
    video_id = make_video()
    question_id = answer(video_id, "What is it?", 0.9)

    (item,) = client.get(PATH).json()["items"]

    assert item == {
        "task": "qa",
        "source": "asked",
        "video_id": str(video_id),
        "uri": "upload:///parrot.mp4",
        "filename": "parrot.mp4",
        "question": "What is it?",
        "choices": None,
        "score": 0.9,
        "entropy": 0.88,
        "disagreement": 0.2,
        "start_seconds": 0.0,
        "end_seconds": 2.0,
        "answers": RESULT["answers"],
        "zero_shot": False,
        "question_id": question_id,
        "model_id": str(model_id),
        "is_current": True,
        "label": {
            "video": str(video_id),
            "question": "What is it?",
            "choices": None,
            "answer": None,
            "start_seconds": None,
            "end_seconds": None,
        },
    }


def test_a_filled_label_is_taken_and_ends_the_suggestion(client, make_video, answer):
    answer(make_video(), "What is it?", 0.9)
    (item,) = client.get(PATH).json()["items"]

    sent = client.post("/v1/labels", json={**item["label"], "answer": "a parrot"})

    assert sent.status_code == 201, sent.text
    assert ids(client) == []


def test_filled_labels_are_imported_as_lines(client, make_video, answer):
    answer(make_video(), "What is it?", 0.9)
    (item,) = client.get(PATH).json()["items"]

    sent = client.post(
        "/v1/labels",
        content=json.dumps({**item["label"], "answer": "a parrot"}),
        headers={"Content-Type": "application/x-ndjson"},
    )

    assert (sent.status_code, sent.json()["num_inserted"]) == (200, 1), sent.text
    assert ids(client) == []


def test_a_choice_is_suggested_with_its_choices(client, sessions, make_video, answer):
    with sessions() as session:
        mini = session.query(Model).filter_by(name="clipbert-mini").one().id
    choices = ["a parrot", "a dog"]
    answer(make_video(), "Which animal?", 0.9, choices=choices, by=mini)

    (item,) = client.get(f"{PATH}?task=multiple_choice").json()["items"]

    assert (item["choices"], item["zero_shot"], item["is_current"]) == (choices, True, True)
    filled = NewLabelBody.model_validate({**item["label"], "answer": "a dog"})
    assert filled.choices == choices
    assert client.get(PATH).json()["items"] == []


def test_an_answer_of_an_older_model_is_marked(client, sessions, make_video, answer, generation_id):
    with sessions() as session:
        mini = session.query(Model).filter_by(name="clipbert-mini").one().id
    answer(make_video(), "What is it?", 0.9, by=mini)

    (item,) = client.get(PATH).json()["items"]

    assert (item["is_current"], item["model_id"]) == (False, str(mini))


def test_one_question_stands_once_and_labelled_or_deleted_ones_not_at_all(
    client, sessions, make_video, answer
):
    a, b, c = make_video(b"a"), make_video(b"b"), make_video(b"c")
    answer(a, "what  IS it", 0.9)
    newest = answer(a, "What is it?", 0.4)
    answer(b, "What is it?", 0.9)
    answer(c, "What is it?", 0.9)
    with sessions.begin() as session:
        LabelRepository(session).add_many([NewLabel(b, "qa", "What is it", answer="a parrot")])
    client.delete(f"/v1/videos/{c}")

    assert ids(client) == [newest]


def test_trials_are_listed_only_if_asked_for(client, make_video, answer, try_out):
    video_id = make_video()
    asked, trial = answer(video_id, "What?", 0.5), try_out(video_id, "Which?", 0.5)

    def listed(path):
        return [item["id"] for item in client.get(path).json()["items"]]

    assert listed("/v1/questions") == [asked]
    assert listed("/v1/questions?trials=true") == [trial, asked]
    assert listed("/v1/jobs") == [asked]
    assert listed("/v1/jobs?kind=trial") == [trial]
    assert client.get(f"/v1/questions/{trial}").json()["text"] == "Which?"
    stats = client.get("/v1/stats").json()
    assert (stats["jobs"]["question"], stats["jobs"]["trial"]) == ({"queued": 1}, {"queued": 1})


@pytest.mark.parametrize("query", ["task=retrieval", "limit=0", "source=x", "video_id=x"])
def test_what_makes_no_sense_is_refused(client, query):
    answer = client.get(f"{PATH}?{query}")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
