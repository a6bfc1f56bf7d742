"""A copy of the last checkpoint in the blobs, for workers that do not share a folder.

`runs/{finetune id}/latest.json` names the files; it is written after them, and those of older
checkpoints are removed after that.
"""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog

from clipbert.runs.contract import CHECKPOINT_STATE, METRICS_FILE, RECIPE_FILE, RUN_FILE
from store.blobs import BlobStore
from store.errors import BlobNotFound
from store.videos.contents import RUNS
from workers.finetuning.folder import FinetuneFolder
from workers.jobs.best_effort import best_effort

log = structlog.get_logger(__name__)

_LATEST: Final = "latest.json"
# Beside the checkpoint: what the trainer needs to see that it is the same run, and the curves.
_RUN_FILES: Final = (RUN_FILE, RECIPE_FILE, METRICS_FILE)


class Mirror:
    """Copies checkpoints to the blobs, in a thread: an upload may take minutes.

    Args:
        blobs: where they go.
        finetune_id: whose.
        folder: of the finetune.
        is_on: False where all workers share the folder; then nothing is done.
    """

    def __init__(
        self, blobs: BlobStore, finetune_id: UUID, folder: FinetuneFolder, *, is_on: bool
    ) -> None:
        self._blobs, self._folder, self._is_on = blobs, folder, is_on
        self._prefix = f"{RUNS}/{finetune_id}"
        self._pool = ThreadPoolExecutor(1, "mirror")
        self._copying: Future[None] | None = None
        self._copied_step = -1

    def copy_if_new(self) -> None:
        """Begin to copy the last checkpoint if it is new and no other is being copied."""
        if not self._is_on or (self._copying is not None and not self._copying.done()):
            return
        last = self._folder.last_checkpoint()
        if last is not None and last[0] > self._copied_step:
            self._copied_step = last[0]
            self._copying = self._pool.submit(self._copy, *last)

    def fetch(self, on_file: Callable[[], None] = lambda: None) -> None:
        """Bring the checkpoint here if it is newer than those in the folder.

        Args:
            on_file: called after each file; what it raises breaks this off, to be begun again.
        """
        latest = self._read_latest()
        here = self._folder.last_checkpoint()
        if not self._is_on or latest is None or (here is not None and here[0] >= latest["step"]):
            return
        # What tells that a checkpoint is whole comes last: this may be broken off.
        for name in sorted(latest["files"], key=lambda name: name.endswith(CHECKPOINT_STATE)):
            target = self._folder.run / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._blobs.as_local_file(f"{self._prefix}/{latest['step']}/{name}") as source:
                shutil.copyfile(source, target)
            on_file()
        self._folder.write_state(**latest["state"])
        self._copied_step = latest["step"]
        log.info("checkpoint.fetched", step=latest["step"])

    def close(self, *, last: bool = False) -> None:
        """Wait for a copy that is under way; with `last` copy what the trainer saved at its end."""
        if last:
            if self._copying is not None:
                self._copying.exception()
            self.copy_if_new()
        self._pool.shutdown(wait=True)

    def remove(self) -> None:
        """Remove the copies; what is saved from now on is copied whatever its step."""
        self._copied_step = -1
        if self._is_on:
            remove_mirror(self._blobs, self._prefix)

    def _copy(self, step: int, checkpoint: Path) -> None:
        # The checkpoint may be gone already; the next one will be copied.
        with best_effort("checkpoint.not_copied", step=step):
            run = self._folder.run
            paths = [path for path in checkpoint.rglob("*") if path.is_file()]
            paths += [run / name for name in _RUN_FILES if (run / name).is_file()]
            names = [path.relative_to(run).as_posix() for path in paths]
            for name, path in zip(names, paths, strict=True):
                self._blobs.put_file(f"{self._prefix}/{step}/{name}", path)
            latest = {"step": step, "files": names, "state": self._folder.read_state()}
            known = self._read_latest()
            if known is not None and known["step"] > step:
                return  # a newer claim is further
            self._blobs.put_bytes(f"{self._prefix}/{_LATEST}", json.dumps(latest).encode())
            for key in list(self._blobs.keys(self._prefix)):
                if key.split("/")[2] not in (_LATEST, str(step)):
                    self._blobs.delete(key)
            log.info("checkpoint.copied", step=step)

    def _read_latest(self) -> dict[str, Any] | None:
        try:
            with self._blobs.open_read(f"{self._prefix}/{_LATEST}") as file:
                latest: dict[str, Any] = json.loads(file.read())
                return latest
        except (BlobNotFound, FileNotFoundError):
            return None


def remove_mirror(blobs: BlobStore, prefix: str) -> None:
    """Remove all copies of a finetune."""
    for key in list(blobs.keys(prefix)):
        blobs.delete(key)
