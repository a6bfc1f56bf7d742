from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from store.labels.repository import LabelRepository, NewLabel
from store.models.schedules import ScheduleRepository

BODY = {
    "name": "every night",
    "cron": "30 2 * * *",
    "time_zone": "Europe/Berlin",
    "min_new_labels": 20,
    "finetune": {"task": "qa", "gate": {"min_gain": 0.01}},
}


@pytest.fixture
def schedule(client, sessions):
    return client.post("/v1/schedules", json=BODY).json()


def instant(text):
    return datetime.fromisoformat(text)


def test_a_schedule_is_made_and_knows_when_it_fires(client):
    answer = client.post("/v1/schedules", json=BODY)

    found = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/schedules/{found['id']}"
    assert {name: found[name] for name in BODY if name != "finetune"} == {
        name: BODY[name] for name in BODY if name != "finetune"
    }
    assert found["finetune"]["task"] == "qa"
    assert (found["enabled"], found["misfire_policy"], found["overlap_policy"]) == (
        True,
        "run_once",
        "skip",
    )
    fires_at = instant(found["next_fire_at"])
    assert datetime.now(UTC) < fires_at < datetime.now(UTC) + timedelta(days=1, hours=2)
    assert (fires_at.hour in {0, 1}, fires_at.minute) == (True, 30)
    assert client.get(answer.headers["location"]).json() == found
    assert client.get("/v1/schedules").json()["items"] == [found]


def test_a_name_is_given_once_and_the_same_request_with_a_key_is_answered_again(client):
    headers = {"Idempotency-Key": "once"}

    first = client.post("/v1/schedules", json=BODY, headers=headers)
    again = client.post("/v1/schedules", json=BODY, headers=headers)
    without = client.post("/v1/schedules", json=BODY)
    other = client.post("/v1/schedules", json=BODY | {"cron": "0 4 * * *"}, headers=headers)

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    for refused in (without, other):
        assert (refused.status_code, refused.json()["code"]) == (409, "schedule_exists")


def test_a_repeated_schedule_is_the_same_in_whatever_order_it_lists(client):
    headers = {"Idempotency-Key": "once"}
    body = BODY | {"finetune": {"task": "qa", "labels": {"sources": ["review", "import"]}}}

    answers = [client.post("/v1/schedules", json=body, headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 200]


@pytest.mark.parametrize(
    ("changed", "code", "field"),
    [
        ({"cron": "every night"}, "invalid_cron", "body.cron"),
        ({"cron": "0 0 30 2 *"}, "invalid_cron", "body.cron"),
        ({"time_zone": "Europe/Atlantis"}, "invalid_time_zone", "body.time_zone"),
        ({"min_new_labels": -1}, "invalid_request", "body.min_new_labels"),
        ({"misfire_policy": "panic"}, "invalid_request", "body.misfire_policy"),
        ({"name": None}, "invalid_request", "body.name"),
        ({"when": "now"}, "invalid_request", "body.when"),
        ({"finetune": {"task": "dance"}}, "unknown_task", "body.finetune.task"),
        (
            {"finetune": {"task": "qa", "recipe": {"epoch": 1}}},
            "unknown_recipe_field",
            "body.finetune.recipe.epoch",
        ),
        ({"finetune": {"task": "qa", "recipe": {"epochs": "x"}}}, "invalid_recipe", None),
    ],
)
def test_a_schedule_that_never_could_fire_is_refused(client, schedule, changed, code, field):
    made = client.post("/v1/schedules", json=BODY | {"name": "other"} | changed)
    moved = client.patch(f"/v1/schedules/{schedule['id']}", json=changed)

    for answer in (made, moved):
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, code)
        if field is not None:
            assert problem["errors"][0]["field"] == field
    assert client.get("/v1/schedules").json()["items"] == [schedule]


def test_a_change_of_when_is_a_change_of_the_next_fire(client, schedule):
    url = f"/v1/schedules/{schedule['id']}"

    renamed = client.patch(url, json={"name": "nightly", "min_new_labels": 0}).json()
    moved = client.patch(url, json={"cron": "*/5 * * * *"}).json()
    other = client.patch(url, json={"finetune": {"task": "retrieval"}}).json()

    assert renamed["next_fire_at"] == schedule["next_fire_at"]
    assert (renamed["name"], renamed["min_new_labels"]) == ("nightly", 0)
    assert instant(moved["next_fire_at"]) <= datetime.now(UTC) + timedelta(minutes=5)
    assert moved["finetune"] == schedule["finetune"]
    assert other["finetune"]["task"] == "retrieval"
    assert client.get(url).json() == other


def test_a_change_is_made_only_of_what_was_seen(client, schedule):
    url = f"/v1/schedules/{schedule['id']}"
    etag = client.get(url).headers["etag"]

    first = client.patch(url, json={"min_new_labels": 1}, headers={"If-Match": etag})
    late = client.patch(url, json={"min_new_labels": 2}, headers={"If-Match": etag})
    not_deleted = client.delete(url, headers={"If-Match": etag})
    deleted = client.delete(url, headers={"If-Match": first.headers["etag"]})

    assert first.json()["min_new_labels"] == 1
    for refused in (late, not_deleted):
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert deleted.status_code == 204
    assert client.get(url).json()["code"] == "schedule_not_found"


def test_a_name_that_is_taken_cannot_be_taken(client, schedule):
    other = client.post("/v1/schedules", json=BODY | {"name": "other"}).json()

    answer = client.patch(f"/v1/schedules/{other['id']}", json={"name": "every night"})

    assert (answer.status_code, answer.json()["code"]) == (409, "schedule_exists")


def test_a_paused_schedule_has_no_next_fire(client, schedule):
    url = f"/v1/schedules/{schedule['id']}"

    paused = client.post(f"{url}:pause").json()
    resumed = client.post(f"{url}:resume").json()
    client.post(f"{url}:pause")
    unpaused = client.post(f"{url}:unpause").json()

    assert (paused["enabled"], paused["next_fire_at"]) == (False, None)
    for again in (resumed, unpaused):
        assert (again["enabled"], again["next_fire_at"]) == (True, schedule["next_fire_at"])


def test_a_fire_by_hand_tells_what_it_did(client, sessions, schedule, make_video, generation_id):
    url = f"/v1/schedules/{schedule['id']}"

    refused = client.post(f"{url}:run_now").json()
    new = [
        NewLabel(
            make_video(str(n).encode(), generation_id=generation_id),
            "qa",
            "What?",
            answer=str(n % 2),
            split=split,
        )
        for n, split in enumerate(["train", "train", "holdout"])
    ]
    with sessions.begin() as session:
        LabelRepository(session).add_many(new)
    started = client.post(f"{url}:run_now").json()
    overlapping = client.post(f"{url}:run_now").json()

    assert (refused["outcome"], refused["reason"]) == ("failed", "refused:no_labels")
    assert (started["outcome"], started["is_manual"]) == ("started", True)
    finetune = client.get(f"/v1/finetunes/{started['finetune_id']}").json()
    assert finetune["schedule_id"] == schedule["id"]
    assert (overlapping["outcome"], overlapping["reason"]) == ("skipped", "overlap")
    assert started["finetune_id"] in overlapping["detail"]
    first = client.get(f"{url}/fires?page_size=2").json()
    second = client.get(f"{url}/fires?page_size=2&page_token={first['next_page_token']}").json()
    assert first["items"] + second["items"] == [overlapping, started, refused]
    of_schedule = client.get(f"/v1/finetunes?schedule_id={schedule['id']}").json()["items"]
    assert [each["id"] for each in of_schedule] == [started["finetune_id"]]


def test_a_fire_that_was_missed_is_shown_with_its_reason(client, sessions, schedule):
    with sessions.begin() as session:
        ScheduleRepository(session).record_fire(
            schedule["id"],
            datetime(2026, 1, 6, 1, 30, tzinfo=UTC),
            outcome="skipped",
            reason="not_enough_labels",
            detail="3 new labels: at least 20 are needed",
        )

    fires = client.get(f"/v1/schedules/{schedule['id']}/fires").json()["items"]

    assert [(fire["outcome"], fire["reason"]) for fire in fires] == [
        ("skipped", "not_enough_labels")
    ]
    assert instant(fires[0]["fire_time"]) == datetime(2026, 1, 6, 1, 30, tzinfo=UTC)


def test_a_schedule_that_is_not_there_is_not_found(client):
    for name in (uuid4(), "nonsense"):
        url = f"/v1/schedules/{name}"
        answers = [client.get(url), client.patch(url, json={}), client.delete(url)]
        answers += [client.get(f"{url}/fires")]
        answers += [client.post(f"{url}:{verb}") for verb in ("pause", "resume", "run_now")]
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (404, "schedule_not_found")
