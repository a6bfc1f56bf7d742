"""How good a model is while it is trained: its loss on other data, and the task's own measure."""

import copy
import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from clipbert.errors import CheckpointError, NothingToEvaluate
from clipbert.evaluation.clips import ClipSource
from clipbert.evaluation.evaluate import evaluate_clips
from clipbert.evaluation.evaluators import Evaluator, Metrics, RetrievalReport
from clipbert.evaluation.metrics import CountMetrics
from clipbert.inference.clipbert import ClipBert
from clipbert.model.text import TextTokenizer
from clipbert.training.dataset import Item
from clipbert.training.objective import Objective

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validation:
    """Other data than that of the training.

    Attributes:
        batches: of all examples, with fixed clips and fixed draws of texts.
        evaluator: the same annotations as the task is measured with; None for pretraining.
        source: the clips of the measurement.
        tokenizer: of the model.
        dtype: that the measurement is done in; other than float32 it takes a copy of the model.
    """

    batches: DataLoader[Item]
    evaluator: Evaluator | None
    source: ClipSource
    tokenizer: TextTokenizer
    dtype: torch.dtype = torch.float32

    def measure(self, objective: Objective) -> dict[str, float]:
        """Measure a model as it is now; it is left in eval mode.

        Returns:
            "loss", the mean over all texts; and of the task: "recall_at_1", "recall_at_5",
            "recall_at_10" and "median_rank" from text to video; or "accuracy" (qa, multiple
            choice); or "accuracy" and "squared_error" (count); or "word_accuracy" and
            "match_accuracy" (pretraining). Parts are percentages. Without a finite loss there is
            only that.
        """
        objective.eval()
        with torch.inference_mode():
            measured = self._mean_loss(objective)
        if self.evaluator is not None and math.isfinite(measured["loss"]):
            measured |= self._measure_task(objective, self.evaluator)
        return measured

    def _mean_loss(self, objective: Objective) -> dict[str, float]:
        sums: defaultdict[str, float] = defaultdict(float)
        num_texts = 0
        for batch in self.batches:
            outputs = objective(batch)
            num_texts += len(batch.token_ids)
            sums["loss"] += float(outputs.pop("loss")) * len(batch.token_ids)
            for name, value in outputs.items():
                sums[name] += float(value)
        measured = {"loss": sums["loss"] / max(1, num_texts)}
        for part, whole in (("word", "words"), ("match", "matches")):
            if whole in sums:
                right = sums[f"right_{whole}"] / max(1.0, sums[whole])
                measured[f"{part}_accuracy"] = 100 * right
        return measured

    def _measure_task(self, objective: Objective, evaluator: Evaluator) -> Mapping[str, float]:
        network = objective.model
        if self.dtype != torch.float32:
            network = copy.deepcopy(network).to(self.dtype)
        model = ClipBert(network, self.tokenizer)
        try:
            evaluation = evaluate_clips(model, evaluator, source=self.source)
        # No video is left, or tokens outgrew float16, which evaluation keeps them in. A run need
        # not end for it.
        except (NothingToEvaluate, CheckpointError) as error:
            log.warning("the task cannot be measured: %s", error)
            return {}
        return _figures(evaluation.metrics)


def _figures(metrics: Metrics) -> dict[str, float]:
    if isinstance(metrics, RetrievalReport):
        one = metrics.text_to_video
        return {
            "recall_at_1": one.recall_at_1,
            "recall_at_5": one.recall_at_5,
            "recall_at_10": one.recall_at_10,
            "median_rank": one.median_rank,
        }
    if isinstance(metrics, CountMetrics):
        return {"accuracy": metrics.accuracy, "squared_error": metrics.mean_squared_error}
    return {"accuracy": metrics.overall}
