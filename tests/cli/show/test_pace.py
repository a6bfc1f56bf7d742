import io

import pytest

from cli.show import pace
from cli.show.batch_outcome import Counts, describe_progress, follow_batch
from cli.show.pace import ProgressLines, format_rate
from clipbert_client.client import ApiClient
from tests.cli.fake_api import batch

ID = "0198c0df-5555-7aaa-8bbb-1234567890ab"


@pytest.mark.parametrize(
    ("per_second", "text"),
    [
        (210.4, "210/s"),
        (4.14, "4.1/s"),
        (1, "1/s"),
        (0.999, "1/s"),
        (0.4, "24/min"),
        (1 / 40, "1.5/min"),
        (1 / 600, "6/h"),
        (0, "0/min"),
    ],
)
def test_a_rate_is_told_in_numbers_that_can_be_read(per_second, text):
    assert format_rate(per_second) == text


def test_a_rate_has_its_unit():
    assert format_rate(0.2, "clips") == "12 clips/min"


def test_a_slow_batch_is_told_by_the_minute():
    counts = Counts(total=300, succeeded=10, known=0, failed=2, cancelled=0)

    assert describe_progress(counts, 60.0) == "indexing 12/300, 2 failed, 12/min, 24:00 left"


def test_a_batch_that_has_not_begun_tells_how_long_it_waits():
    counts = Counts(total=3, succeeded=0, known=0, failed=0, cancelled=0)

    assert describe_progress(counts, 65.0) == "indexing 0/3, 1:05 so far"


def test_a_line_comes_with_every_change_and_every_few_seconds(monkeypatch):
    clock = iter([100.0, 101.0, 102.0, 106.0, 107.5])
    monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
    lines = ProgressLines(output := io.StringIO())

    for line, about in [
        ("waits", "queued"),
        ("waits longer", "queued"),
        ("runs", "running"),
        ("runs on", "running"),
        ("runs still", "running"),
    ]:
        lines.show(line, about=about)
    lines.end("done")
    lines.end("done")

    assert output.getvalue().splitlines() == ["waits", "runs", "runs still", "done"]


def test_a_batch_is_followed_in_lines_where_no_terminal_is(api, monkeypatch):
    monkeypatch.setattr("cli.show.batch_outcome.FIRST_POLL_SECONDS", 0.01)
    monkeypatch.setattr(pace, "LINE_SECONDS", 0.0)
    answers = iter([batch(ID, queued=2), batch(ID, queued=1, failed=1), batch(ID, succeeded=2)])
    api.answer("GET", f"/v1/batches/{ID}", lambda _: (200, next(answers)))

    with ApiClient(api.url, "key") as client:
        follow_batch(client, ID, output=(output := io.StringIO()))

    first, second, last = output.getvalue().splitlines()
    assert first == "indexing 0/2, 0:00 so far"
    assert second.startswith("indexing 1/2, 1 failed, ")
    assert last == "indexing 2/2"
