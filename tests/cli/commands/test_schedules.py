import json

import pytest

ID = "0198c0df-9999-7aaa-8bbb-1234567890ab"
FINETUNE = "0198c0df-7777-7aaa-8bbb-1234567890ab"
SCHEDULE = f"/v1/schedules/{ID}"


def schedule(**changes):
    return {
        "id": ID,
        "name": "nightly",
        "cron": "0 3 * * *",
        "time_zone": "Europe/Berlin",
        "enabled": True,
        "min_new_labels": 50,
        "misfire_policy": "skip",
        "overlap_policy": "skip",
        "finetune": {"task": "qa", "recipe": {"epochs": 4}},
        "next_fire_at": "2026-01-06T02:00:00Z",
        **changes,
    }


@pytest.fixture
def scheduled(api):
    api.answer_list("/v1/schedules", [schedule()])
    api.answer("GET", SCHEDULE, schedule())
    return api


def test_a_schedule_is_created_with_what_was_given(api, clipbert):
    api.answer("POST", "/v1/schedules", schedule(), 201)

    said = clipbert(
        *("schedule", "create", "nightly", "--cron", "0 3 * * *", "--tz", "Europe/Berlin"),
        *("--task", "qa", "--min-new-labels", "50", "--misfire", "skip", "--overlap", "queue"),
        *("--set", "epochs=4", "--min-holdout", "10"),
    )

    assert json.loads(api.requests[0].body) == {
        "name": "nightly",
        "cron": "0 3 * * *",
        "time_zone": "Europe/Berlin",
        "min_new_labels": 50,
        "misfire_policy": "skip",
        "overlap_policy": "queue",
        "finetune": {"task": "qa", "recipe": {"epochs": 4}, "gate": {"min_holdout": 10}},
    }
    assert said.out == (
        "schedule nightly: 0 3 * * * (Europe/Berlin), next 2026-01-06 02:00:00 UTC\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "qa"], "give --cron"),
        (["--cron", "0 3 * * *"], "give --task"),
        (
            ["--cron", "0 3 * * *", "--task", "qa", "--misfire", "panic"],
            "--misfire is one of skip, run_once, not panic",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_said_before_anything_is_sent(api, clipbert, arguments, said):
    assert said in clipbert("schedule", "create", "nightly", *arguments, code=1).err
    assert api.requests == []


def test_an_update_changes_what_is_given_and_keeps_the_rest(scheduled, clipbert):
    scheduled.answer("PATCH", SCHEDULE, schedule(min_new_labels=9))

    clipbert("schedule", "update", "nightly", "--min-new-labels", "9", "--set", "clips=2")

    (sent,) = scheduled.sent("PATCH", SCHEDULE)
    assert json.loads(sent.body) == {
        "min_new_labels": 9,
        "finetune": {"task": "qa", "recipe": {"epochs": 4, "clips": 2}},
    }


def test_an_update_of_nothing_is_refused(scheduled, clipbert):
    assert "nothing to change" in clipbert("schedule", "update", ID, code=1).err


@pytest.mark.parametrize("wanted", [ID, "nightly"])
def test_a_schedule_is_found_by_id_and_by_name(scheduled, clipbert, wanted):
    scheduled.answer("POST", f"{SCHEDULE}:pause", schedule(enabled=False))

    assert clipbert("schedule", "pause", wanted).out == "schedule nightly: paused\n"


def test_an_unknown_schedule_is_said(scheduled, clipbert):
    assert "no schedule is named 'hourly'" in clipbert("schedule", "show", "hourly", code=1).err


def test_schedules_are_listed_with_their_next_time(scheduled, clipbert):
    _header, row = clipbert("schedule", "list").out.splitlines()

    assert " ".join(row.split()) == (
        f"{ID} nightly 0 3 * * * Europe/Berlin qa 50 2026-01-06 02:00:00 UTC"
    )


def test_a_schedule_that_is_run_now_tells_what_it_did(scheduled, clipbert):
    fire = {"outcome": "started", "finetune_id": FINETUNE}
    scheduled.answer("POST", f"{SCHEDULE}:run_now", fire)

    started = clipbert("schedule", "run-now", "nightly").out
    skipped = {"outcome": "skipped", "detail": "3 new labels, 50 are needed"}
    scheduled.answer("POST", f"{SCHEDULE}:run_now", skipped)

    assert f"follow it with: clipbert finetunes show {FINETUNE} --wait" in started
    assert clipbert("schedule", "run-now", "nightly").out == (
        "schedule nightly: skipped, 3 new labels, 50 are needed\n"
    )


def test_fires_are_listed_with_what_each_did_and_why(scheduled, clipbert):
    fires = [
        {"fire_time": "2026-01-05T10:00:00Z", "outcome": "started", "finetune_id": FINETUNE}
        | {"is_manual": True},
        {"fire_time": "2026-01-05T02:00:00Z", "outcome": "skipped", "reason": "not_enough_labels"}
        | {"detail": "3 of 50"},
    ]
    scheduled.answer_list(f"{SCHEDULE}/fires", fires)

    _header, first, second = clipbert("schedule", "fires", "nightly").out.splitlines()

    assert first.startswith("2026-01-05 10:00:00 (by hand)")
    assert first.rstrip().endswith(FINETUNE)
    assert second.split()[2:] == ["skipped", "not_enough_labels", "3", "of", "50"]


def test_a_schedule_without_a_name_is_refused(api, clipbert):
    said = clipbert("schedule", "create", " ", "--cron", "0 3 * * *", "--task", "qa", code=1)

    assert "the name of a schedule is empty" in said.err
    assert api.requests == []
