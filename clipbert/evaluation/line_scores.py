"""How right each annotation of a split was answered, whoever answered; needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipbert.datasets.annotation_files import AnnotationFile
from clipbert.errors import AnnotationError
from clipbert.model.head_names import HeadName

_METRICS: Mapping[HeadName, str] = {
    "retrieval": "r1",
    "qa": "accuracy",
    "multiple_choice": "accuracy",
    "count": "accuracy",
}


@dataclass(frozen=True)
class Scores:
    """How right every annotation of a split was answered.

    Attributes:
        task: that was asked.
        of_line: 0 to 1 by line, in the order of the lines; retrieval: 1 if the right video comes
            first of all. A line whose video cannot be used has 0.
        unusable: number of lines whose video cannot be used, by the code of what is wrong.
        figures: of the lines whose video can be used: further measures.
        num_clips: K that was looked at, at the most; None where none was.
    """

    task: HeadName
    of_line: Mapping[int, float]
    unusable: Mapping[str, int]
    figures: Mapping[str, float]
    num_clips: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the form of a file of scores; all measures but ranks are 0 to 1."""
        metric = _METRICS[self.task]
        mean = sum(self.of_line.values()) / len(self.of_line)
        return {
            "task": self.task,
            "metric": metric,
            "metrics": {**self.figures, metric: mean},
            "examples": [{"line": line, "score": score} for line, score in self.of_line.items()],
            "num_examples": len(self.of_line),
            "num_clips": self.num_clips,
            "unusable": sum(self.unusable.values()),
            "unusable_by_code": dict(self.unusable),
        }


def check_task(file: AnnotationFile, task: HeadName) -> None:
    """Make sure that a file is for a task.

    Raises:
        AnnotationError: it is for another.
    """
    if file.task != task:
        raise AnnotationError(file.path, f"is for {file.task}, the scores are for {task}")
