"""What the store raises on purpose.

StoreError
├── NotFound                 JobNotFound VideoNotFound BatchNotFound ModelNotFound
│                            GenerationNotFound SearchNotFound QuestionNotFound LabelNotFound
│                            DatasetNotFound VocabularyNotFound FinetuneNotFound ScheduleNotFound
├── IllegalMove              a job cannot go where it was told to
├── IllegalRollback          a model that serves nothing was to be replaced by the one before it
├── ModelNeeded              a model cannot be deleted: something needs it
├── InvalidModelFolder       a folder, or a key of the blob store, that does not hold a model
├── IllegalLabel             a label cannot say this
├── ScheduleExists           another schedule has this name
├── LeaseLost                a worker wrote about a job that is no longer its own
├── IdempotencyConflict      a known key came with another content
├── InvalidPageToken         a page token that this store did not make
├── SchemaTooNew             a later version of this software has changed the database
├── BlobError                BlobNotFound InvalidBlobKey
└── MediaFileError           OutsideMediaRoots MediaFileMissing NotARegularFile
"""

import os
from enum import StrEnum
from pathlib import Path
from uuid import UUID


class StoreError(Exception):
    """Base of all that the store raises on purpose."""


class NotFound(StoreError):
    """There is no row of this kind with this id."""

    kind = "row"

    def __init__(self, id_: UUID | str) -> None:
        super().__init__(f"there is no {self.kind} {id_}")
        self.id = id_


class JobNotFound(NotFound):
    kind = "job"


class VideoNotFound(NotFound):
    kind = "video"


class VideoSuperseded(VideoNotFound):
    """Other content was indexed at the video's place: it is searched no more."""

    kind = "current video"


class BatchNotFound(NotFound):
    kind = "batch"


class ModelNotFound(NotFound):
    kind = "model"


class GenerationNotFound(NotFound):
    kind = "generation"


class SearchNotFound(NotFound):
    kind = "search"


class QuestionNotFound(NotFound):
    kind = "question"


class LabelNotFound(NotFound):
    kind = "label"


class DatasetNotFound(NotFound):
    kind = "data set"


class VocabularyNotFound(NotFound):
    kind = "vocabulary"


class FinetuneNotFound(NotFound):
    kind = "finetune"


class ScheduleNotFound(NotFound):
    kind = "schedule"


class IllegalMove(StoreError):
    """A job cannot go from its state to the wanted one."""

    def __init__(self, job_id: UUID, before: StrEnum, after: StrEnum, why: str = "") -> None:
        reason = f": {why}" if why else ""
        super().__init__(f"job {job_id} is {before} and cannot become {after}{reason}")
        self.job_id, self.before, self.after = job_id, before, after


class IllegalRollback(StoreError):
    """A model serves nothing, so there is nothing to bring back in its place."""

    def __init__(self, model_id: UUID) -> None:
        super().__init__(f"model {model_id} serves no task")
        self.model_id = model_id


class ModelNeeded(StoreError):
    """A model cannot be deleted, because something needs it."""

    def __init__(self, name: str, version: str, *, reason: str) -> None:
        super().__init__(f"model {name} {version} cannot be deleted: {reason}")
        self.reason = reason


class InvalidModelFolder(StoreError):
    """A folder, of this machine or in the blob store, does not hold a model."""


class IllegalLabel(StoreError):
    """A label cannot say this.

    Attributes:
        code: `invalid_label`, `invalid_span`, `invalid_split`, `split_conflict`, `unknown_video` or
            `duplicate`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ScheduleExists(StoreError):
    """Another schedule has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is a schedule {name!r} already")
        self.name = name


class LeaseLost(StoreError):
    """A worker wrote about a job that is no longer its own; what it computed must be dropped."""

    def __init__(self, job_id: UUID, lease_token: int) -> None:
        super().__init__(f"claim {lease_token} of job {job_id} is over")
        self.job_id, self.lease_token = job_id, lease_token


class IdempotencyConflict(StoreError):
    """An idempotency key came a second time with another content."""

    def __init__(self, key: str) -> None:
        super().__init__(f"idempotency key {key!r} was used before for another request")
        self.key = key


class InvalidPageToken(StoreError):
    """A page token that this store did not make."""

    def __init__(self, token: str) -> None:
        super().__init__(f"page token {token!r} is not one of ours")
        self.token = token


class SchemaTooNew(StoreError):
    """A later version of this software has changed the database; this one cannot use it."""

    def __init__(self, revision: str, newest: str) -> None:
        super().__init__(
            f"the database's schema {revision} is of a later version of clipbert-workers: this one "
            f"knows schemas up to {newest}"
        )
        self.revision, self.newest = revision, newest


class BlobError(StoreError):
    """Base of what the blob store raises."""


class BlobNotFound(BlobError):
    """There is no blob under this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no blob {key!r}")
        self.key = key


class InvalidBlobKey(BlobError):
    """A key that is empty, absolute, or would leave the store."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} cannot be the key of a blob")
        self.key = key


class MediaFileError(StoreError):
    """A file under a media root cannot be opened, and will not be by trying again at once."""


class OutsideMediaRoots(MediaFileError):
    """The path leads out of every media root."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(f"{shown_path(path)} is not under an allowed media root")


class MediaFileMissing(MediaFileError):
    """The file is not there, or cannot be reached.

    Attributes:
        reason: why, as a sentence without its subject's name.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{shown_path(path)} cannot be read: {reason}")
        self.reason = reason


class NotARegularFile(MediaFileError):
    """There is a folder, a pipe, a socket or a device at the path."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(f"{shown_path(path)} is not a regular file")


def shown_path(path: str | Path) -> str:
    """Write a path as text, whatever its bytes are."""
    return os.fsencode(path).decode(errors="replace")
