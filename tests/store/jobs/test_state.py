import pytest

from store.jobs.state import (
    ALLOWED_MOVES,
    HELD_STATES,
    RETRYABLE_STATES,
    TERMINAL_STATES,
    JobState,
    can_move,
    is_terminal,
)


def test_every_state_has_its_moves():
    assert set(ALLOWED_MOVES) == set(JobState)


@pytest.mark.parametrize("state", TERMINAL_STATES)
def test_a_job_that_is_over_can_only_be_queued_again(state):
    assert is_terminal(state)
    assert ALLOWED_MOVES[state] <= {JobState.QUEUED}


def test_success_is_for_ever():
    assert ALLOWED_MOVES[JobState.SUCCEEDED] == frozenset()
    assert JobState.SUCCEEDED not in RETRYABLE_STATES


def test_only_a_worker_that_holds_a_job_can_end_it_well():
    sources = {state for state in JobState if can_move(state, JobState.SUCCEEDED)}

    assert sources == set(HELD_STATES)


def test_a_cancellation_is_never_forgotten():
    assert not can_move(JobState.CANCELLING, JobState.QUEUED)
    assert not can_move(JobState.CANCELLING, JobState.RUNNING)
