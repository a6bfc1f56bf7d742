"""Measure models on the held-out labels, each in a subprocess, on the same examples."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from clipbert.runs.contract import RunExit
from store.models.repository import ModelRepository
from store.models.tables import Model
from store.table_base import Task
from workers.errors import JobError, JobLost
from workers.finetuning.devices import choose_device
from workers.finetuning.export import DataFolder
from workers.finetuning.folder import read_json
from workers.finetuning.subprocesses import works_on_of
from workers.finetuning.supervision import supervise
from workers.finetuning.training import MAX_LOSSES, start_subprocess
from workers.finetuning.work import Work

log = structlog.get_logger(__name__)

_SPLIT: Final = "holdout"
_PAUSE_AFTER_LOSS_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Scored:
    """How one answered the held-out examples.

    Attributes:
        name: of the model or the baseline.
        model: None for a baseline.
        metric: accuracy or r1.
        metrics: all that was measured.
        scores: 1 or 0 for each example, in the order of the lines.
        num_unusable: examples whose videos could not be used, and which count as 0.
    """

    name: str
    model: Model | None
    metric: str
    metrics: Mapping[str, Any]
    scores: Sequence[float]
    num_unusable: int

    def to_json(self) -> dict[str, Any]:
        """Return what a finetune's report says of it."""
        return {
            "name": self.name,
            "model_id": None if self.model is None else str(self.model.id),
            "metric": self.metric,
            "metrics": dict(self.metrics),
            "num_unusable": self.num_unusable,
        }


def score_candidate(work: Work, data: DataFolder, *, name: str) -> Scored:
    """Measure the finetuned model.

    Args:
        work: trained.
        data: with the held-out labels.
        name: of the data set, for the file of the scores.

    Raises:
        Interrupted: the job should not go on.
        JobError: the scorer failed.
    """
    scorer = ["--model", str(work.folder.run)]
    return _score(work, data, f"{name}-candidate", scorer, called="the candidate", model=None)


def score_reference(work: Work, data: DataFolder, *, name: str, serving: Model | None) -> Scored:
    """Measure what the finetuned model is compared with: the model that serves, or a baseline.

    Raises:
        Interrupted: the job should not go on.
        JobError: the scorer failed.
    """
    if serving is not None:
        called = f"{serving.name} {serving.version}"
        scorer = ["--model", str(work.local_model(serving))]
        file = f"{name}-{serving.id}"
        media = None if _shares_tokens(work, serving) else _link_videos(data)
        return _score(work, data, file, scorer, called=called, model=serving, media=media)
    if work.finetune.task == Task.QA:
        # A regression data set may have no training split, and the answer is one for both.
        scorer = ["--baseline", "majority", "--training-data", str(work.data.labels)]
        return _score(work, data, f"{name}-majority", scorer, called="the commonest answer")
    recall = work.recall_model()
    if recall is None:
        raise JobError("no_recall_model", "no model makes recall vectors: there is no baseline")
    scorer = ["--baseline", "recall", "--model", str(work.local_model(recall))]
    called = f"{recall.name} {recall.version} without training"
    if work.generation is None:  # the vectors are beside the tokens
        data.write_tokens(work.active_generation().id, with_vectors=True)
    media = ["--tokens", str(data.tokens)]
    return _score(work, data, f"{name}-recall-{recall.id}", scorer, called=called, media=media)


def _link_videos(data: DataFolder) -> list[str]:
    data.link_videos()
    return ["--videos", str(data.videos)]


def _shares_tokens(work: Work, model: Model) -> bool:
    """Whether a model reads the visual tokens that the finetune is trained from."""
    if work.generation is None:
        return False
    with work.context.sessions.begin() as session:
        own = ModelRepository(session).get(work.generation.model_id)
    return own.visual_sha256 == model.visual_sha256


def _score(
    work: Work,
    data: DataFolder,
    file: str,
    scorer: Sequence[str],
    *,
    called: str,
    model: Model | None = None,
    media: Sequence[str] | None = None,
) -> Scored:
    """Run the scorer, unless an earlier claim has its result; a lost one runs again."""
    if not data.has_labels(_SPLIT):  # of a regression data set; the gate says what follows
        return Scored(called, model, metric="", metrics={}, scores=[], num_unusable=0)
    out = work.folder.scores / f"{file}.json"
    if media is None:
        is_frozen = work.generation is not None
        media = ["--tokens", str(data.tokens)] if is_frozen else _link_videos(data)
    losses = 0
    while (found := _read(out, called, model)) is None:
        losses += 1
        _run_scorer(work, data, media, scorer, out, is_last=losses > MAX_LOSSES)
    return found


def _run_scorer(
    work: Work,
    data: DataFolder,
    media: Sequence[str],
    scorer: Sequence[str],
    out: Path,
    *,
    is_last: bool,
) -> None:
    out.parent.mkdir(exist_ok=True)
    device = choose_device(work.context.settings.device)
    arguments = [
        *("--data", str(data.labels), "--split", _SPLIT, "--task", str(work.finetune.task)),
        *(*media, *scorer, "--out", str(out), "--supervised", "--device", device.name),
        *("--fence", str(work.folder.fence), "--token", str(work.job.claim.lease_token)),
    ]
    if device.num_gpus:
        arguments += ["--memory-share", str(work.context.settings.finetune_memory_share)]
    process = start_subprocess(
        work.context,
        work.folder,
        module="clipbert.training.score",
        arguments=arguments,
        device=device,
    )
    log.info("scorer.started", job_id=str(work.finetune.id), pid=process.pid, scores=out.stem)
    status = supervise(process, context=work.context, job=work.job, poll=works_on_of(process))
    if status == 0:
        return
    if status == RunExit.FENCED:
        work.job.is_lost = True
        raise JobLost(f"another worker goes on with job {work.finetune.id}")
    if status in (RunExit.FAILED, RunExit.OUT_OF_MEMORY) or is_last:
        error = read_json(out.with_name(work.folder.error.name)) or {}
        why = error.get("message") or "its log says why"
        detail = {"log": work.folder.log_tail(), "code": error.get("code")}
        raise JobError("scoring_failed", f"{out.stem} could not be measured: {why}", detail=detail)
    work.add_event("scorer_lost", scores=out.stem, status=str(status))
    time.sleep(_PAUSE_AFTER_LOSS_SECONDS)


def _read(path: Path, called: str, model: Model | None) -> Scored | None:
    result = read_json(path)
    if result is None:
        return None
    examples = sorted(result["examples"], key=lambda example: int(example["line"]))
    return Scored(
        name=called,
        model=model,
        metric=str(result["metric"]),
        metrics=result["metrics"],
        scores=[float(example["score"]) for example in examples],
        num_unusable=int(result.get("unusable", 0)),
    )
