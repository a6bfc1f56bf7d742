"""Whether to try a failed job again: the only place that knows.

Permanent: the job's own fault, such as bad media, or a bug, which a repetition does not repair.
Transient: the world around it, such as a database that restarts; tried again by the row's run_at,
later and later, a bounded number of times.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.exc import InterfaceError, OperationalError

from clipbert.errors import ClipBertError, VideoError
from store.disk_space import is_storage_full
from workers.errors import JobError, MediaChanged, StorageFull

MAX_ATTEMPTS: Final = 6  # 2 + 4 + ... + 32 s: about a minute at most, so a restart is outlived
BASE_DELAY_SECONDS: Final = 2.0
MAX_DELAY_SECONDS: Final = 300.0
STORAGE_FULL_SECONDS: Final = (15.0, 30.0)  # until it is looked whether there is room again

_DETAIL_LENGTH: Final = 2000
_OUT_OF_MEMORY_TEXTS: Final = ("out of memory", "can't allocate memory", "not enough memory")
_DEVICE_LOST_TEXTS: Final = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "ECC error")


_TRANSIENT: Final[Sequence[tuple[type[Exception], str, str]]] = (
    (OperationalError, "store_unavailable", "the database could not be reached"),
    (InterfaceError, "store_unavailable", "the connection to the database broke"),
    (TimeoutError, "io_timeout", "reading or writing took too long"),
    (OSError, "io_error", "reading or writing a file failed"),  # full disk, lost mount, S3 away
)


@dataclass(frozen=True)
class GiveUp:
    """The job fails now."""

    code: str
    message: str
    detail: dict[str, Any] | None = None


@dataclass(frozen=True)
class TryAgain:
    """The job runs again after a delay."""

    delay: timedelta
    code: str
    message: str


@dataclass(frozen=True)
class StandBack:
    """The job runs again after a delay, as if it had not been started: nothing is wrong with it."""

    delay: timedelta
    code: str


def decide(
    error: BaseException, *, attempt: int, chance: random.Random | None = None
) -> GiveUp | TryAgain | StandBack:
    """Decide what becomes of a job whose attempt ended in an error.

    Args:
        error: what the attempt raised.
        attempt: how many times the job was claimed, this time included.
        chance: where the jitter comes from; a test passes its own.
    """
    if isinstance(error, StorageFull) or is_storage_full(error):
        draw = (chance or random).uniform(*STORAGE_FULL_SECONDS)
        return StandBack(timedelta(seconds=draw), "storage_full")
    code, message, is_transient = _classify(error)
    if is_transient and attempt < MAX_ATTEMPTS:
        return TryAgain(retry_delay(attempt, chance=chance), code, message)
    if isinstance(error, JobError) and error.detail is not None:
        return GiveUp(code, message, error.detail)
    is_own_fault = isinstance(error, JobError | VideoError)
    return GiveUp(code, message, None if is_own_fault else {"error": repr(error)[:_DETAIL_LENGTH]})


def retry_delay(attempt: int, *, chance: random.Random | None = None) -> timedelta:
    """Draw a delay from 0 to min(cap, base * 2 ** (attempt - 1)): exponential with full jitter."""
    ceiling = min(MAX_DELAY_SECONDS, BASE_DELAY_SECONDS * 2 ** (attempt - 1))
    draw = chance.random() if chance is not None else random.random()  # noqa: S311  no secret
    return timedelta(seconds=ceiling * draw)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a forward pass asked for more memory than there is, on a GPU or a CPU.

    By name and text, since this module must not import torch.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in _OUT_OF_MEMORY_TEXTS
    )


def is_device_lost(error: BaseException) -> bool:
    """Whether the process's CUDA context is beyond repair, so that the process must go."""
    return (
        isinstance(error, RuntimeError)
        and not is_out_of_memory(error)
        and any(text in str(error) for text in _DEVICE_LOST_TEXTS)
    )


def _classify(error: BaseException) -> tuple[str, str, bool]:
    """Return code, sentence, and whether the error may go away by itself."""
    if isinstance(error, JobError | VideoError):
        return error.code, str(error), isinstance(error, MediaChanged)
    if is_out_of_memory(error):
        return "out_of_memory", "the model ran out of memory on this item alone", False
    if is_device_lost(error):
        return "device_lost", "the GPU stopped answering", True
    if type(error) is ClipBertError:
        return "probe_failed", str(error), True  # the probing process came to no answer
    for kind, code, message in _TRANSIENT:
        if isinstance(error, kind):
            return code, message, True
    return "internal_error", f"an unexpected error: {type(error).__name__}", False
