from uuid import uuid4

import pytest

from store.models.repository import GenerationRepository, ModelRepository
from store.models.tables import GenerationState
from store.table_base import Task


@pytest.fixture
def mini_id(sessions, generation_id):
    with sessions() as session:
        return GenerationRepository(session).get(generation_id).model_id


def register(sessions, name, *, task=Task.QA, visual_sha256="1" * 64, parent_id=None):
    with sessions.begin() as session:
        return (
            ModelRepository(session)
            .register(
                name=name,
                version="1",
                heads=[task],
                tasks=[task],
                folder_key=f"models/{name}",
                sha256=name[-1] * 64,
                visual_sha256=visual_sha256,
                config={"answers": ["yes", "no"]},
                metrics={"metric": "accuracy", "accuracy": 0.9},
                parent_id=parent_id,
            )
            .id
        )


def serving(client):
    models = client.get("/v1/models").json()["items"]
    return {task: model["name"] for model in models for task in model["serves"]}


def test_a_model_is_shown_with_what_it_came_from(client, sessions, mini_id, generation_id):
    model_id = register(sessions, "qa-1", parent_id=mini_id)

    answer = client.get(f"/v1/models/{model_id}")
    unchanged = client.get(
        f"/v1/models/{model_id}", headers={"If-None-Match": answer.headers["etag"]}
    )

    model = answer.json()
    assert (model["state"], model["serves"], model["heads"]) == ("candidate", [], ["qa"])
    assert (model["parent_id"], model["finetune_id"]) == (str(mini_id), None)
    assert (model["generation_id"], model["num_answers"]) == (str(generation_id), 2)
    assert model["metrics"] == {"metric": "accuracy", "accuracy": 0.9}
    assert unchanged.status_code == 304
    for name in (uuid4(), "nonsense"):
        assert client.get(f"/v1/models/{name}").json()["code"] == "model_not_found"


def test_a_model_is_promoted_and_rolled_back_by_hand(client, sessions, mini_id):
    first, second = register(sessions, "qa-1"), register(sessions, "qa-2")

    promoted = client.post(f"/v1/models/{first}:promote").json()
    client.post(f"/v1/models/{second}:promote", json={"tasks": ["qa"]})
    after_second = serving(client)
    rolled_back = client.post(f"/v1/models/{second}:rollback").json()

    assert (promoted["state"], promoted["serves"]) == ("serving", ["qa"])
    assert after_second["qa"] == "qa-2"
    assert (rolled_back["state"], rolled_back["serves"]) == ("retired", [])
    assert serving(client)["qa"] == "qa-1"
    history = client.get(f"/v1/models/{second}/promotions").json()["items"]
    assert [(each["action"], each["model_id"]) for each in history] == [
        ("rollback", str(first)),
        ("promote", str(second)),
    ]
    assert history[0]["reason"] == "by hand, with the key tests"
    last = client.post(f"/v1/models/{first}:rollback")
    assert last.status_code == 200
    assert "qa" not in serving(client)


def test_what_cannot_be_promoted_or_rolled_back_is_a_conflict(client, sessions, mini_id):
    model_id = register(sessions, "qa-1")

    wrong_task = client.post(f"/v1/models/{model_id}:promote", json={"tasks": ["retrieval"]})
    serves_nothing = client.post(f"/v1/models/{model_id}:rollback")
    the_only_recall = client.post(f"/v1/models/{mini_id}:rollback")

    assert (wrong_task.status_code, wrong_task.json()["code"]) == (409, "cannot_promote")
    assert "can do qa, not retrieval" in wrong_task.json()["detail"]
    assert (serves_nothing.status_code, serves_nothing.json()["code"]) == (409, "illegal_rollback")
    assert (the_only_recall.status_code, the_only_recall.json()["code"]) == (
        409,
        "illegal_rollback",
    )
    assert "recall" in serving(client)
    for body in ({"tasks": []}, {"tasks": ["dance"]}, {"task": "qa"}):
        wrong = client.post(f"/v1/models/{model_id}:promote", json=body)
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_request")
    assert client.post(f"/v1/models/{uuid4()}:promote").status_code == 404
    assert client.post(f"/v1/models/{uuid4()}:rollback").status_code == 404


def test_a_model_with_another_visual_side_waits_for_its_generation(
    client, sessions, make_video, generation_id
):
    make_video(b"1", generation_id=generation_id)
    model_id = register(sessions, "qa-1", visual_sha256="2" * 64)

    promoted = client.post(f"/v1/models/{model_id}:promote").json()
    generations = client.get("/v1/generations").json()["items"]

    assert (promoted["serves"], promoted["waiting_for"]) == (["qa"], ["qa"])
    building, active = generations
    assert (building["state"], building["model"]) == ("building", "qa-1 1")
    assert (building["num_indexed"], building["num_videos"]) == (0, 1)
    assert promoted["generation_id"] == building["id"]
    assert (active["id"], active["state"]) == (str(generation_id), "active")
    assert (active["num_indexed"], active["num_videos"]) == (1, 1)
    assert client.get(f"/v1/generations/{building['id']}").json() == building

    with sessions.begin() as session:
        GenerationRepository(session).activate(building["id"])
    assert client.get(f"/v1/models/{model_id}").json()["waiting_for"] == []
    retired = client.get(f"/v1/generations/{generation_id}").json()
    assert retired["state"] == GenerationState.RETIRED
    assert retired["retired_at"] is not None


def test_a_generation_that_is_not_there_is_not_found(client):
    for name in (uuid4(), "nonsense"):
        answer = client.get(f"/v1/generations/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "generation_not_found")


def test_a_model_that_nothing_needs_is_deleted_with_its_files(client, sessions, mini_id):
    model_id = register(sessions, "qa-1")
    serving_id = register(sessions, "qa-2")
    client.post(f"/v1/models/{serving_id}:promote", json={"tasks": ["qa"]})

    deleted = client.delete(f"/v1/models/{model_id}")
    again = client.delete(f"/v1/models/{model_id}")
    refused = client.delete(f"/v1/models/{serving_id}")

    assert deleted.status_code == 204
    assert (again.status_code, again.json()["code"]) == (404, "model_not_found")
    assert client.get(f"/v1/models/{model_id}").status_code == 404
    assert (refused.status_code, refused.json()["code"]) == (409, "model_needed")
    assert "it serves qa" in refused.json()["detail"]
    assert "qa-1" not in {model["name"] for model in client.get("/v1/models").json()["items"]}
