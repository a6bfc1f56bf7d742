"""Pass on what a trainer writes: its stage and step to the job, its metrics as events.

The trainer writes files and never speaks with the database.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from clipbert.runs.contract import CURVES_FILE, CURVES_PICTURE
from store.blobs import BlobStore
from store.jobs.repository import JobRepository
from store.videos.contents import curves_key
from workers.child.context import WorkerContext
from workers.finetuning.folder import FinetuneFolder, TrainerProgress
from workers.jobs.best_effort import best_effort
from workers.jobs.lease import RunningJob

METRICS_EVENT: Final = "metrics"
_TRAINING: Final = "training"
_MAX_EVENTS_PER_LOOK: Final = 10


class RunWatch:
    """What a trainer has done, as seen from outside.

    Args:
        context: of this process.
        job: the job.
        folder: of the finetune.
    """

    def __init__(self, context: WorkerContext, job: RunningJob, *, folder: FinetuneFolder) -> None:
        self._context, self._job, self._folder = context, job, folder
        # Steps that are done again after a loss have been told already.
        self._told_steps = _last_told_steps(context, job)
        self._metrics_seen: tuple[int, int] | None = None
        self._curves_seen: dict[str, int] = {}
        self._reported = TrainerProgress()
        self.step = 0

    @property
    def counts_steps(self) -> bool:
        """Whether the trainer is where steps show that it gets further."""
        return self._reported.stage == _TRAINING

    def check(self) -> bool:
        """Report what is new; tell whether the trainer's stage or step is another.

        Raises:
            JobLost: another worker has the job.
        """
        has_new_steps = self._report_metrics()
        self._put_curves()
        progress = self._folder.read_progress()
        if progress in (self._reported, TrainerProgress()):
            return False
        if has_new_steps and not self.counts_steps and progress.stage != _TRAINING:
            # All of it went by between two looks: few steps, or a fast machine.
            self._report(replace(progress, stage=_TRAINING))
        self._report(progress)
        return True

    def _report(self, progress: TrainerProgress) -> None:
        self.step = max(self.step, progress.step)
        self._context.leases.report_progress(
            self._job,
            done=progress.step,
            total=progress.total_steps or None,
            stage=progress.stage,
        )
        self._reported = progress

    def _report_metrics(self) -> bool:
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
                self._context.leases.add_event(self._job, METRICS_EVENT, _metrics_of(line))
                self._told_steps[_kind(line)] = line["step"]
                has_new_steps = has_new_steps or _kind(line)
            self._metrics_seen = seen
        return has_new_steps

    def _put_curves(self) -> None:
        for name in (CURVES_FILE, CURVES_PICTURE):
            path = self._folder.run / name
            with suppress(FileNotFoundError):
                written_at = path.stat().st_mtime_ns
                if self._curves_seen.get(name) != written_at:
                    self._curves_seen[name] = written_at
                    self._put_curve(name)

    def _put_curve(self, name: str) -> None:
        finetune_id = self._job.claim.id
        # An outage of minutes must not end a training of days. The next version is tried again, and
        # the last one at the end.
        with best_effort("curves.not_stored", job_id=str(finetune_id), name=name):
            put_curves(self._context.blobs, self._folder, finetune_id=finetune_id, name=name)


def put_curves(blobs: BlobStore, folder: FinetuneFolder, *, finetune_id: object, name: str) -> None:
    """Copy a finetune's curves to where the API finds them.

    Raises:
        FileNotFoundError: there are none yet.
    """
    blobs.put_bytes(curves_key(finetune_id, name), (folder.run / name).read_bytes())


def _last_told_steps(context: WorkerContext, job: RunningJob) -> dict[bool, int]:
    with context.sessions.begin() as session:
        events = JobRepository(session).events(job.claim.id)
    found: dict[bool, int] = {}
    for event in events:
        if event.type == METRICS_EVENT and isinstance(event.data.get("step"), int):
            found[_kind(event.data)] = event.data["step"]
    return found


def _kind(line: Mapping[str, Any]) -> bool:
    """Whether a line is of validation, whose steps are those of training too."""
    return "loss" in line


def _metrics_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what JSON has no word for, and name the learning rate as the recipe does."""
    found = {
        name: value
        for name, value in line.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    if "transformer_lr" in found:
        found["learning_rate"] = found["transformer_lr"]
    return found
