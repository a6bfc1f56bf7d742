"""One training run, from a recipe and files to a model folder."""

import os
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch.utils.data import DataLoader

from clipbert.assessment_builder import build_assessment
from clipbert.config import ClipBertConfig
from clipbert.errors import ConfigError
from clipbert.evaluation import choose_plan
from clipbert.inference import default_dtype
from clipbert.model import ClipBert
from clipbert.sampling import SamplingPlan
from clipbert.tensor_files import hash_file
from clipbert.training.batch import Batch, collate
from clipbert.training.dataset import (
    ClipDataset,
    Draw,
    Item,
    StepSampler,
    fingerprint,
)
from clipbert.training.media_folder import MediaFolder
from clipbert.training.model_card import CardFacts, write_model_card
from clipbert.training.objective import Objective
from clipbert.training.processes import Processes
from clipbert.training.recipe import Recipe
from clipbert.training.run_data import RunData, choose_answers, read_run_data
from clipbert.training.run_folder import CHECKPOINTS_FOLDER, hash_json, open_run_folder
from clipbert.training.run_log import METRICS_FILE, read_metrics
from clipbert.training.run_request import RunReport, RunRequest
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
        MediaNotFound: the videos' folder is none.
        TrainingDiverged: the loss is no number any more.
    """
    recipe, checkpoints = request.recipe, request.out / CHECKPOINTS_FOLDER
    arguments = make_arguments(
        checkpoints, recipe, device=request.device, validates=request.validation is not None
    )
    processes = Processes.of(arguments)
    media = MediaFolder(request.videos)
    start = _load_start(request)
    data = _read_data(request, start.config, media, processes, progress)
    starting = prepare_model(start, recipe, answers=data.answers)
    schedule = plan_steps(recipe, num_examples=len(data.examples), max_steps=request.max_steps)
    set_steps(arguments, schedule)
    facts = {
        "data_sha256": hash_file(request.data),
        # A video that was broken and is whole now makes other examples.
        "usable_examples_sha256": fingerprint(data.examples),
        "model_config_sha256": hash_json(starting.model.config.to_json()),
    }
    processes.from_main(lambda: open_run_folder(request.out, recipe, facts, resume=request.resume))
    trainer = ClipTrainer(
        Objective(starting.model, recipe),
        arguments,
        recipe,
        schedule,
        batches=_load_training(request, data, starting, schedule, processes),
        validation=_make_validation(
            request, data, starting, media, processes, device=arguments.device.type
        ),
        metrics=request.out / METRICS_FILE,
    )
    trainer.run(find_last_checkpoint(checkpoints))
    report = _report(request, trainer, data, schedule, processes)
    if processes.is_main:
        starting.model.save_pretrained(request.out)
        _write_card(request, report, starting, facts["data_sha256"], schedule)
    processes.wait()
    return report


def _load_start(request: RunRequest) -> ClipBert:
    if (request.model is None) == (request.preset is None):
        raise ConfigError("training starts from a model folder or from a preset: name one of them")
    if request.model is not None:
        return ClipBert.from_pretrained(request.model)
    return ClipBert.create(ClipBertConfig.preset(str(request.preset)), seed=request.recipe.seed)


def _read_data(
    request: RunRequest,
    start: ClipBertConfig,
    media: MediaFolder,
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
        media=media,
        plan=recipe.training_plan,
        processes=processes,
        answers=answers,
        split=request.split,
        progress=progress,
    )


def _load_training(
    request: RunRequest,
    data: RunData,
    starting: StartingModel,
    schedule: Schedule,
    processes: Processes,
) -> DataLoader[Item]:
    recipe = request.recipe
    sampler = StepSampler(
        num_examples=len(data.examples),
        total_steps=schedule.total_steps,
        videos_per_step=recipe.videos_per_step,
        videos_per_forward=recipe.videos_per_forward,
        seed=recipe.seed,
        process=processes.number,
        num_processes=processes.count,
    )
    return DataLoader(
        _make_dataset(recipe, data, starting, recipe.training_plan, random_clips=True),
        batch_sampler=sampler,
        collate_fn=partial(collate_inputs, pad_id=starting.tokenizer.pad_id),
        num_workers=_count_workers(request, processes),
    )


def _make_validation(
    request: RunRequest,
    training: RunData,
    starting: StartingModel,
    media: MediaFolder,
    processes: Processes,
    *,
    device: str,
) -> Validation | None:
    if request.validation is None:
        return None
    recipe = request.recipe
    config = starting.model.config
    plan = choose_plan(config, head=recipe.task, num_clips=recipe.validation_clips)
    data = read_run_data(
        request.validation,
        recipe,
        media=media,
        plan=plan,
        processes=processes,
        answers=training.answers,
        split=request.validation_split,
    )
    size = recipe.videos_per_forward
    draws = [Draw(0, 0, index) for index in range(len(data.examples))]
    batches: DataLoader[Item] = DataLoader(
        _make_dataset(recipe, data, starting, plan, random_clips=False),
        batch_sampler=[draws[start : start + size] for start in range(0, len(draws), size)],
        collate_fn=partial(collate, pad_id=starting.tokenizer.pad_id),
        num_workers=_count_workers(request, processes),
    )
    assessment = None
    if recipe.task != "pretraining":
        assessment = build_assessment(
            data.file, config=config, task=recipe.task, split=request.validation_split
        )
    dtype = torch.float32 if recipe.precision == "fp32" else default_dtype(device)
    return Validation(batches, assessment, media, plan, starting.tokenizer, dtype)


def _make_dataset(
    recipe: Recipe,
    data: RunData,
    starting: StartingModel,
    plan: SamplingPlan,
    *,
    random_clips: bool,
) -> ClipDataset:
    texts = make_task_texts(
        recipe, data.annotations, tokenizer=starting.tokenizer, answers=data.answers
    )
    return ClipDataset(
        data.examples,
        data.videos,
        plan=plan,
        random_clips=random_clips,
        texts=texts,
        max_side_px=starting.model.config.max_side_px,
        seed=recipe.seed,
    )


def _count_workers(request: RunRequest, processes: Processes) -> int:
    if request.num_workers is not None:
        return request.num_workers
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
        CardFacts(
            start=request.start,
            head_is_new=starting.head_is_new,
            data=request.data.name,
            data_sha256=data_sha256,
            epochs=report.steps / schedule.steps_per_epoch,
            report=report,
        ),
    )
