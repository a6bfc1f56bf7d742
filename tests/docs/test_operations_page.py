"""Figures of docs/operations.md are those of the code."""

import random
import re
from itertools import count, pairwise
from pathlib import Path

from workers.jobs.retry import GiveUp, TryAgain, decide

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()


class LongestPauses(random.Random):
    """Draws the end of each range that a pause is drawn from."""

    def random(self):
        return 1.0


def test_the_attempts_and_pauses_of_a_failed_job_are_those_that_workers_make():
    claims = re.search(
        r"attempted (\d+) times in all: .* at most (\d+) s, .* twice as long .* up to (\d+) s",
        PAGE,
    )
    decisions = []
    for attempt in count(1):
        decisions.append(
            decide(OSError("the share is away"), attempt=attempt, chance=LongestPauses())
        )
        if isinstance(decisions[-1], GiveUp):
            break

    pauses = [each.delay.total_seconds() for each in decisions if isinstance(each, TryAgain)]

    assert claims is not None
    assert len(decisions) == int(claims[1])
    assert [pauses[0], pauses[-1]] == [int(claims[2]), int(claims[3])]
    assert all(later == 2 * earlier for earlier, later in pairwise(pauses))
