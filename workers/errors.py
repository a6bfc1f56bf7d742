"""What the workers raise.

WorkerError
├── JobError             the job cannot succeed; carries the code its row shows
│   ├── MediaChanged     the file changed while it was read (worth another try)
│   └── ...              made with JobError(code, message)
└── Interrupted          the work must stop between two chunks
    ├── CancelRequested  somebody cancelled the job
    ├── PauseRequested   somebody wants the job to stand still
    ├── JobLost         another worker has the job, or may have it
    ├── HandedBack       this process does something else first, or ends
    └── Stopping         this process is shutting down
"""

from typing import Any


class WorkerError(Exception):
    """Any error raised by the workers on purpose."""


class JobError(WorkerError):
    """A job that fails by its own fault, with what its row will show.

    Attributes:
        code: stable, such as `media_changed`.
        detail: JSON for whoever looks for the cause; None if the sentence says all.
    """

    def __init__(self, code: str, message: str, *, detail: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail


class MediaChanged(JobError):
    """The file was being written while it was read."""

    def __init__(self, name: str) -> None:
        super().__init__("media_changed", f"{name} changed while it was being read")


class Interrupted(WorkerError):
    """The work on a job must stop here, between two chunks."""


class CancelRequested(Interrupted):
    """Somebody asked for the job to be cancelled."""


class PauseRequested(Interrupted):
    """Somebody asked for the job to be paused; it goes on later from what it has saved."""


class JobLost(Interrupted):
    """The lease ran out or was taken: nothing may be written now."""


class HandedBack(Interrupted):
    """The process goes on without the job, which another may take up at once."""


class Stopping(Interrupted):
    """The process is shutting down; the job goes back to the queue."""


class NoRoom(Stopping):
    """A disk is nearly full; the job goes back to the queue, and on when there is room."""


class StorageFull(WorkerError):
    """What a job ended in, while a disk is full, comes of that; it is tried again later."""
