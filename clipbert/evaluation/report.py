"""The result of an evaluation as a table, as JSON, and as Markdown beside the paper's figures."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from clipbert.checkpoints.tensor_files import hash_file
from clipbert.datasets.annotation_files import AnnotationKind
from clipbert.evaluation.evaluate import Evaluation
from clipbert.evaluation.evaluators import Evaluator, RetrievalReport
from clipbert.evaluation.metrics import CountMetrics, GroupedScore, RetrievalMetrics
from clipbert.evaluation.paper_figures import PAPER_FIGURES
from clipbert.model.config import CONFIG_FILE, WEIGHTS_FILE, Aggregation
from clipbert.model.head_names import HeadName
from clipbert.model.text import TOKENIZER_FILE
from clipbert.sampling.plan import SamplingPlan

JSON_FILE, MARKDOWN_FILE = "results.json", "results.md"
_RETRIEVAL_COLUMNS = ("R@1", "R@5", "R@10", "MdR")


@dataclass(frozen=True)
class EvaluationSettings:
    """All that is needed to run an evaluation again.

    Attributes:
        model: its folder.
        model_sha256: of each file of the model, by name.
        data: the annotation file.
        data_sha256: of the annotation file.
        videos: the folder of videos.
        kind: of the annotation file.
        task: of its lines.
        head: that scored them.
        head_is_trained: whether its weights were ever trained.
        plan: which clips were looked at.
        aggregation: how their logits were joined.
        device: "cpu", "cuda" or "cuda:N".
        device_name: what stands there.
        dtype: of the weights.
        split: only the lines of this split; None for all.
        limit: only so many of the first lines; None for all.
        authors_rounding: whether retrieval was measured the way the paper's code does.
    """

    model: Path
    model_sha256: Mapping[str, str]
    data: Path
    data_sha256: str
    videos: Path
    kind: AnnotationKind
    task: HeadName
    head: HeadName
    head_is_trained: bool
    plan: SamplingPlan
    aggregation: Aggregation
    device: str
    device_name: str
    dtype: str
    split: str | None
    limit: int | None
    authors_rounding: bool

    def score_inputs(self) -> dict[str, Any]:
        """Return what the scores depend on: those of a run with the same can be used again."""
        return {
            "model_sha256": dict(self.model_sha256),
            "data_sha256": self.data_sha256,
            "task": self.task,
            "head": self.head,
            "plan": self.plan.to_json(),
            "device": torch.device(self.device).type,
            "dtype": self.dtype,
            "split": self.split,
            "limit": self.limit,
        }


def hash_model(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file that a model's outputs depend on, in hexadecimal, by name."""
    names = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)
    return {name: hash_file(folder / name) for name in names if (folder / name).is_file()}


def to_json(
    settings: EvaluationSettings, evaluation: Evaluation, evaluator: Evaluator
) -> dict[str, Any]:
    """Return everything about an evaluation as a JSON object."""
    fields = asdict(settings)
    fields["plan"] = settings.plan.to_json()
    for name in ("model", "data", "videos"):
        fields[name] = str(fields[name])
    return {
        **fields,
        "versions": {
            "clipbert-workers": metadata.version("clipbert-workers"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "counts": {
            "annotations": evaluation.num_annotations,
            "evaluated": evaluation.num_evaluated,
            "unanswered": evaluation.num_annotations - evaluation.num_evaluated,
            "repeated": evaluator.num_repeated,
            "unknown_answers": evaluator.num_unknown_answers,
            "videos": evaluation.num_videos,
            "unusable_videos": len(evaluation.unusable),
            "resumed_videos": evaluation.num_resumed,
            "clips": evaluation.num_clips,
            "pairs": evaluation.num_pairs,
        },
        "seconds": evaluation.seconds,
        "clips_per_second": _rate(evaluation.num_clips, evaluation.encoding_seconds),
        "pairs_per_second": _rate(evaluation.num_pairs, evaluation.scoring_seconds),
        "metrics": asdict(evaluation.metrics),
        "unanswered_as_wrong": _unanswered_as_wrong(evaluation),
        "unusable_videos": [asdict(video) for video in evaluation.unusable],
    }


def to_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Return the metrics as column names, those of numbers ending in `#`, and rows."""
    metrics = evaluation.metrics
    if isinstance(metrics, RetrievalReport):
        columns = ["direction", *(f"{name}#" for name in _RETRIEVAL_COLUMNS), "MnR#", "queries#"]
        rows = [
            ["text to video", *_retrieval_cells(metrics.text_to_video)],
            ["video to text", *_retrieval_cells(metrics.video_to_text)],
        ]
        return columns, rows
    if isinstance(metrics, GroupedScore):
        groups = [("all", metrics.overall, metrics.num_questions)] + [
            (name, score, metrics.num_by_type[name]) for name, score in metrics.by_type.items()
        ]
        rows = [[name, f"{score:.2f}", str(number)] for name, score, number in groups]
        return ["answer type", "accuracy#", "questions#"], rows
    columns = ["accuracy#", "squared error, rounded#", "squared error#", "questions#"]
    errors = [metrics.mean_squared_error, metrics.raw_mean_squared_error]
    row = [f"{metrics.accuracy:.2f}", *(f"{error:.3f}" for error in errors)]
    return columns, [[*row, str(metrics.num_questions)]]


def to_markdown(settings: EvaluationSettings, evaluation: Evaluation) -> str:
    """Return a Markdown table: our row, then the paper's for the same kind of data."""
    metrics = evaluation.metrics
    plan = settings.plan
    ours = (
        f"{settings.model.name} on {settings.data.name}, {plan.name} {plan.num_clips} x "
        f"{plan.frames_per_clip}, {evaluation.num_evaluated} of {evaluation.num_annotations}"
    )
    if isinstance(metrics, RetrievalReport):
        columns: Sequence[str] = _RETRIEVAL_COLUMNS
        cells = _retrieval_cells(metrics.text_to_video)[: len(columns)]
    elif isinstance(metrics, CountMetrics):
        columns = ("accuracy", "squared error")
        cells = [f"{metrics.accuracy:.2f}", f"{metrics.mean_squared_error:.3f}"]
    else:
        columns, cells = ("accuracy",), [f"{metrics.overall:.2f}"]
    lines = [
        ["run", *columns],
        ["---", *("---:" for _ in columns)],
        [ours, *cells],
        *(
            [f"paper: {figure.name}", *figure.values]
            for figure in PAPER_FIGURES.get(settings.kind, ())
        ),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rates(evaluation: Evaluation) -> str:
    """Return how fast the model was: clips of the CNN, pairs of the cross-encoder."""
    if not evaluation.num_pairs:
        return "all scores were there"
    clips = evaluation.num_clips / evaluation.encoding_seconds
    pairs = evaluation.num_pairs / evaluation.scoring_seconds
    return f"{clips:,.1f} clips/s, {pairs:,.1f} pairs/s"


def write_results(folder: Path, results: Mapping[str, Any], *, markdown: str) -> None:
    """Write results.json and results.md into a folder.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_FILE).write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    (folder / MARKDOWN_FILE).write_text(markdown)


def _retrieval_cells(metrics: RetrievalMetrics) -> list[str]:
    recalls = (metrics.recall_at_1, metrics.recall_at_5, metrics.recall_at_10)
    ranks = [f"{metrics.median_rank:g}", f"{metrics.mean_rank:.1f}"]
    return [*(f"{recall:.1f}" for recall in recalls), *ranks, str(metrics.num_queries)]


def _unanswered_as_wrong(evaluation: Evaluation) -> float | None:
    """Return the accuracy if unanswered questions count as wrong; None for retrieval."""
    metrics = evaluation.metrics
    if isinstance(metrics, RetrievalReport):
        return None
    overall = metrics.overall if isinstance(metrics, GroupedScore) else metrics.accuracy
    return overall * evaluation.num_evaluated / evaluation.num_annotations


def _rate(number: int, seconds: float) -> float | None:
    return number / seconds if number else None
