"""What the repositories of videos and batches take and return, beside rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from store.jobs.tables import Job
from store.videos.tables import Video


@dataclass(frozen=True)
class NewClip:
    """A clip to store.

    Attributes:
        index: its place in the video's plan, and its row in the tokens blob.
        start_seconds: where the moment it stands for begins.
        end_seconds: where that ends.
        instants: seconds of its frames, ascending.
        vector: the recall vector, normalised; None if the recall encoder made none.
        tokens_key: the blob of the video's visual tokens in this generation.
    """

    index: int
    start_seconds: float
    end_seconds: float
    instants: Sequence[float]
    vector: Sequence[float] | None
    tokens_key: str


@dataclass(frozen=True)
class DeletedVideo:
    """What a deleted video leaves behind.

    Attributes:
        sha256: its content, whose blobs may be needed no longer.
        tokens_keys: the blobs of its clips, which are no longer needed.
    """

    sha256: str
    tokens_keys: Sequence[str]


class ItemState(StrEnum):
    """What became of an item of a batch."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"


@dataclass(frozen=True)
class BatchItem:
    """An item of a batch.

    Attributes:
        index: its place in the request, from 0.
        state: what became of it.
        job: its ingest job.
        video: the video, once its file was found sound; shared by items with the same content.
        error_code: why it failed.
        error_message: the same as a sentence.
    """

    index: int
    state: ItemState
    job: Job
    video: Video | None
    error_code: str | None
    error_message: str | None


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        counts: its items by state; every state is there, with 0 if it has none.
        duplicates: how many succeeded with content that the library had already.
        last_change: when the last item so far came to its end; None if none has.
    """

    counts: Mapping[ItemState, int]
    duplicates: int
    last_change: datetime | None
