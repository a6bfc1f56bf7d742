"""Stable names for what ends a training or a scoring run."""

import errno
import re

from safetensors import SafetensorError

from clipbert.errors import (
    AnnotationError,
    CheckpointError,
    ClipBertError,
    ConfigError,
    MissingHead,
    NothingToEvaluate,
    TrainingDiverged,
    VideoError,
)

_CODES: dict[type[ClipBertError], str] = {
    AnnotationError: "invalid_labels",
    CheckpointError: "invalid_model",
    ConfigError: "invalid_recipe",
    MissingHead: "missing_head",
    NothingToEvaluate: "nothing_to_evaluate",
    TrainingDiverged: "training_diverged",
}
# torch raises its own class on a GPU, and a plain RuntimeError on a CPU.
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
# Of safetensors; torch's own writer does not say why it failed, and fails for nothing else.
_DISK_FULL = re.compile(
    r"no space left|os error 28|StorageFull|quota exceeded|PytorchStreamWriter failed writing",
    re.IGNORECASE,
)
# What the others of several processes see when one has died: of gloo, of NCCL.
_PROCESS_LOST = re.compile(
    r"closed by peer|reset by peer|gloo/transport|ncclRemoteError|ncclSystemError", re.IGNORECASE
)


def code_of(error: Exception) -> str:
    """Name an error: `out_of_memory`, `disk_full`, `training_diverged`, a VideoError's code, ...

    `process_lost` is the end of another process that trained with this one.

    What has no name is an `internal_error`.
    """
    if isinstance(error, VideoError):
        return error.code
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    if isinstance(error, OSError):
        return "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "file_error"
    if isinstance(error, MemoryError):
        return "out_of_memory"
    if isinstance(error, RuntimeError | SafetensorError):
        return _code_of_torch(str(error))
    return "internal_error"


def _code_of_torch(message: str) -> str:
    if _OUT_OF_MEMORY.search(message):
        return "out_of_memory"
    if _DISK_FULL.search(message):
        return "disk_full"
    return "process_lost" if _PROCESS_LOST.search(message) else "internal_error"
