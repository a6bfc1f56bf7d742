"""The life of a job: its states and the moves between them, free of any database."""

from collections.abc import Mapping
from enum import StrEnum


class JobKind(StrEnum):
    """What a job does, and so which worker claims it."""

    INGEST = "ingest"
    EMBED = "embed"
    SEARCH = "search"
    QUESTION = "question"
    TRIAL = "trial"
    FINETUNE = "finetune"


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"


ALLOWED_MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED}),
    # Back to queued: a transient error, a worker that stops, or a worker that was lost.
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,
            JobState.PAUSED,
            JobState.CANCELLING,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.QUARANTINED,
        }
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    # A worker that is done before it hears of the cancellation may still write its result.
    JobState.CANCELLING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    # Somebody asked to try again.
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
    JobState.QUARANTINED: frozenset({JobState.QUEUED}),
}

HELD_STATES = (JobState.RUNNING, JobState.CANCELLING)
"""The states in which a worker holds the lease and may write."""

TERMINAL_STATES = (
    JobState.SUCCEEDED,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.QUARANTINED,
)
"""The states that only a person's `retry` leaves."""

ACTIVE_STATES = tuple(state for state in JobState if state not in TERMINAL_STATES)
"""The states of a job that is not over yet."""

PAUSABLE_KINDS = (JobKind.FINETUNE,)
"""The kinds of job that can stand still and go on later."""

RETRYABLE_STATES = (JobState.FAILED, JobState.CANCELLED, JobState.QUARANTINED)
"""The states from which a person may send a job round again."""


def is_terminal(state: JobState) -> bool:
    """Whether no worker will touch a job in this state again."""
    return state in TERMINAL_STATES


def can_move(before: JobState, after: JobState) -> bool:
    """Whether a job may go from one state to another."""
    return after in ALLOWED_MOVES[before]
