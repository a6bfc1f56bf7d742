"""One training run, from a recipe and files to a model folder."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch.utils.data import DataLoader

from clipbert.checkpoints.folder import VISUAL_PREFIXES, Checkpoint, load_folder, save_folder
from clipbert.checkpoints.tensor_files import hash_file, read_tensors
from clipbert.engines.devices import default_dtype
from clipbert.errors import TrainingStopped
from clipbert.evaluation.evaluate import choose_plan
from clipbert.evaluation.evaluator_builder import build_evaluator
from clipbert.model.config import WEIGHTS_FILE, ClipBertConfig
from clipbert.runs.contract import CHECKPOINTS_FOLDER, METRICS_FILE
from clipbert.sampling.plan import SamplingPlan
from clipbert.training.batch import Batch, collate
from clipbert.training.curves import draw_curves
from clipbert.training.dataset import Draw, ExampleDataset, Item, StepSampler, fingerprint
from clipbert.training.model_card import CardFacts, write_model_card
from clipbert.training.objective import Objective
from clipbert.training.processes import Processes
from clipbert.training.recipe import Recipe
from clipbert.training.run_data import RunData, choose_answers, read_run_data
from clipbert.training.run_folder import hash_json, open_run_folder
from clipbert.training.run_log import read_metrics
from clipbert.training.run_request import RunReport, RunRequest
from clipbert.training.sources import Source, open_source
from clipbert.training.starting_config import check_request
from clipbert.training.starting_model import StartingModel, prepare_model
from clipbert.training.task_texts import make_task_texts
from clipbert.training.trainer import (
    ClipTrainer,
    Schedule,
    find_last_checkpoint,
    make_arguments,
    plan_steps,
    set_steps,
)
from clipbert.training.validation import Validation
from clipbert.training.visual_start import fit_visual_embeddings, grids_of_some

_MOST_WORKERS = 8


def train(
    request: RunRequest,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> RunReport:
    """Train a model.

    In several processes each calls this with the same request, after torchrun started them.

    Args:
        request: what to train.
        progress: called while videos are looked at, with how many were and of how many.

    Returns:
        What was done. The folder then holds the model, the recipe and a model card.

    Raises:
        AnnotationError: an annotation file cannot be read, or is not for the recipe's task.
        CheckpointError: the model cannot be loaded, or has no tokenizer.
        ConfigError: recipe, model, data, processes and folder do not go together.
        MediaNotFound: the videos' folder is none, or that of the tokens.
        FenceLost: another attempt may write now.
        TrainingStopped: SIGTERM came; the run can go on.
        TrainingDiverged: the loss is no longer a number.
    """
    checkpoints, control = request.out / CHECKPOINTS_FOLDER, request.control
    arguments = make_arguments(
        checkpoints, request.recipe, device=request.device, validates=request.validation is not None
    )
    _make_repeatable(arguments.device.type)
    processes = Processes.of(arguments)
    source = open_source(request)
    start = _load_start(request)
    recipe = _settle(request.recipe, start.network.config)
    control.progress.enter("reading")
    data = _read_data(request, start.network.config, source, processes, progress)
    starting = prepare_model(
        start, recipe, answers=data.answers, from_tokens=request.tokens is not None
    )
    parts = _Parts(request, recipe, source, data, starting, processes)
    dtypes = _visual_dtypes(request)
    schedule = plan_steps(recipe, num_examples=len(data.examples), max_steps=request.max_steps)
    set_steps(arguments, schedule)
    facts = {
        "data_sha256": hash_file(request.data),
        # A video that was broken and is whole now makes other examples.
        "usable_examples_sha256": fingerprint(data.examples),
        "model_config_sha256": hash_json(starting.model.config.to_json()),
    }
    control.check_fence()
    processes.from_main(
        lambda: open_run_folder(request.out, request.recipe, facts=facts, resume=request.resume)
    )
    num_clips = source.num_clips(recipe, data)
    objective, batches = Objective(starting.model, recipe), _load_training(parts, schedule)
    if starting.needs_statistics:
        some = grids_of_some(
            objective,
            batches.dataset,
            count=len(data.examples),
            num_clips=num_clips,
            pad_id=starting.tokenizer.pad_id,
        )
        if len(some):
            fit_visual_embeddings(starting.model, some)
    trainer = ClipTrainer(
        objective,
        arguments,
        recipe,
        schedule,
        batches=batches,
        validation=_make_validation(parts, device=arguments.device.type),
        metrics=request.out / METRICS_FILE,
        control=control,
        num_clips=num_clips,
    )
    trainer.run(find_last_checkpoint(checkpoints))
    if trainer.state.global_step < schedule.stop_at:
        raise TrainingStopped
    control.check_fence()
    control.progress.enter("saving")
    report = _report(request, trainer, data, schedule, processes)
    if processes.is_main:
        save_folder(starting.model, request.out, tokenizer=starting.tokenizer, dtypes=dtypes)
        draw_curves(request.out / METRICS_FILE)
        _write_card(request, report, starting, facts["data_sha256"], schedule)
    processes.wait()
    return report


def _load_start(request: RunRequest) -> Checkpoint:
    check_request(request)
    if request.model is not None:
        return load_folder(request.model)
    return Checkpoint.create(ClipBertConfig.preset(str(request.preset)), seed=request.recipe.seed)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What a run is made of, once everything is read; recipe has nothing left to the model."""

    request: RunRequest
    recipe: Recipe
    source: Source
    data: RunData
    starting: StartingModel
    processes: Processes

    def load(
        self,
        data: RunData,
        plan: SamplingPlan,
        batch_sampler: Iterable[list[Draw]],
        collate_fn: Callable[[Sequence[Item]], object],
        *,
        random_clips: bool,
    ) -> DataLoader[Item]:
        """Load the examples that a sampler names, as batches."""
        texts = make_task_texts(
            self.recipe, data.annotations, tokenizer=self.starting.tokenizer, answers=data.answers
        )
        side = self.starting.model.config.max_side_px
        dataset = ExampleDataset(
            data.examples,
            self.source.clips(self.recipe, data, plan=plan, max_side_px=side),
            random_clips=random_clips,
            texts=texts,
            seed=self.recipe.seed,
        )
        return DataLoader(
            dataset,
            batch_sampler=batch_sampler,
            collate_fn=collate_fn,
            num_workers=_count_workers(self.request, self.processes),
        )


def _make_repeatable(device: str) -> None:
    """Make a GPU compute the same twice, where it can; a CPU does anyway."""
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def _settle(recipe: Recipe, start: ClipBertConfig) -> Recipe:
    """Fill in what a recipe leaves to the model that training starts from."""
    return dataclasses.replace(
        recipe,
        max_side_px=recipe.max_side_px or start.max_side_px,
        max_text_tokens=recipe.max_text_tokens or start.max_text_tokens,
    )


def _visual_dtypes(request: RunRequest) -> Mapping[str, torch.dtype]:
    """Return the types in which a frozen visual side is saved: those of the model it came from.

    So its bytes, and whatever is made of them, stay the same.
    """
    if request.recipe.visual != "frozen" or request.model is None:
        return {}
    stored = read_tensors(request.model / WEIGHTS_FILE)
    return {
        name: weight.dtype for name, weight in stored.items() if name.startswith(VISUAL_PREFIXES)
    }


def _read_data(
    request: RunRequest,
    start: ClipBertConfig,
    source: Source,
    processes: Processes,
    progress: Callable[[int, int], None],
) -> RunData:
    recipe = request.recipe
    answers = choose_answers(
        recipe,
        request.data,
        labels=request.answers,
        split=request.split,
        known=start.answers,
    )
    return read_run_data(
        request.data,
        recipe,
        name=source.canonical_name,
        find=source.finder(start, recipe.training_plan, progress=progress),
        processes=processes,
        answers=answers,
        split=request.split,
    )


def _load_training(parts: _Parts, schedule: Schedule) -> DataLoader[Item]:
    recipe = parts.recipe
    sampler = StepSampler(
        num_examples=len(parts.data.examples),
        total_steps=schedule.total_steps,
        videos_per_step=recipe.videos_per_step,
        videos_per_forward=recipe.videos_per_forward,
        seed=recipe.seed,
        process=parts.processes.number,
        num_processes=parts.processes.count,
    )
    return parts.load(
        parts.data,
        recipe.training_plan,
        sampler,
        partial(collate_inputs, pad_id=parts.starting.tokenizer.pad_id),
        random_clips=recipe.random_clips,
    )


def _make_validation(parts: _Parts, *, device: str) -> Validation | None:
    request, recipe, starting = parts.request, parts.recipe, parts.starting
    if request.validation is None:
        return None
    config = starting.model.config
    plan = choose_plan(
        config, head=recipe.task, name=recipe.plan, num_clips=recipe.validation_clips
    )
    data = read_run_data(
        request.validation,
        recipe,
        name=parts.source.canonical_name,
        find=parts.source.finder(config, plan),
        processes=parts.processes,
        answers=parts.data.answers,
        split=request.validation_split,
    )
    size = recipe.videos_per_forward
    draws = [Draw(0, 0, index) for index in range(len(data.examples))]
    batches = parts.load(
        data,
        plan,
        [draws[start : start + size] for start in range(0, len(draws), size)],
        partial(collate, pad_id=starting.tokenizer.pad_id),
        random_clips=False,
    )
    evaluator = None
    if recipe.task != "pretraining":
        evaluator = build_evaluator(
            data.file, config=config, task=recipe.task, split=request.validation_split
        )
    dtype = torch.float32 if recipe.precision == "fp32" else default_dtype(device)
    return Validation(
        batches, evaluator, parts.source.evaluation_clips(plan), starting.tokenizer, dtype
    )


def _count_workers(request: RunRequest, processes: Processes) -> int:
    if request.num_workers is not None:
        return request.num_workers
    if request.tokens is not None:
        return 0  # reading them costs less than handing them over
    return min(_MOST_WORKERS, max(1, (os.cpu_count() or 1) // processes.count))


def collate_inputs(items: Sequence[Item], *, pad_id: int) -> dict[str, Batch]:
    """Join examples as collate does, named as Objective.forward takes them."""
    return {"batch": collate(items, pad_id=pad_id)}


def _report(
    request: RunRequest,
    trainer: ClipTrainer,
    data: RunData,
    schedule: Schedule,
    processes: Processes,
) -> RunReport:
    dropped = processes.gather(trainer.dropped)
    videos = {name: video for one in dropped for name, video in one.videos.items()}
    return RunReport(
        folder=request.out,
        steps=trainer.state.global_step,
        total_steps=schedule.total_steps,
        num_annotations=len(data.annotations),
        left_out=data.left_out,
        unusable=data.unusable,
        dropped=tuple(videos.values()),
        num_dropped=sum(one.num_examples for one in dropped),
        metrics=read_metrics(request.out / METRICS_FILE),
    )


def _write_card(
    request: RunRequest,
    report: RunReport,
    starting: StartingModel,
    data_sha256: str,
    schedule: Schedule,
) -> None:
    write_model_card(
        request.out,
        request.recipe,
        facts=CardFacts(
            start=request.start,
            head_is_new=starting.head_is_new,
            data=request.data.name,
            data_sha256=data_sha256,
            epochs=report.steps / schedule.steps_per_epoch,
            report=report,
        ),
    )
