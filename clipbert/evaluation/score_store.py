"""What an evaluation kept of each video, on disk: an interrupted run goes on from there."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INPUTS_FILE = "inputs.json"
_DIGITS = 32
_ARRAYS, _UNFINISHED = "?" * _DIGITS + ".npy", "?" * _DIGITS + ".part"


class ScoreStore:
    """One small array a video, in a folder that belongs to one set of inputs.

        store = ScoreStore(folder, {"model_sha256": "…", "plan": {…}}, resume=True)
        store.read("v7", path)  ->  None at first, later what write("v7", path, array) stored

    Opened with other inputs than the last time, it is emptied. A video is known by its name
    and by its file's path, size and time of change, so that a replaced file is looked at anew.

    Args:
        folder: made if need be. Only files that a store wrote are ever removed from it.
        inputs: all that the arrays depend on besides the videos; values of JSON.
        resume: whether to keep what is there already, if its inputs are the same.

    Attributes:
        changed: names of the inputs that differ from those of the last time.
        num_found: arrays that were there and were kept.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any], *, resume: bool) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(_UNFINISHED):
            unfinished.unlink()
        wanted = json.loads(json.dumps(inputs))
        found = _read_inputs(folder / _INPUTS_FILE)
        self.changed: tuple[str, ...] = ()
        if found is not None:
            names = sorted({*wanted, *found})
            self.changed = tuple(n for n in names if found.get(n) != wanted.get(n))
        if found is None or self.changed or not resume:
            for stale in folder.glob(_ARRAYS):
                stale.unlink()
            unfinished = self._unfinished()
            unfinished.write_text(json.dumps(wanted, indent=2) + "\n")
            unfinished.replace(folder / _INPUTS_FILE)
        self.num_found = sum(1 for _ in folder.glob(_ARRAYS))

    def read(self, name: str, video: Path) -> NDArray[np.generic] | None:
        """Return what was stored of a video file; None if nothing was, or if the file changed."""
        try:
            array: NDArray[np.generic] = np.load(self._file_of(name, video), allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there, or cut short by a full disk
            return None
        return array

    def write(self, name: str, video: Path, array: NDArray[np.generic]) -> None:
        """Store what was kept of a video file: wholly or, if interrupted, not at all."""
        unfinished = self._unfinished()
        with unfinished.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        unfinished.replace(self._file_of(name, video))

    def _file_of(self, name: str, video: Path) -> Path:
        status = video.stat()
        key = f"{name}\0{video.absolute()}\0{status.st_size}\0{status.st_mtime_ns}"
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]}.npy"

    def _unfinished(self) -> Path:
        return self._folder / f"{uuid.uuid4().hex}.part"


def _read_inputs(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
