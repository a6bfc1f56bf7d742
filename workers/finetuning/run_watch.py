"""Pass on what a trainer writes: its stage and step to the job, its metrics as events.

The trainer writes files and never speaks with the database.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import structlog

from store.blobs import BlobStore
from store.jobs.repository import JobRepository
from store.videos.contents import curves_key
from workers.child.workplace import Workplace
from workers.finetuning.folder import FinetuneFolder, Progress
from workers.jobs.lease import Hold

log = structlog.get_logger(__name__)

METRICS_EVENT: Final = "metrics"
_TRAINING: Final = "training"
_MAX_EVENTS_PER_LOOK: Final = 10
_CURVES: Final = ("curves.json", "curves.png")


class RunWatch:
    """What a trainer has done, as seen from outside.

    Args:
        workplace: of this process.
        hold: the job.
        folder: of the finetune.
    """

    def __init__(self, workplace: Workplace, hold: Hold, folder: FinetuneFolder) -> None:
        self._workplace, self._hold, self._folder = workplace, hold, folder
        # Steps that are done again after a loss have been told already.
        self._told_steps = _last_told_steps(workplace, hold)
        self._metrics_seen: tuple[int, int] | None = None
        self._curves_seen: dict[str, int] = {}
        self._told_progress = Progress()
        self.step = 0

    @property
    def counts_steps(self) -> bool:
        """Tell whether the trainer is where steps show that it gets further."""
        return self._told_progress.stage == _TRAINING

    def look(self) -> bool:
        """Report what is new; tell whether the trainer's stage or step is another.

        Raises:
            HoldLost: another worker has the job.
        """
        has_new_steps = self._tell_metrics()
        self._put_curves()
        progress = self._folder.read_progress()
        if progress in (self._told_progress, Progress()):
            return False
        if has_new_steps and not self.counts_steps and progress.stage != _TRAINING:
            # All of it went by between two looks: few steps, or a fast machine.
            self._report(replace(progress, stage=_TRAINING))
        self._report(progress)
        return True

    def _report(self, progress: Progress) -> None:
        self.step = max(self.step, progress.step)
        self._workplace.leases.report_progress(
            self._hold,
            done=progress.step,
            total=progress.total_steps or None,
            stage=progress.stage,
        )
        self._told_progress = progress

    def _tell_metrics(self) -> bool:
        """Add an event for each new line; tell whether there was one of training."""
        has_new_steps = False
        with suppress(FileNotFoundError):
            found = self._folder.metrics.stat()
            seen = (found.st_size, found.st_mtime_ns)
            if seen == self._metrics_seen:
                return False
            lines = [
                line
                for line in self._folder.read_metrics()
                if isinstance(line.get("step"), int)
                and line["step"] > self._told_steps.get(_kind(line), 0)
            ]
            # The last one always; the others, if there are too many, by equal steps.
            stride = -(-len(lines) // _MAX_EVENTS_PER_LOOK) or 1
            for line in lines[::-1][::stride][::-1]:
                self._workplace.leases.add_event(self._hold, METRICS_EVENT, _told(line))
                self._told_steps[_kind(line)] = line["step"]
                has_new_steps = has_new_steps or _kind(line)
            self._metrics_seen = seen
        return has_new_steps

    def _put_curves(self) -> None:
        for name in _CURVES:
            path = self._folder.run / name
            with suppress(FileNotFoundError):
                written_at = path.stat().st_mtime_ns
                if self._curves_seen.get(name) != written_at:
                    self._curves_seen[name] = written_at
                    self._put_curve(name)

    def _put_curve(self, name: str) -> None:
        finetune_id = self._hold.claim.id
        try:
            put_curves(self._workplace.blobs, self._folder, finetune_id, name)
        except Exception:
            # An edge: stores fail in ways of their own, and an outage of minutes must not end a
            # training of days. The next version is tried again, and the last one at the end.
            log.exception("curves.not_stored", job_id=str(finetune_id), name=name)


def put_curves(blobs: BlobStore, folder: FinetuneFolder, finetune_id: object, name: str) -> None:
    """Copy a finetune's curves to where the API finds them.

    Raises:
        FileNotFoundError: there are none yet.
    """
    blobs.put_bytes(curves_key(finetune_id, name), (folder.run / name).read_bytes())


def _last_told_steps(workplace: Workplace, hold: Hold) -> dict[bool, int]:
    with workplace.sessions.begin() as session:
        events = JobRepository(session).events(hold.claim.id)
    told: dict[bool, int] = {}
    for event in events:
        if event.type == METRICS_EVENT and isinstance(event.data.get("step"), int):
            told[_kind(event.data)] = event.data["step"]
    return told


def _kind(line: Mapping[str, Any]) -> bool:
    """Tell lines of training from those of validation, which have the same steps."""
    return "loss" in line


def _told(line: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what JSON has no word for, and name the learning rate as the recipe does."""
    told = {
        name: value
        for name, value in line.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    if "transformer_lr" in told:
        told["learning_rate"] = told["transformer_lr"]
    return told
