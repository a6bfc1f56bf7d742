"""`clipbert weights import`, `export` and `base`: model folders from others' weights, and back."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cli.errors import CliError, check_one_of
from cli.show.console import JsonOption, print_facts, print_json

if TYPE_CHECKING:
    from clipbert.checkpoints.authors_settings import AuthorsDataSet, AuthorsSettings
    from clipbert.model.head_names import HeadName
    from clipbert.model.text import TextTokenizer
    from clipbert.sampling.plan import SamplingPlan

_TASKS = ("retrieval", "qa", "multiple-choice", "count", "pretraining")
_DTYPES = ("float32", "float16")
_NO_TOKENIZER = "It cannot read texts yet: put its BERT's tokenizer.json there (--tokenizer)."

ToFolder = Annotated[
    Path, typer.Option("--to", help="The model folder to make; must not exist, or be empty.")
]
AnswersOption = Annotated[
    Path | None,
    typer.Option(
        "--answers", help="For qa: ans2label file, JSON, answer -> output.", show_default=False
    ),
]
TokenizerOption = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer", help="tokenizer.json, or vocab.txt of an uncased BERT.", show_default=False
    ),
]


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A .pt file that the authors' code wrote.")],
    *,
    task: Annotated[str, typer.Option(help=f"What it is for: {', '.join(_TASKS)}.")],
    to: ToFolder,
    data_set: Annotated[
        str | None,
        typer.Option(
            help="What it was trained on, called as the recipes: msrvtt_retrieval, "
            "didemo_retrieval, activitynet_retrieval, msrvtt_qa, tgif_frameqa, vqa, ... "
            "The file does not tell it, and frame size, length of texts and aggregation differ.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="JSON with what the file does not tell: max_side_px, max_text_tokens, "
            "aggregation, plan, num_attention_heads. Default: the paper's for the data set, or "
            "for the task's main one.",
            show_default=False,
        ),
    ] = None,
    answers: AnswersOption = None,
    tokenizer: TokenizerOption = None,
    dtype: Annotated[str, typer.Option(help="Of the saved weights: float32, float16.")] = "float32",
    as_json: JsonOption = False,
) -> None:
    """Make a model folder of a checkpoint of the paper's authors.

    Every weight must find its place, and every place its weight; what is left out is said. Nothing
    in the file is run. On an error nothing is written.
    """
    import torch

    from clipbert.checkpoints.authors_import import convert_authors_checkpoint

    head = _read_task(task)
    trained_on = _read_data_set(data_set, head)
    check_one_of("--dtype", dtype, allowed=_DTYPES)
    target = to.expanduser().absolute()
    with _readable_errors():
        made = convert_authors_checkpoint(
            file.expanduser(),
            target,
            head=head,
            answers=_read_answers(answers),
            settings=_read_settings(config, head, trained_on),
            data_set=trained_on,
            tokenizer=_read_tokenizer(tokenizer),
            dtype=torch.float16 if dtype == "float16" else torch.float32,
        )
    facts = {
        "folder": str(target),
        "heads": [each.name for each in made.config.heads],
        "answers": len(made.config.answers),
        "frames_px": made.config.max_side_px,
        "longest_text": made.config.max_text_tokens,
        "aggregation": made.config.aggregation,
        "plan": _describe(made.config.plan),
        "dtype": dtype,
        "sha256": made.source.sha256,
        "skipped": made.skipped,
        "notices": made.notices,
    }
    _print(facts, as_json=as_json)
    if tokenizer is None and not as_json:
        print(_NO_TOKENIZER)


def export_checkpoint(
    folder: Annotated[Path, typer.Argument(help="A model folder.")],
    *,
    to: Annotated[Path, typer.Option("--to", help="The .pt file to write; must not exist.")],
    task: Annotated[
        str | None,
        typer.Option(help="Which head, if the model has several.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model folder as a checkpoint of the authors' code, in float32."""
    from clipbert.checkpoints.authors_export import export_authors_checkpoint
    from clipbert.checkpoints.folder import load_folder

    head = None if task is None else _read_task(task)
    target = to.expanduser().absolute()
    with _readable_errors():
        network = load_folder(folder.expanduser()).network
        made = export_authors_checkpoint(network, target, head=head)
    facts = {
        "file": str(target),
        "head": made.head,
        "tensors": made.num_tensors,
        "left_out": made.left_out,
        "passed_over": made.passed_over,
    }
    _print(facts, as_json=as_json)
    if made.passed_over and not as_json:
        print("Their loader passes over the last layer: its qa heads have at least 1500 outputs.")


def base(
    *,
    to: ToFolder,
    resnet: Annotated[
        Path | None,
        typer.Option(
            help="State dict of torchvision's ResNet-50, .pth or .safetensors.", show_default=False
        ),
    ] = None,
    bert: Annotated[
        Path | None,
        typer.Option(help="Folder of a BERT of transformers.", show_default=False),
    ] = None,
    heads: Annotated[
        str, typer.Option(help="Parted by commas: retrieval, qa, multiple-choice, pretraining.")
    ] = "retrieval",
    answers: AnswersOption = None,
    tokenizer: TokenizerOption = None,
    seed: Annotated[int, typer.Option(help="For what no file gives.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Start clipbert-base from a ResNet-50 and a BERT; what no file gives is random."""
    from clipbert.checkpoints.base_parts import start_base
    from clipbert.checkpoints.new_folder import refuse_filled_folder, write_model_folder

    target = to.expanduser().absolute()
    with _readable_errors():
        refuse_filled_folder(target)
        started = start_base(
            resnet=None if resnet is None else resnet.expanduser(),
            bert=None if bert is None else bert.expanduser(),
            heads=_read_heads(heads),
            answers=_read_answers(answers),
            tokenizer=_read_tokenizer(tokenizer),
            seed=seed,
        )
        write_model_folder(started.checkpoint, target, card=started.card)
    facts = {
        "folder": str(target),
        "heads": [head.name for head in started.checkpoint.network.config.heads],
        "from": [f"{source.role} {source.sha256}" for source in started.card.sources],
        "random": started.card.random,
        "skipped": started.card.skipped,
    }
    _print(facts, as_json=as_json)
    if started.checkpoint.tokenizer is None and not as_json:
        print(_NO_TOKENIZER)


@contextmanager
def _readable_errors() -> Iterator[None]:
    """Turn errors that a person can put right into one line."""
    from clipbert.errors import ClipBertError

    try:
        yield
    except ClipBertError as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise CliError(f"cannot read or write: {error}") from error


def _read_task(task: str) -> "HeadName":
    heads: dict[str, HeadName] = {
        "retrieval": "retrieval",
        "qa": "qa",
        "multiple-choice": "multiple_choice",
        "multiple_choice": "multiple_choice",
        "count": "count",
        "pretraining": "pretraining",
    }
    if task not in heads:
        raise CliError(f"--task is one of {', '.join(_TASKS)}, not {task}")
    return heads[task]


def _read_data_set(data_set: str | None, head: "HeadName") -> "AuthorsDataSet | None":
    from clipbert.checkpoints.authors_settings import data_sets_of

    if data_set is None:
        return None
    name = data_set.replace("-", "_")
    for known in data_sets_of(head):
        if name == known:
            return known
    raise CliError(
        f"--data-set for {head} is one of {', '.join(data_sets_of(head))}, not {data_set}"
    )


def _read_heads(heads: str) -> "list[HeadName]":
    names = [name.strip().replace("-", "_") for name in heads.split(",")]
    return [cast("HeadName", name) for name in names if name]  # the configuration checks them


def _read_answers(path: Path | None) -> tuple[str, ...]:
    from clipbert.datasets.answers import read_answer_labels

    return () if path is None else read_answer_labels(path.expanduser())


def _read_tokenizer(path: Path | None) -> "TextTokenizer | None":
    from clipbert.model.text import TextTokenizer

    return None if path is None else TextTokenizer.from_file(path.expanduser())


def _read_settings(
    path: Path | None, head: "HeadName", data_set: "AuthorsDataSet | None"
) -> "AuthorsSettings | None":
    from clipbert.checkpoints.authors_settings import AuthorsSettings
    from clipbert.errors import ConfigError

    if path is None:
        return None
    try:
        fields = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except ValueError as error:
        raise CliError(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise CliError(f"{path} is not a JSON object")
    try:
        return AuthorsSettings.from_json(fields, head=head, data_set=data_set)
    except ConfigError as error:
        raise CliError(f"{path}: {error}") from error


def _describe(plan: "SamplingPlan") -> str:
    return f"{plan.name}, {plan.num_clips} clips of {plan.frames_per_clip} frames"


def _print(facts: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(dict(facts))
        return
    print_facts(
        (name.replace("_", " "), line) for name, value in facts.items() for line in _lines(value)
    )


def _lines(value: object) -> list[str]:
    """Show a value, a list's items and a mapping's numbers a line each."""
    if isinstance(value, Mapping):
        return [f"{key} {number:,}" for key, number in value.items()]
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    return [f"{value:,}" if isinstance(value, int) else str(value)]
