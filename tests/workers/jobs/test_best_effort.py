"""Work that may fail without harm."""

import pytest
from structlog.testing import capture_logs

from workers.jobs.best_effort import best_effort


def test_what_is_raised_is_logged_with_its_facts():
    with capture_logs() as logs, best_effort("copy.failed", name="a"):
        raise OSError("gone")

    assert [(each["event"], each["name"], each["log_level"]) for each in logs] == [
        ("copy.failed", "a", "error")
    ]


def test_a_process_that_is_told_to_end_ends():
    with pytest.raises(SystemExit), best_effort("copy.failed"):
        raise SystemExit(1)
