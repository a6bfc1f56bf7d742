"""What goes into a job, and what a worker holds of one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from store.jobs.state import JobKind, JobState

SINGLE_PRIORITY: Final = 4
"""Of a file sent alone or in a small batch: somebody waits for it, and it is soon done."""
BULK_PRIORITY: Final = 5
MAX_SMALL_BATCH: Final = 100
"""Items of a batch that go before bulk."""


def priority_of_item(num_items: int) -> int:
    """Choose the priority of an item of a batch with so many items."""
    return SINGLE_PRIORITY if num_items <= MAX_SMALL_BATCH else BULK_PRIORITY


@dataclass(frozen=True)
class NewJob:
    """A job to enqueue.

    Attributes:
        kind: what it does.
        input: JSON; what the worker needs to know.
        priority: lower runs first.
        api_key_id: who asked for it; within a priority, each key's jobs of each batch have equal
            turns.
        batch_id: the batch it belongs to.
        batch_index: its place in the batch, from 0.
        video_id: the video it is about, where that is known.
        idempotency_key: the same key enqueues once, for ever.
        dedupe_key: the same key enqueues once while the first is not over.
        run_at: not before this instant; None is now.
        id: None makes one.
        error_code: set for work that is known to be impossible: the job is inserted as failed.
        error_message: the same as a sentence.
    """

    kind: JobKind
    input: dict[str, Any]
    priority: int = 5
    batch_id: UUID | None = None
    batch_index: int | None = None
    video_id: UUID | None = None
    idempotency_key: str | None = None
    dedupe_key: str | None = None
    run_at: datetime | None = None
    id: UUID | None = None
    error_code: str | None = None
    error_message: str | None = None
    api_key_id: UUID | None = None


@dataclass(frozen=True)
class ClaimedJob:
    """A job in a worker's hands; every write of the worker carries its lease token.

    Attributes:
        attempt: how many times it was started, this one included.
        lease_token: the number of its claims so far; an older number may no longer write.
        cancel_requested: somebody wants it cancelled.
        priority: what follows from it has the same.
        api_key_id: who asked for it.
        worker_losses: how many workers it lost since it last got any further.
    """

    id: UUID
    kind: JobKind
    input: dict[str, Any]
    attempt: int
    lease_token: int
    batch_id: UUID | None
    video_id: UUID | None
    created_at: datetime
    cancel_requested: bool
    priority: int = 5
    api_key_id: UUID | None = None
    worker_losses: int = 0

    @property
    def is_suspect(self) -> bool:
        """Whether it may be what killed its last worker, and so should be worked on alone."""
        return self.worker_losses > 0


@dataclass(frozen=True)
class LeaseStatus:
    """What a worker learns when it extends a lease.

    Attributes:
        held: the job is still its own; if not, what it computes will be refused.
        cancel_requested: it should stop and call `mark_cancelled`.
        pause_requested: it should save what it has, stop, and call `mark_paused`.
    """

    held: bool
    cancel_requested: bool
    pause_requested: bool = False


@dataclass(frozen=True)
class LostJob:
    """A job taken back from a worker that stopped extending its lease."""

    id: UUID
    kind: JobKind
    state: JobState
