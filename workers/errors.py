"""What the workers raise.

WorkerError
├── JobError             the job cannot succeed; carries the code its row shows
│   ├── MediaChanged     the file changed while it was read (worth another try)
│   └── ...              made with JobError(code, message)
└── Interrupted          the work must stop between two chunks
    ├── CancelRequested  somebody cancelled the job
    ├── HoldLost         another worker has the job, or may have it
    └── Stopping         this process is shutting down
"""


class WorkerError(Exception):
    """Any error raised by the workers on purpose."""


class JobError(WorkerError):
    """A job that fails by its own fault, with the code and the sentence that its row will show."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class MediaChanged(JobError):
    """The file was being written while it was read."""

    def __init__(self, name: str) -> None:
        super().__init__("media_changed", f"{name} changed while it was being read")


class Interrupted(WorkerError):
    """The work on a job must stop here, between two chunks."""


class CancelRequested(Interrupted):
    """Somebody asked for the job to be cancelled."""


class HoldLost(Interrupted):
    """The lease ran out or was taken: nothing may be written any more."""


class Stopping(Interrupted):
    """The process is shutting down; the job goes back to the queue."""
