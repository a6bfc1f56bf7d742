import re
import time

import pytest

from cli.show import batch_outcome
from cli.show.batch_outcome import Counts, count_items, failed_items, follow_batch
from clipbert_client.client import ApiClient
from clipbert_client.errors import ServiceUnreachable
from tests.cli.fake_api import batch

ID = "0198c0df-5555-7aaa-8bbb-1234567890ab"
BATCH = f"/v1/batches/{ID}"
ITEMS = f"{BATCH}/items"


def item(number, state, code=None):
    error = None if code is None else {"code": code, "message": f"{code} it is"}
    return {"uri": f"file:///v/{number}.mp4", "state": state, "error": error}


def test_cancelled_items_are_done_but_did_not_fail():
    resource = batch(succeeded=3, failed=2, cancelled=1, quarantined=1, duplicates=2)

    counts = count_items(resource)

    assert counts == Counts(total=7, succeeded=3, known=2, failed=3, cancelled=1)
    assert counts.done == counts.total


@pytest.mark.parametrize(
    ("is_cancelled", "said"),
    [(True, "batch b is finished"), (False, "nothing to cancel: batch b is finished")],
)
def test_it_is_said_when_a_batch_has_nothing_to_cancel(api, clipbert, is_cancelled, said):
    resource = batch(ID, succeeded=4) | {"cancel_requested": is_cancelled}
    api.answer("POST", f"{BATCH}:cancel", resource)

    assert clipbert("batches", "cancel", ID).out.startswith(said.replace("batch b", f"batch {ID}"))


def test_a_batch_lists_what_failed_and_was_cancelled_apart(api, clipbert):
    api.answer_list("/v1/batches", [batch(ID, succeeded=1, failed=2, cancelled=3)])

    header, row = clipbert("batches", "list").out.splitlines()

    assert header.split() == ["id", "name", "items", "done", "failed", "cancelled", "created"]
    assert row.split()[1:5] == ["6", "6", "2", "3"]


def test_every_failed_item_is_listed_page_by_page(api):
    wanted = [item(i, "failed", "empty_file") for i in range(1200)]
    others = [item(1, "succeeded"), item(2, "cancelled"), item(3, "quarantined", "worker_lost")]
    api.answer_list(ITEMS, others + wanted)

    with ApiClient(api.url, "key") as client:
        found = list(failed_items(client, ID))

    assert found == [*wanted, others[2], others[1]]


def test_a_batch_is_shown_with_the_first_failures_and_the_number_of_the_others(api, clipbert):
    api.answer("GET", BATCH, batch(ID, failed=70, cancelled=2))
    failures = [item(i, "failed", "empty_file") for i in range(70)]
    api.answer_list(ITEMS, [*failures, item(70, "cancelled"), item(71, "cancelled")])

    said = clipbert("batches", "show", ID)

    assert said.out.count("empty_file it is") == 50
    assert f"... and 22 more; all of them: clipbert batches show {ID} --json" in said.out


def test_a_batch_in_json_has_every_failure(api, clipbert):
    api.answer("GET", BATCH, batch(ID, failed=70, cancelled=1))
    failures = [item(i, "failed", "empty_file") for i in range(70)]
    api.answer_list(ITEMS, [*failures, item(70, "cancelled")])

    said = clipbert("batches", "show", ID, "--json")

    assert said.out.count('"uri"') == 71


@pytest.mark.parametrize(
    ("command", "method"), [("cancel", f"{BATCH}:cancel"), ("retry", f"{BATCH}:retry_failed")]
)
def test_a_batch_can_be_cancelled_and_retried(api, clipbert, command, method):
    api.answer("POST", method, batch(ID, succeeded=2, cancelled=1))

    said = clipbert("batches", command, ID)

    assert said.out == f"batch {ID} is finished: 2 succeeded, 1 cancelled\n"


def test_following_outlives_a_service_that_starts_again(api, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    answers = iter([503, 503, 200])

    def answer(_):
        status = next(answers)
        return status, batch(ID, succeeded=1) if status == 200 else {"code": "not_ready"}

    api.answer("GET", BATCH, answer)

    with ApiClient(api.url, "key") as client:
        counts = follow_batch(client, ID, visible=False)

    assert counts.succeeded == 1
    assert len(api.requests) == 3


def test_following_gives_up_after_a_while(monkeypatch):
    monkeypatch.setattr(batch_outcome, "PATIENCE_SECONDS", 0.5)
    started_at = time.monotonic()

    with ApiClient("http://127.0.0.1:9", "key") as client, pytest.raises(ServiceUnreachable):
        follow_batch(client, ID, visible=False)

    assert time.monotonic() - started_at > 0.5


def test_the_pace_of_a_batch_is_told_in_words(api, clipbert):
    found = {**batch(ID, queued=9, succeeded=1), "rate_per_second": 0.05, "eta_seconds": 180.0}
    api.answer("GET", BATCH, found)
    api.answer("GET", ITEMS, {"items": []})

    said = clipbert("batches", "show", ID).out

    assert re.search(r"^rate +3/min$", said, re.MULTILINE)
    assert re.search(r"^left +3:00$", said, re.MULTILINE)
    assert "per second" not in said
