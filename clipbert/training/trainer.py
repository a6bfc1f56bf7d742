"""transformers' Trainer with our optimiser, our order of examples and our validation."""

import json
import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy

from clipbert.errors import ConfigError
from clipbert.model.network import Network
from clipbert.runs.supervision import RunControl
from clipbert.training.batch import Batch
from clipbert.training.curves import draw_curves
from clipbert.training.dataset import Item
from clipbert.training.draws import seed_torch
from clipbert.training.objective import Objective
from clipbert.training.optimizer import AuthorsAdamW, group_parameters
from clipbert.training.recipe import Recipe
from clipbert.training.run_log import Pace, RunLog
from clipbert.training.run_request import DeviceName
from clipbert.training.schedule import learning_rate, make_scheduler
from clipbert.training.usable_videos import UnusableVideo
from clipbert.training.validation import Validation

# Others wait while the main process validates; the longest takes hours.
_PATIENCE_SECONDS = 24 * 3600
# Half a second of a core goes into a picture of the curves, for people who look now and then.
_CURVES_SECONDS = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How many steps a run has, and when something is done besides.

    Attributes:
        total_steps: of the run.
        stop_at: the step after which it stops, at most total_steps.
        validation_steps: steps between validations.
        steps_per_epoch: steps in which each example is seen once.
    """

    total_steps: int
    stop_at: int
    validation_steps: int
    steps_per_epoch: float


def plan_steps(recipe: Recipe, *, num_examples: int, max_steps: int | None = None) -> Schedule:
    """Count the steps of a run.

    Args:
        recipe: epochs or steps, and examples a step.
        num_examples: of the data set.
        max_steps: stop after so many; the learning rate goes as if the run went on.

    Source: the authors' code, but for stopping early.
    """
    steps_per_epoch = num_examples / recipe.videos_per_step
    total = recipe.steps or math.ceil(recipe.epochs * steps_per_epoch)
    least = recipe.min_validation_steps
    return Schedule(
        total_steps=total,
        stop_at=min(total, max_steps or total),
        validation_steps=math.ceil(total / recipe.validations / least) * least,
        steps_per_epoch=steps_per_epoch,
    )


def make_arguments(
    folder: Path, recipe: Recipe, *, device: DeviceName, validates: bool
) -> TrainingArguments:
    """Translate a recipe for transformers; this also joins the other processes of torchrun.

    set_steps adds what only the data tells.

    Args:
        folder: where checkpoints go.
        recipe: of the run.
        device: "cpu", "cuda", or "auto": a GPU if there is one.
        validates: whether there is data for it.

    Raises:
        ConfigError: there is no GPU, or the processes cannot share the recipe's steps.
    """
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise ConfigError("device is 'cuda': there is no GPU here")
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.videos_per_forward,
        max_grad_norm=recipe.max_gradient_norm,
        logging_steps=recipe.log_steps,
        logging_nan_inf_filter=False,
        save_steps=recipe.checkpoint_steps,
        save_total_limit=recipe.checkpoints_kept,
        eval_strategy="steps" if validates else "no",
        eval_steps=1,
        seed=recipe.seed,
        use_cpu=device == "cpu" or not has_gpu,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        # Every weight that requires gradients gets one in every pass.
        ddp_find_unused_parameters=False,
        ddp_timeout=_PATIENCE_SECONDS,
    )
    # One process uses one GPU; torchrun starts one for each.
    arguments._n_gpu = min(1, arguments.n_gpu)
    arguments.gradient_accumulation_steps = count_forwards(recipe, arguments.world_size)
    return arguments


def count_forwards(recipe: Recipe, num_processes: int) -> int:
    """Count the forward passes that each process makes for a step.

    Raises:
        ConfigError: the processes cannot share the recipe's steps evenly.
    """
    forwards, rest = divmod(recipe.videos_per_step, recipe.videos_per_forward * num_processes)
    if rest:
        raise ConfigError(
            f"videos_per_step is {recipe.videos_per_step}: {num_processes} processes with "
            f"videos_per_forward {recipe.videos_per_forward} cannot share it"
        )
    return forwards


def set_steps(arguments: TrainingArguments, schedule: Schedule) -> None:
    """Translate for transformers how long a run is."""
    arguments.max_steps = schedule.stop_at
    arguments.eval_steps = schedule.validation_steps


@dataclass
class DroppedVideos:
    """Videos that failed after the run had begun: which, why, and how often."""

    videos: dict[str, UnusableVideo] = field(default_factory=dict)
    num_examples: int = 0

    def add(self, dropped: Iterable[UnusableVideo]) -> None:
        """Count examples; each video is reported once."""
        for video in dropped:
            self.num_examples += 1
            if video.video not in self.videos:
                log.warning("%s cannot be decoded, and is left out: %s", video.video, video.reason)
            self.videos.setdefault(video.video, video)


class ClipTrainer(Trainer):
    """Trains an Objective by a recipe.

    Before each forward pass torch's generator is set by (seed, pass, process), so that what
    dropout draws does not depend on what was drawn before: a run that goes on from a checkpoint
    ends with the same weights, bit for bit, as one that was not interrupted.

    Args:
        objective: what is minimised.
        arguments: of make_arguments.
        recipe: of the run.
        schedule: of the run.
        batches: all forward passes of this process, from the first one of the run.
        validation: other data, or None.
        metrics: path of metrics.jsonl.
        control: asked before each checkpoint, told each step.
        num_clips: K of each example.
    """

    def __init__(
        self,
        objective: Objective,
        arguments: TrainingArguments,
        recipe: Recipe,
        schedule: Schedule,
        *,
        batches: DataLoader[Item],
        validation: Validation | None,
        metrics: Path,
        control: RunControl,
        num_clips: int,
    ) -> None:
        optimizer = make_optimizer(objective.model, recipe)
        rate_of = partial(
            learning_rate,
            total_steps=schedule.total_steps,
            decay=recipe.decay,
            warmup_ratio=recipe.warmup_ratio,
            decay_epochs=recipe.decay_epochs,
            steps_per_epoch=schedule.steps_per_epoch,
        )
        pace = Pace(
            epochs_per_step=1 / schedule.steps_per_epoch,
            clips_per_step=recipe.videos_per_step * num_clips,
            rate_of=rate_of,
        )
        self._run_log = RunLog(metrics, pace)
        self._objective, self._batches, self._validation = objective, batches, validation
        # Who watches learns after one step how fast it goes.
        arguments.logging_first_step = control.is_watched
        self._seed, self._control, self._metrics = recipe.seed, control, metrics
        self.dropped = DroppedVideos()
        self._drawn_at = -math.inf
        super().__init__(
            model=objective,
            args=arguments,
            train_dataset=batches.dataset,
            eval_dataset=None if validation is None else validation.batches.dataset,
            optimizers=(optimizer, make_scheduler(optimizer, rate_of)),
            callbacks=[self._run_log, LastStep(), Stops(control, recipe.checkpoint_seconds)],
        )
        self.remove_callback(PrinterCallback)

    def run(self, checkpoint: Path | None) -> None:
        """Train from a checkpoint to the end; from the beginning if it is None.

        Raises:
            TrainingDiverged: the loss is no longer a number.
        """
        try:
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            self._run_log.close()

    def get_train_dataloader(self) -> DataLoader[Item]:
        """Return the loader as it is: it knows its process already."""
        return self._batches

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Seed what dropout will draw, then compute the loss."""
        batch = cast("Batch", inputs["batch"])
        self.dropped.add(batch.dropped)
        seed_torch(self._seed, "dropout", batch.number, self.args.process_index)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ANN401
        """Write a checkpoint, and the curves up to it unless they were drawn a moment ago.

        Raises:
            FenceLost: another attempt may write now; nothing is written.
        """
        self._control.check_fence()
        self._control.progress.enter("saving")
        super()._save_checkpoint(model, trial)
        if self.is_world_process_zero() and time.monotonic() - self._drawn_at > _CURVES_SECONDS:
            draw_curves(self._metrics)
            self._drawn_at = time.monotonic()
        self._control.progress.enter("training")

    def evaluate(self, *_: object, **__: object) -> dict[str, float]:
        """Validate in the main process; the others wait."""
        measured: dict[str, float] = {}
        if self._validation is not None and self.is_world_process_zero():
            self._control.progress.enter("validating")
            measured = self._validation.measure(self._objective)
            self._control.progress.enter("training")
        self.accelerator.wait_for_everyone()
        named = {f"eval_{name}": value for name, value in measured.items()}
        self.log(dict(named))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        return named


class LastStep(TrainerCallback):
    """Logs and validates after the last step, whatever the intervals are."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Ask for both."""
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_evaluate = args.eval_strategy != IntervalStrategy.NO


class Stops(TrainerCallback):
    """Ends a run that is asked to, after a checkpoint, and makes checkpoints by the clock.

    Processes that train together do both after the same step.

    Args:
        control: tells whether the run shall stop; is told each step.
        checkpoint_seconds: between checkpoints at the most; None: by steps alone.
    """

    def __init__(self, control: RunControl, checkpoint_seconds: float | None) -> None:
        self._control, self._checkpoint_seconds = control, checkpoint_seconds
        self._saved_at = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Have SIGTERM wait for steps from now on."""
        self._saved_at = time.monotonic()
        self._control.progress.move(state.global_step, state.max_steps)
        self._control.progress.enter("training")
        self._control.wait_for_step()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Ask for a checkpoint, and for the end."""
        self._control.progress.move(state.global_step, state.max_steps)
        since = time.monotonic() - self._saved_at
        is_due = self._checkpoint_seconds is not None and since >= self._checkpoint_seconds
        stops, saves = _any_process(args, self._control.is_wanted_to_stop, is_due)
        if stops and state.global_step < state.max_steps:
            control.should_training_stop = True
        if stops or saves:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Begin to count anew."""
        self._saved_at = time.monotonic()


def _any_process(args: TrainingArguments, *flags: bool) -> list[bool]:
    """Return for each flag whether it is set in any of the processes."""
    if args.world_size == 1:
        return list(flags)
    numbers = torch.tensor([int(flag) for flag in flags], device=args.device)
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
    return [bool(number) for number in numbers.tolist()]


def make_optimizer(model: Network, recipe: Recipe) -> AuthorsAdamW:
    """Make the optimiser of a recipe for what requires gradients in a model."""
    groups = group_parameters(
        model,
        learning_rate=recipe.learning_rate,
        cnn_learning_rate=recipe.cnn_learning_rate,
        grid_encoder_factor=recipe.grid_encoder_factor,
        weight_decay=recipe.weight_decay,
        cnn_weight_decay=recipe.cnn_weight_decay,
    )
    return AuthorsAdamW(
        [group.to_torch() for group in groups if group.parameters],
        betas=(recipe.betas[0], recipe.betas[1]),
        epsilon=recipe.epsilon,
    )


def find_last_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that is whole; None if there is none.

    A process may be killed while it writes one: the trainer's state is written last.
    """
    found = []
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:
            state = json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
            found.append((int(state["global_step"]), path))
        except (OSError, ValueError, KeyError):
            continue
    return max(found)[1] if found else None
