"""`clipbert evaluate`: a model's figures on an annotation file and a folder of videos."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.errors import INTERRUPTED, CliError
from cli.show.console import JsonOption, print_error, print_json
from cli.show.evaluation_output import note, print_evaluation, progress_bar, warn_of
from clipbert.model.head_names import EvaluatedTask

if TYPE_CHECKING:
    import torch

    from clipbert.datasets.annotation_files import AnnotationFile
    from clipbert.evaluation.evaluators import Evaluator
    from clipbert.evaluation.report import EvaluationSettings
    from clipbert.evaluation.score_store import ScoreStore
    from clipbert.model.config import ClipBertConfig
    from clipbert.sampling.plan import SamplingPlan

SCORES_FOLDER = "scores"
MOST_DECODERS = 4

PlanOption = Literal["authors", "segments", "keyframes"]
DtypeName = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    model: Path
    data: Path
    videos: Path
    task: EvaluatedTask | None
    num_clips: int
    plan: PlanOption | None
    frames_per_clip: int | None
    device: str
    dtype: DtypeName
    authors_rounding: bool
    split: str | None
    limit: int | None
    out: Path | None
    resume: bool


def evaluate(
    *,
    model: Annotated[Path, typer.Option(help="A model folder.")],
    data: Annotated[Path, typer.Option(help="Annotation file (JSONL).")],
    videos: Annotated[Path, typer.Option(help="Folder of the videos, at any depth.")],
    task: Annotated[
        EvaluatedTask | None, typer.Option(help="Default: what the annotation file is for.")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Clips per video.")] = 16,
    plan: Annotated[
        PlanOption | None, typer.Option(help="How clips are placed. Default: the model's plan.")
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(min=1, help="Frames per clip. Default: the model's plan.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[
        DtypeName, typer.Option(help="auto: bfloat16 where the device has it in hardware.")
    ] = "auto",
    authors_rounding: Annotated[
        bool,
        typer.Option(
            "--authors-rounding",
            help="Retrieval as the paper's code measures it: scores rounded to 4 decimals, only "
            "the last caption of a video right.",
        ),
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="Only the lines of this split (files of own labels).")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only this many lines, the first ones.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results.json, results.md and the scores of each video."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(help="Go on from the scores in the folder, if they are of the same inputs."),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Measure a model: retrieval ranks, accuracy by answer type, counting error.

    Videos that are missing or broken are listed and left out. With --out, an interrupted run goes
    on where it was.
    """
    from clipbert.errors import ClipBertError

    request = Request(
        model=model.expanduser(),
        data=data.expanduser(),
        videos=videos.expanduser(),
        task=task,
        num_clips=clips,
        plan=plan,
        frames_per_clip=frames,
        device=device,
        dtype=dtype,
        authors_rounding=authors_rounding,
        split=split,
        limit=limit,
        out=None if out is None else out.expanduser(),
        resume=resume,
    )
    try:
        run_evaluation(request, as_json=as_json)
    except (ClipBertError, OSError) as error:
        raise CliError(str(error)) from error
    except KeyboardInterrupt:
        cure = None if out is None else "the same command goes on from here"
        print_error("interrupted", cure)
        raise typer.Exit(INTERRUPTED) from None


def run_evaluation(request: Request, *, as_json: bool) -> None:
    """Evaluate, print what came out, and write it to the folder that was asked for."""
    from clipbert.datasets.annotation_files import read_annotations
    from clipbert.datasets.found_names import as_found
    from clipbert.datasets.media_folder import MediaFolder
    from clipbert.evaluation.evaluate import evaluate as evaluate_model
    from clipbert.evaluation.evaluator_builder import build_evaluator
    from clipbert.evaluation.report import to_json, to_markdown, write_results
    from clipbert.inference.clipbert import ClipBert
    from clipbert.model.config import ClipBertConfig

    config = ClipBertConfig.from_folder(request.model)
    media = MediaFolder(request.videos)
    file = as_found(read_annotations(request.data), media.canonical_name)
    evaluator = build_evaluator(
        file,
        config=config,
        task=request.task,
        split=request.split,
        limit=request.limit,
        authors_rounding=request.authors_rounding,
    )
    settings = settings_of(request, config=config, file=file, evaluator=evaluator)
    store = open_store(request, settings)
    warn_of(settings, evaluator)
    model = ClipBert.for_serving(
        request.model, device=settings.device, dtype=torch_dtype(settings.dtype)
    )
    with progress_bar() as progress:
        evaluation = evaluate_model(
            model,
            evaluator,
            media=media,
            plan=settings.plan,
            store=store,
            progress=progress,
            num_threads=min(MOST_DECODERS, os.cpu_count() or 1),
        )
    results = to_json(settings, evaluation, evaluator)
    if request.out is not None:
        write_results(request.out, results, markdown=to_markdown(settings, evaluation))
    if as_json:
        print_json(results)
    else:
        print_evaluation(settings, evaluation, evaluator=evaluator, out=request.out)


def settings_of(
    request: Request,
    *,
    config: "ClipBertConfig",
    file: "AnnotationFile",
    evaluator: "Evaluator",
) -> "EvaluationSettings":
    """Fill in what the command line leaves to the model and the machine."""
    from clipbert.checkpoints.tensor_files import hash_file
    from clipbert.evaluation.report import EvaluationSettings, hash_model

    device, device_name = find_device(request.device)
    return EvaluationSettings(
        model=request.model,
        model_sha256=hash_model(request.model),
        data=request.data,
        data_sha256=hash_file(request.data),
        videos=request.videos,
        kind=file.kind,
        task=request.task or file.task,
        head=evaluator.head,
        head_is_trained=evaluator.head in config.trained_heads,
        plan=_plan(request, config, evaluator),
        aggregation=config.aggregation,
        device=device,
        device_name=device_name,
        dtype=_dtype(request.dtype, device),
        split=request.split,
        limit=request.limit,
        authors_rounding=request.authors_rounding,
    )


def find_device(name: str) -> tuple[str, str]:
    """Return a device's name for torch, and what it is; `auto` is a GPU if there is one.

    Raises:
        CliError: there is no such device.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu":
        return name, platform.processor() or platform.machine()
    if device.type != "cuda":
        raise CliError(f"no device is named {name}", "it is auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
        raise CliError(f"there is no {name} here", "--device cpu works everywhere")
    return name, torch.cuda.get_device_name(device)


def torch_dtype(name: str) -> "torch.dtype":
    """Return torch's type for a name such as `float32`."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def open_store(request: Request, settings: "EvaluationSettings") -> "ScoreStore | None":
    """Open the scores of the output folder, and say whether they are used; None without one."""
    from clipbert.evaluation.score_store import ScoreStore

    if request.out is None:
        return None
    store = ScoreStore(request.out / SCORES_FOLDER, settings.score_inputs(), resume=request.resume)
    if store.changed and request.resume:
        note(f"starting afresh: {', '.join(store.changed)} changed since the last run")
    elif store.num_found:
        note(f"going on: the scores of {store.num_found} videos are there")
    return store


def _plan(request: Request, config: "ClipBertConfig", evaluator: "Evaluator") -> "SamplingPlan":
    from clipbert.evaluation.evaluate import choose_plan

    try:
        return choose_plan(
            config,
            head=evaluator.head,
            name=request.plan,
            num_clips=request.num_clips,
            frames_per_clip=request.frames_per_clip,
        )
    except ValueError as error:
        raise CliError(str(error)) from error


def _dtype(name: DtypeName, device: str) -> str:
    from clipbert.engines.devices import default_dtype

    return str(default_dtype(device)).removeprefix("torch.") if name == "auto" else name
