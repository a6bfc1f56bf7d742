"""Figures in the text of the pages are those of the code."""

import random
import re
from itertools import count, pairwise
from pathlib import Path

from clipbert.sampling.plan import INDEX_PLAN
from policy.finetunes.request import FinetuneGate
from workers.jobs.retry import GiveUp, TryAgain, decide

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "operations.md").read_text()


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


def test_the_plan_of_the_index_is_the_one_that_generations_are_made_with():
    text = " ".join((DOCS / "media.md").read_text().split())
    claim = re.search(
        r"a clip of (one) frame for each (\d+) seconds, at least (\d+) and at most (\d+)", text
    )

    assert claim is not None
    assert INDEX_PLAN.name == "segments"
    assert INDEX_PLAN.frames_per_clip == 1
    assert [int(each) for each in claim.groups()[1:]] == [
        INDEX_PLAN.seconds_per_clip,
        INDEX_PLAN.num_clips,
        INDEX_PLAN.max_clips,
    ]


def test_what_the_gate_wants_is_what_it_asks_for_by_default():
    text, gate = (DOCS / "finetuning.md").read_text(), FinetuneGate()

    assert f"at least {gate.min_holdout} held-out examples (`--min-holdout`)" in text
    assert f"it loses at most {gate.max_drop * 100:.0f} % on a fixed data set" in text
