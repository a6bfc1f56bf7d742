import json
import os
import signal
import time

import pytest

from cli.commands.finetunes import find_finetune
from cli.errors import CliError
from cli.finetune_request import merged, read_settings
from cli.show import finetune_progress
from cli.show.finetune_progress import describe, follow_finetune, format_duration
from clipbert_client.client import ApiClient

ID = "0198c0df-7777-7aaa-8bbb-1234567890ab"
MODEL = "0198c0df-8888-7aaa-8bbb-1234567890ab"
DATASET = "0198c0f1-1111-7aaa-8bbb-1234567890ab"
AFTER = "2026-01-01T00:00:00+00:00"
FINETUNE = f"/v1/finetunes/{ID}"


def finetune(state="queued", **more):
    return {
        "id": ID,
        "state": state,
        "done": state in {"succeeded", "failed", "cancelled", "quarantined"},
        "name": "clipbert-qa",
        "task": "qa",
        "base_model_id": MODEL,
        "dataset": {
            "id": "d",
            "num_train": 400,
            "num_holdout": 100,
            "num_videos": 50,
            "answers": ["red", "green", "blue"],
        },
        "recipe": {"visual": "frozen", "epochs": 4.0, "clips": 4, "learning_rate": 1e-4},
        "gate": {"min_holdout": 50},
        "stage": None,
        "progress": {"done": 0, "total": None},
        "loss": None,
        "learning_rate": None,
        "clips_per_second": None,
        "seconds_left": None,
        "model_id": None,
        "decision": None,
        "report": None,
        "error": None,
        "warnings": [],
        "created_at": "2026-01-05T09:00:00Z",
        **more,
    }


def training(step, **more):
    return finetune(
        "running",
        stage="training",
        progress={"done": step, "total": 400},
        loss=0.4123,
        learning_rate=4.2e-5,
        clips_per_second=210.4,
        seconds_left=80.2,
        **more,
    )


def ended(code="promoted", *, promoted=True):
    measured = {
        "candidate": 0.93,
        "reference": 0.61,
        "difference": 0.32,
        "low": 0.2,
        "high": 0.44,
        "num_examples": 100,
    }
    decision = {
        "promoted": promoted,
        "code": code,
        "reason": "93.0% right of 100, clipbert-qa 1 61.0% (+32.0%)",
        "holdout": measured,
        "regression": None,
    }
    report = {"candidate": {"metric": "accuracy"}, "reference": {"name": "clipbert-qa 1"}}
    return finetune("succeeded", model_id=MODEL, decision=decision, report=report)


@pytest.fixture
def asked(api, monkeypatch):
    """An API whose finetune goes through states, one a poll."""
    monkeypatch.setattr(finetune_progress, "POLL_SECONDS", 0.001)
    api.answer("POST", "/v1/finetunes", finetune(), 202)
    states = [finetune(), training(1), training(120), finetune("running", stage="evaluating")]

    def go_on(_):
        return 200, states.pop(0) if len(states) > 1 else states[0]

    api.answer("GET", FINETUNE, go_on)
    api.states = states
    return api


def body_of(api):
    return json.loads(api.sent("POST", "/v1/finetunes")[0].body)


def test_what_is_not_given_is_left_to_the_service(asked, clipbert):
    clipbert("finetune", "--task", "qa")

    assert body_of(asked) == {"task": "qa"}


def test_every_option_has_its_place_in_the_request(asked, clipbert):
    model = {"id": MODEL, "name": "clipbert-mini", "version": "9a8b", "serves": ["recall"]}
    asked.answer_list("/v1/models", [model])

    clipbert(
        *("finetune", "--task", "qa", "--name", "mine", "--base", "clipbert-mini@9a"),
        *("--set", "epochs=2", "--set", "plan=segments", "--set", "steps=none"),
        *("--source", "review", "--tag", "kitchen", "--after", "2026-01-01T00:00:00Z"),
        *("--min-holdout", "10", "--min-gain", "0.01", "--max-drop", "0", "--no-promote"),
        *("--any-gain", "--regression", DATASET),
    )

    assert body_of(asked) == {
        "task": "qa",
        "name": "mine",
        "base_model_id": MODEL,
        "recipe": {"epochs": 2, "plan": "segments", "steps": None},
        "labels": {"sources": ["review"], "tags": ["kitchen"], "created_after": AFTER},
        "gate": {
            "min_holdout": 10,
            "min_gain": 0.01,
            "max_drop": 0.0,
            "require_significance": False,
            "promote": False,
            "regression_dataset_id": DATASET,
        },
    }


def test_the_plan_is_printed_with_its_warnings(asked, clipbert):
    warned = finetune(warnings=["the holdout has 9 labels"])
    asked.answer("POST", "/v1/finetunes", warned, 202)

    said = clipbert("finetune", "--task", "qa")

    facts = dict(line.split(maxsplit=1) for line in said.out.splitlines()[:-1])
    assert facts["finetune"] == ID
    assert facts["labels"] == "500 of 50 videos: 400 to train, 100 held out"
    assert facts["answers"] == "3: red, green, blue"
    assert facts["recipe"] == "visual frozen, epochs 4.0, clips 4, learning_rate 0.0001"
    assert said.err == "clipbert: warning: the holdout has 9 labels\n"
    assert said.out.endswith(f"follow it with: clipbert finetunes show {ID} --wait\n")


def test_a_check_starts_nothing(asked, clipbert):
    said = clipbert("finetune", "--task", "qa", "--check")

    assert asked.requests[0].query == {"validate_only": "true"}
    assert ID not in said.out
    assert said.out.endswith("the request is right; without --check it starts\n")


def test_waiting_shows_the_stages_the_evaluation_and_the_decision(asked, clipbert):
    asked.states.append(ended())

    lines = clipbert("finetune", "--task", "qa", "--wait").out.splitlines()

    progress = lines[5 + lines[5:].index("queued") :]
    assert progress[:3] == [
        "queued",
        "training 1/400, loss 0.412, rate 4.2e-05, 210 clips/s, 1:20 left",
        "evaluating",
    ]
    assert progress[3].split() == (
        ["on", "candidate", "compared", "with", "difference", "interval", "examples"]
    )
    assert " ".join(progress[4].split()) == (
        "holdout, accuracy 93.0% clipbert-qa 1 61.0% +32.0% +20.0% to +44.0% 100"
    )
    assert progress[5] == "promoted: 93.0% right of 100, clipbert-qa 1 61.0% (+32.0%)"
    assert progress[-1] == f"curves: clipbert finetunes curves {ID} curves.png"


def test_a_candidate_that_is_not_promoted_is_no_failure(asked, clipbert):
    asked.states[:] = [ended("no_gain", promoted=False)]

    said = clipbert("finetune", "--task", "qa", "--wait")

    assert "kept as a candidate: 93.0% right of 100" in said.out
    assert f"clipbert models promote {MODEL}" in said.out


@pytest.mark.parametrize(
    ("state", "words"),
    [("failed", "failed"), ("cancelled", "was cancelled"), ("quarantined", "was given up")],
)
def test_a_finetune_that_fails_is_a_failure_with_its_reason(asked, clipbert, state, words):
    error = {"code": "disk_full", "message": "3 GB are free, 5 GB are needed"}
    asked.states[:] = [finetune(state, error=error)]

    said = clipbert("finetune", "--task", "qa", "--wait", code=1)

    assert f"the finetune {words}: 3 GB are free, 5 GB are needed (disk_full)" in said.err
    assert f"try again: clipbert finetunes retry {ID}" in said.err


def test_after_a_divergence_another_rate_is_proposed_and_no_retry(asked, clipbert):
    error = {"code": "training_diverged", "message": "the loss is nan at step 2"}
    asked.states[:] = [finetune("failed", error=error)]

    said = clipbert("finetune", "--task", "qa", "--wait", code=1)

    assert "--set learning_rate=2.5e-05" in said.err
    assert "retry" not in said.err


def test_waiting_goes_on_through_a_pause(asked, clipbert):
    asked.states[:] = [training(9), finetune("paused"), finetune(), training(10), ended()]

    said = clipbert("finetune", "--task", "qa", "--wait")

    assert f"paused (go on: clipbert finetunes resume {ID})" in said.out
    assert "promoted: " in said.out


def test_json_has_nothing_else_on_stdout(asked, clipbert):
    asked.states.append(ended())

    said = clipbert("finetune", "--task", "qa", "--wait", "--json")

    assert json.loads(said.out)["decision"]["code"] == "promoted"
    assert "training 1/400" in said.err


def test_whoever_stops_waiting_is_told_how_to_look_pause_and_cancel(asked, clipbert):
    def interrupt(_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)  # the interrupt comes first
        return 200, training(1)

    asked.answer("GET", FINETUNE, interrupt)

    said = clipbert("finetune", "--task", "qa", "--wait", code=130)

    assert said.out.splitlines()[-4:] == [
        "the finetune goes on; look, pause or cancel it with:",
        f"  clipbert finetunes show {ID}",
        f"  clipbert finetunes pause {ID}",
        f"  clipbert finetunes cancel {ID}",
    ]
    assert [each.method for each in asked.requests] == ["POST", "GET"]


def test_following_outlives_a_service_that_starts_again(asked):
    answers = iter([503, 503, 200])

    def answer(_):
        status = next(answers)
        return status, ended() if status == 200 else {"code": "store_unavailable"}

    asked.answer("GET", FINETUNE, answer)

    with ApiClient(asked.url, "key") as client, open(os.devnull, "w") as output:  # noqa: PTH123
        assert follow_finetune(client, ID, output=output)["state"] == "succeeded"


def test_a_service_that_stays_away_leaves_word_of_the_finetune(asked, clipbert, monkeypatch):
    monkeypatch.setattr(finetune_progress, "PATIENCE_SECONDS", 0.2)

    def break_off(_):
        raise ConnectionAbortedError

    asked.answer("GET", FINETUNE, break_off)

    said = clipbert("finetune", "--task", "qa", "--wait", code=3)

    assert f"follow it with: clipbert finetunes show {ID} --wait" in said.err


def test_a_refusal_says_all_that_is_missing_and_what_to_do(asked, clipbert):
    asked.refuse("POST", "/v1/finetunes", 422, "one_answer")

    said = clipbert("finetune", "--task", "qa", code=1)

    assert said.err == (
        "clipbert: no: one_answer (one_answer)\n  `clipbert label answers` counts them\n"
    )


def test_an_unknown_task_is_refused_before_anything_is_sent(asked, clipbert):
    said = clipbert("finetune", "--task", "poetry", code=1)

    assert "--task is one of qa, multiple_choice, retrieval, not poetry" in said.err
    assert asked.requests == []


def test_settings_are_read_as_toml_or_as_text():
    settings = ["epochs=4", "learning_rate=1e-4", "plan=segments", "steps=none"]
    settings += ['decay = "linear"', "random_clips=false", "betas=[0.9, 0.98]", "name=2026-01-01"]

    assert read_settings(settings) == {
        "epochs": 4,
        "learning_rate": 1e-4,
        "plan": "segments",
        "steps": None,
        "decay": "linear",
        "random_clips": False,
        "betas": [0.9, 0.98],
        "name": "2026-01-01",
    }


@pytest.mark.parametrize("setting", ["epochs", "=4"])
def test_a_setting_that_is_none_is_refused(setting):
    with pytest.raises(CliError, match="must be field=value"):
        read_settings([setting])


def test_a_change_of_a_request_keeps_the_other_fields():
    before = {"task": "qa", "recipe": {"epochs": 4, "clips": 8}, "gate": {"min_holdout": 50}}

    changed = merged(before, {"recipe": {"clips": 2}, "labels": {"sources": ["a"]}})

    assert changed == {
        "task": "qa",
        "recipe": {"epochs": 4, "clips": 2},
        "gate": {"min_holdout": 50},
        "labels": {"sources": ["a"]},
    }


def test_where_a_finetune_is_fits_into_a_line():
    assert describe(finetune()) == "queued"
    assert describe(finetune("running")) == "starting"
    assert describe(finetune("paused", progress={"done": 7, "total": 9})) == "paused 7/9"
    assert format_duration(7.4) == "0:07"
    assert format_duration(3723) == "1:02:03"


def test_finetunes_are_listed_with_their_outcome(api, clipbert):
    lost = {"code": "worker_lost", "message": "its worker went away"}
    api.answer_list(
        "/v1/finetunes", [training(3, error=lost), ended("not_significant", promoted=False)]
    )

    _header, running, done = clipbert("finetunes", "list").out.splitlines()

    assert "worker_lost" not in running  # another one has it now

    assert "training 3/400, loss 0.412" in running
    assert "not significant" in done


def test_a_finetune_is_shown_with_its_outcome(api, clipbert):
    api.answer("GET", FINETUNE, ended())

    said = clipbert("finetunes", "show", ID)

    assert "state     succeeded" in said.out
    assert "promoted: " in said.out


def test_the_newest_finetune_is_called_last(api):
    api.answer_list("/v1/finetunes", [training(3)])

    with ApiClient(api.url, "key") as client:
        assert find_finetune(client, "last")["id"] == ID


def test_there_may_be_no_newest(api, clipbert):
    api.answer_list("/v1/finetunes", [])

    assert "there are no finetunes yet" in clipbert("finetunes", "show", "last", code=1).err


@pytest.mark.parametrize(
    ("verb", "state", "said"),
    [
        ("pause", "running", "running (asked to pause)"),
        ("pause", "paused", "paused"),
        ("resume", "queued", "queued"),
        ("cancel", "cancelling", "cancelling"),
        ("retry", "queued", "queued"),
    ],
)
def test_a_finetune_is_paused_resumed_cancelled_and_retried(api, clipbert, verb, state, said):
    api.answer("GET", FINETUNE, training(3))
    api.answer("POST", f"{FINETUNE}:{verb}", finetune(state))

    assert clipbert("finetunes", verb, ID).out == f"finetune {ID} is {said}\n"


def test_curves_are_saved_as_picture_or_points(api, clipbert, tmp_path):
    api.answer("GET", FINETUNE, ended())
    api.answer("GET", f"{FINETUNE}/curves.png", b"\x89PNG")
    api.answer("GET", f"{FINETUNE}/curves", {"loss": [[1, 0.5]]})

    clipbert("finetunes", "curves", ID, tmp_path / "c.png")
    clipbert("finetunes", "curves", ID, tmp_path / "c.json")
    refused = clipbert("finetunes", "curves", ID, tmp_path / "c.pdf", code=1)

    assert (tmp_path / "c.png").read_bytes() == b"\x89PNG"
    assert json.loads((tmp_path / "c.json").read_text()) == {"loss": [[1, 0.5]]}
    assert "a .png picture or .json points" in refused.err


def test_what_is_no_id_goes_nowhere(api, clipbert):
    said = clipbert("finetunes", "cancel", "../models", code=1)

    assert "'../models' is not the id of a finetune" in said.err
    assert api.requests == []


def test_a_time_without_a_zone_is_this_machines(asked, clipbert, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        clipbert("finetune", "--task", "qa", "--after", "2026-01-01")
    finally:
        monkeypatch.undo()
        time.tzset()

    assert body_of(asked)["labels"] == {"created_after": "2026-01-01T00:00:00+09:00"}


def test_a_time_that_is_none_is_refused(asked, clipbert):
    said = clipbert("finetune", "--task", "qa", "--before", "yesterday", code=1)

    assert "--before yesterday: must be a time such as 2026-01-05T09:00" in said.err
    assert asked.requests == []
