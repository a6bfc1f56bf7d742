"""End a finetune: compare, decide, register the model, and write it all in one transaction."""

import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from clipbert.runs.contract import (
    CURVES_FILE,
    CURVES_PICTURE,
    ERROR_FILE,
    METRICS_FILE,
    PROGRESS_FILE,
    RUN_FILE,
)
from policy.finetunes.gate import Compared, Decision, decide
from policy.registration import promote_in, register_model
from store.models.finetunes import FinetuneRepository
from store.models.folders import list_folder
from store.models.repository import ModelRepository
from store.models.tables import Model
from workers.finetuning.folder import remove_folder
from workers.finetuning.run_watch import put_curves
from workers.finetuning.scoring import Scored, score_candidate, score_reference
from workers.finetuning.supervision import beat
from workers.finetuning.work import Work
from workers.jobs.lease import Outcome

log = structlog.get_logger(__name__)

_VERSION_LENGTH: Final = 12
# Of the run alone: they would make two equal models differ.
_NOT_OF_THE_MODEL: Final = (RUN_FILE, METRICS_FILE, PROGRESS_FILE, ERROR_FILE)
_CURVES: Final = (CURVES_FILE, CURVES_PICTURE)


class _ServingChanged(Exception):
    """Another model was promoted while this one was compared with the one before."""


def complete(work: Work) -> None:
    """Measure, decide, and finish the job.

    Raises:
        Interrupted: the job should not go on.
        JobError: something could not be measured.
        LeaseLost: another worker has the job; nothing was written.
    """
    work.report_stage("evaluating")
    while True:
        with work.context.sessions.begin() as session:
            serving = ModelRepository(session).serving(work.finetune.task)
        evaluation = _evaluate(work, serving)
        model_id = _register(work)
        beat(work.context)
        work.job.check()
        try:
            work.context.leases.finish(
                work.job,
                partial(_write, work, evaluation, serving, model_id),
            )
        except _ServingChanged:
            log.info("finetune.compared_again", job_id=str(work.finetune.id))
        else:
            break
    if evaluation.decision.is_promoted:
        work.context.doorbell.ring("embed")
    log.info(
        "finetune.decided",
        job_id=str(work.finetune.id),
        model_id=str(model_id),
        verdict=evaluation.decision.verdict,
        reason=evaluation.decision.reason,
    )


class _Evaluation:
    """What was measured, and what follows from it."""

    def __init__(
        self,
        candidate: Scored,
        reference: Scored,
        decision: Decision,
        regression: tuple[Scored, Scored] | None,
    ) -> None:
        self.candidate, self.reference = candidate, reference
        self.decision = decision
        self.regression = regression

    def to_json(self) -> dict[str, Any]:
        report = {
            "candidate": self.candidate.to_json(),
            "reference": self.reference.to_json(),
            "decision": self.decision.to_json(),
        }
        if self.regression is not None:
            names = ("candidate", "reference")
            report["regression"] = {
                name: scored.to_json() for name, scored in zip(names, self.regression, strict=True)
            }
        return report


def _evaluate(work: Work, serving: Model | None) -> _Evaluation:
    candidate = score_candidate(work, work.data, name="holdout")
    reference = score_reference(work, work.data, name="holdout", serving=serving)
    regression = None
    if work.regression_data is not None:
        regression = (
            score_candidate(work, work.regression_data, name="regression"),
            score_reference(work, work.regression_data, name="regression", serving=serving),
        )
    decision = decide(
        work.gate,
        _compared(candidate, reference),
        None if regression is None else _compared(*regression),
    )
    evaluation = _Evaluation(candidate, reference, decision, regression)
    report = evaluation.to_json()
    work.add_event("evaluation", **{name: report[name] for name in report if name != "decision"})
    work.add_event("decision", **report["decision"])
    return evaluation


def _compared(candidate: Scored, reference: Scored) -> Compared:
    return Compared(
        candidate=candidate.scores,
        reference=reference.scores,
        reference_name=reference.name,
        is_baseline=reference.model is None,
    )


def _register(work: Work) -> UUID:
    """Put the model and its curves into the blobs, and write the model's row, yet unjudged."""
    folder = _model_folder(work)
    for name in _CURVES:
        with suppress(FileNotFoundError):
            put_curves(work.context.blobs, work.folder, finetune_id=work.finetune.id, name=name)
    return register_model(
        work.context.sessions,
        work.context.blobs,
        folder,
        name=work.finetune.name,
        version=list_folder(folder).sha256[:_VERSION_LENGTH],
        # Not recall: its texts are read by weights that were trained.
        tasks=[work.finetune.task],
        parent_id=work.base.id,
    )


def _model_folder(work: Work) -> Path:
    """Lay the files of the model apart from those of the run."""
    folder = work.folder.model
    remove_folder(folder)
    folder.mkdir()
    for path in work.folder.run.iterdir():
        is_hidden = path.name.startswith(".")  # a small file that was being written
        if path.is_file() and not is_hidden and path.name not in (*_NOT_OF_THE_MODEL, *_CURVES):
            try:
                (folder / path.name).hardlink_to(path)
            except OSError:  # a file system without links
                shutil.copyfile(path, folder / path.name)
    return folder


def _model_metrics(evaluation: _Evaluation) -> dict[str, Any]:
    decision = evaluation.decision.to_json()
    return {
        "metric": evaluation.candidate.metric,
        **evaluation.candidate.metrics,
        "compared_with": evaluation.reference.name,
        "difference": decision["holdout"],
        "decision": {name: decision[name] for name in ("promoted", "code", "reason")},
    }


def _write(
    work: Work,
    evaluation: _Evaluation,
    compared_with: Model | None,
    model_id: UUID,
    session: Session,
) -> Outcome:
    """Write what came of a finetune; all of it or nothing, and nothing without the lease."""
    task, decision = work.finetune.task, evaluation.decision
    if decision.is_promoted:
        ModelRepository(session).lock()  # before looking: who promotes meanwhile has to wait
        serving = ModelRepository(session).serving(task)
        if (serving and serving.id) != (compared_with and compared_with.id):
            raise _ServingChanged
        promote_in(
            session, model_id, tasks=[task], reason=decision.reason, finetune_id=work.finetune.id
        )
    # Here, not with its row: it may be compared again, where another model serves by now.
    ModelRepository(session).get(model_id).metrics = _model_metrics(evaluation)
    report = evaluation.to_json() | {"training": _training_report(work)}
    FinetuneRepository(session).complete(work.finetune.id, model_id=model_id, report=report)
    return Outcome({"model_id": str(model_id), **decision.to_json()})


def _training_report(work: Work) -> dict[str, Any]:
    lines = work.folder.read_metrics()
    last: dict[str, Any] = next((line for line in reversed(lines) if "loss" in line), {})
    kept = ("step", "epoch", "loss", "seconds", "clips_per_second")
    return {
        **{name: last[name] for name in kept if name in last},
        "num_train": work.dataset.num_train,
        "num_holdout": work.dataset.num_holdout,
        "num_answers": len(work.dataset.answers),
        "visual": work.recipe.visual,
    }
