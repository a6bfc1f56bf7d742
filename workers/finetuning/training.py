"""Train: start the trainer, start it again when it is lost or needs less memory."""

import errno
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from clipbert.runs.contract import RECIPE_FILE, RunExit
from clipbert.training.recipe import Recipe
from store.labels.datasets import DatasetRepository
from workers.child.context import WorkerContext
from workers.errors import JobError, JobLost, StorageFull
from workers.finetuning.devices import (
    TrainerDevice,
    choose_device,
    count_processes,
    fit_videos_per_forward,
)
from workers.finetuning.folder import FinetuneFolder, read_json, write_text
from workers.finetuning.run_watch import RunWatch
from workers.finetuning.subprocesses import (
    BoundProcess,
    ForkedProcess,
    Subprocess,
    end_survivor,
    works_on_of,
)
from workers.finetuning.supervision import Stalled, supervise
from workers.finetuning.work import Work

log = structlog.get_logger(__name__)

MAX_LOSSES: Final = 3
"""Times that a trainer is started again without having got any further."""

_ANSWERS_FILE: Final = "answers.json"
_PAUSE_AFTER_LOSS_SECONDS: Final = 1.0


def train(work: Work) -> None:
    """Train until the folder has the model.

    Raises:
        Interrupted: the job should not go on; the last checkpoint is in the folder.
        JobError: the trainer failed (with its own code), `out_of_memory`, or `trainer_lost`.
    """
    if work.folder.is_trained():
        return
    training = _Training(work)
    try:
        training.run()
    except BaseException:
        work.mirror.close(last=not work.job.is_lost)
        raise
    work.folder.mark_trained()


class _Training:
    """The trainer of one claim: the same command again and again, until it is done."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._watch = RunWatch(work.context, work.job, folder=work.folder)
        self._device = choose_device(work.context.settings.device)
        self._num_processes = count_processes(
            self._device.num_gpus, videos_per_step=work.recipe.videos_per_step
        )
        known = work.folder.read_state().get("videos_per_forward")
        self._videos_per_forward = self._fit(known or work.recipe.videos_per_forward)
        self._losses, self._lost_at_step = 0, -1

    def run(self) -> None:
        while (status := self._run_once()) != RunExit.DONE:
            match status:
                case RunExit.FENCED:
                    self._work.job.is_lost = True
                    raise JobLost(f"another worker goes on with job {self._work.finetune.id}")
                case RunExit.OUT_OF_MEMORY:
                    self._take_less_memory()
                case RunExit.FAILED:
                    self._fail()
                case _:
                    self._note_loss(status)

    def _run_once(self) -> int | Stalled:
        folder = self._work.folder
        folder.error.unlink(missing_ok=True)
        folder.run.mkdir(exist_ok=True)
        recipe = replace(self._work.recipe, videos_per_forward=self._videos_per_forward)
        process = start_subprocess(
            self._work.context,
            folder,
            module="clipbert.training",
            arguments=trainer_arguments(
                self._work,
                recipe=_write_recipe(folder, recipe),
                answers=_write_answers(self._work),
                device=self._device,
            ),
            device=self._device,
            num_processes=self._num_processes,
        )
        log.info(
            "trainer.started",
            job_id=str(self._work.finetune.id),
            pid=process.pid,
            device=self._device.name,
            processes=self._num_processes,
            videos_per_forward=self._videos_per_forward,
        )
        works_on = works_on_of(process)

        def poll() -> bool:
            self._work.mirror.copy_if_new()
            # Where there are no steps, such as while videos are looked at, work has to do.
            return self._watch.check() or (not self._watch.counts_steps and works_on())

        status = supervise(process, context=self._work.context, job=self._work.job, poll=poll)
        if status == RunExit.FAILED and self._num_processes > 1:
            return self._status_of_processes()
        return status

    def _status_of_processes(self) -> int:
        """Return how torchrun's processes ended; its own status is one for all that is wrong."""
        folder = self._work.folder
        if folder.token() != self._work.job.claim.lease_token:
            return RunExit.FENCED
        match (read_json(folder.error) or {}).get("code"):
            case None | "process_lost":
                return RunExit.STOPPED
            case "out_of_memory":
                return RunExit.OUT_OF_MEMORY
            case _:
                return RunExit.FAILED

    def _take_less_memory(self) -> None:
        before = self._videos_per_forward
        if before == 1:
            raise JobError(
                "out_of_memory",
                "one video at a time is too much for the memory there is: choose fewer clips or "
                "frames a clip, or smaller frames",
                detail=_detail(self._work.folder),
            )
        self._videos_per_forward = self._fit(before // 2)
        self._work.folder.write_state(videos_per_forward=self._videos_per_forward)
        self._work.add_event("out_of_memory", videos_per_forward=self._videos_per_forward)
        log.warning(
            "trainer.out_of_memory",
            job_id=str(self._work.finetune.id),
            videos_per_forward=self._videos_per_forward,
        )

    def _note_loss(self, status: int | Stalled) -> None:
        step, how = self._watch.step, _name_of(status)
        self._stand_back_if_full(how)
        self._losses = self._losses + 1 if step <= self._lost_at_step else 1
        self._lost_at_step = max(step, self._lost_at_step)
        self._work.add_event("trainer_lost", how=how, step=step, losses=self._losses)
        log.warning("trainer.lost", job_id=str(self._work.finetune.id), how=how, step=step)
        if self._losses > MAX_LOSSES:
            raise JobError(
                "trainer_lost",
                f"the trainer ended ({how}) {self._losses} times at step {step}, without an error "
                "of its own",
                detail=_detail(self._work.folder),
            )
        time.sleep(_PAUSE_AFTER_LOSS_SECONDS)

    def _fail(self) -> None:
        error = read_json(self._work.folder.error) or {}
        self._stand_back_if_full(str(error.get("message") or "the trainer ended with an error"))
        raise JobError(
            str(error.get("code") or "training_failed"),
            str(error.get("message") or "the trainer ended with an error; its log says which"),
            detail=_detail(self._work.folder),
        )

    def _stand_back_if_full(self, message: str) -> None:
        """Take a full disk for the reason while there is one: else it ends the same way again."""
        is_said = os.strerror(errno.ENOSPC) in message
        if is_said or not self._work.context.disk.check().has_room:
            raise StorageFull(message)

    def _fit(self, videos_per_forward: int) -> int:
        return fit_videos_per_forward(
            videos_per_forward,
            videos_per_step=self._work.recipe.videos_per_step,
            num_processes=self._num_processes,
        )


def trainer_arguments(
    work: Work, *, recipe: Path, answers: Path | None, device: TrainerDevice
) -> list[str]:
    """Return what the trainer is told, to train or to go on training."""
    data = work.data
    media = ["--tokens", str(data.tokens)] if work.is_frozen else ["--videos", str(data.videos)]
    arguments = [
        *(str(recipe), "--data", str(data.labels), *media),
        *("--model", str(work.local_model(work.base)), "--out", str(work.folder.run)),
        *("--split", "train", "--resume", "--supervised", "--device", device.name),
        *("--fence", str(work.folder.fence), "--token", str(work.job.claim.lease_token)),
    ]
    if device.num_gpus:
        arguments += ["--memory-share", str(work.context.settings.finetune_memory_share)]
    if answers is not None:
        arguments += ["--answers", str(answers)]
    return arguments


def start_subprocess(
    context: WorkerContext,
    folder: FinetuneFolder,
    *,
    module: str,
    arguments: Sequence[str],
    device: TrainerDevice,
    num_processes: int = 1,
) -> Subprocess:
    """Start a trainer or a scorer, after one that an earlier claim may have left.

    Args:
        context: of this process.
        folder: of the finetune.
        module: run as `python -m` runs it.
        arguments: of its command line.
        device: what it may use.
        num_processes: more than one run under torchrun.
    """
    end_survivor(folder.trainer)
    niceness = 0 if device.num_gpus else context.settings.finetune_niceness
    environment: Mapping[str, str] = {"PYTHONUNBUFFERED": "1", **device.environment}
    if num_processes == 1:
        return ForkedProcess(
            module,
            arguments,
            folder=folder.path,
            log_file=folder.log,
            identity=folder.trainer,
            environment=environment,
            niceness=niceness,
        )
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    return BoundProcess(
        (*launcher, f"--nproc-per-node={num_processes}", "-m", module, *arguments),
        folder=folder.path,
        log_file=folder.log,
        identity=folder.trainer,
        environment=environment,
        niceness=niceness,
    )


def _write_recipe(folder: FinetuneFolder, recipe: Recipe) -> Path:
    path = folder.path / RECIPE_FILE
    write_text(path, recipe.to_toml())
    return path


def _write_answers(work: Work) -> Path | None:
    """Write the vocabulary of a data set of questions, so that a model can be trained again."""
    answers: Sequence[str] = _vocabulary(work)[: work.recipe.max_answers]
    if work.recipe.task != "qa" or not answers:
        return None
    known = list(work.base.config.get("answers") or ())
    if set(known) == set(answers):  # the base's head goes on as it is
        answers = known
    path = work.folder.path / _ANSWERS_FILE
    write_text(path, json.dumps({answer: label for label, answer in enumerate(answers)}))
    return path


def _vocabulary(work: Work) -> Sequence[str]:
    if work.recipe.same_answers == "folded":
        return work.dataset.answers
    with work.context.sessions.begin() as session:
        counts = DatasetRepository(session).answer_counts(work.dataset.id)
    return [answer for answer, _ in counts]


def _detail(folder: FinetuneFolder) -> dict[str, Any]:
    return {"log": folder.log_tail()}


def _name_of(status: int | Stalled) -> str:
    if isinstance(status, Stalled):
        return "it got no further"
    return f"signal {-status}" if status < 0 else f"exit status {status}"
