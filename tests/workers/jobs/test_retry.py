import random

import pytest
from sqlalchemy.exc import OperationalError

from clipbert.errors import VideoError
from workers.errors import JobError, MediaChanged
from workers.jobs.retry import (
    MAX_ATTEMPTS,
    GiveUp,
    TryAgain,
    decide,
    is_device_lost,
    is_out_of_memory,
    retry_delay,
)


def test_bad_media_fails_at_once_with_its_own_code():
    error = VideoError.from_code("truncated_media", "the file ends early")

    assert decide(error, attempt=1) == GiveUp("truncated_media", "the file ends early")


def test_a_job_error_fails_at_once_with_its_own_code():
    decision = decide(JobError("no_qa_model", "none serves"), attempt=1)

    assert decision == GiveUp("no_qa_model", "none serves")


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT 1", {}, Exception("the server closed the connection")),
        OSError(5, "Input/output error"),  # a full disk: test_full_disk.py
        ConnectionResetError(),
        MediaChanged("v.mp4"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
)
def test_what_may_pass_is_tried_again_but_not_for_ever(error):
    assert isinstance(decide(error, attempt=1), TryAgain)
    assert isinstance(decide(error, attempt=MAX_ATTEMPTS), GiveUp)


def test_a_bug_fails_at_once_and_leaves_its_trace_in_the_row():
    decision = decide(KeyError("text"), attempt=1)

    assert decision == GiveUp(
        "internal_error", "an unexpected error: KeyError", {"error": "KeyError('text')"}
    )


def test_delays_are_drawn_below_an_exponential_ceiling():
    chance = random.Random(0)  # noqa: S311

    for attempt, ceiling in [(1, 2), (2, 4), (3, 8), (20, 300)]:
        delays = [retry_delay(attempt, chance=chance).total_seconds() for _ in range(500)]
        assert 0 <= min(delays) < ceiling / 10
        assert ceiling * 0.9 < max(delays) <= ceiling


def test_a_full_memory_is_told_from_a_lost_device():
    full = RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    lost = RuntimeError("CUDA error: unspecified launch failure")

    assert is_out_of_memory(full)
    assert not is_device_lost(full)
    assert is_device_lost(lost)
    assert not is_out_of_memory(lost)
