"""Which lines of an annotation file a recipe can learn from, and from which it cannot."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from clipbert.datasets.annotation import Annotation
from clipbert.datasets.annotation_files import AnnotationFile
from clipbert.datasets.answers import answers_of
from clipbert.errors import AnnotationError
from clipbert.model.head_names import HeadName

# Captions serve both tasks.
_INTERCHANGEABLE: frozenset[HeadName] = frozenset({"pretraining", "retrieval"})


@dataclass(frozen=True)
class Selection:
    """Lines of an annotation file.

    Attributes:
        annotations: that can be learned from, in the file's order.
        left_out: number of the others, by what is wrong with them.
    """

    annotations: tuple[Annotation, ...]
    left_out: Mapping[str, int]


def select_annotations(
    file: AnnotationFile,
    task: HeadName,
    *,
    answers: Collection[str] = (),
    split: str | None = None,
) -> Selection:
    """Choose the lines that a task can learn from.

    Args:
        file: the annotations.
        task: of the recipe.
        answers: qa: the vocabulary.
        split: take only the lines of this split, where the file has splits.

    Raises:
        AnnotationError: the file is for another task, it has no line of the split, none that can
            be learned from, or questions with different numbers of choices.
    """
    if task != file.task and not {task, file.task} <= _INTERCHANGEABLE:
        raise AnnotationError(file.path, f"is for {file.task}, the recipe is for {task}")
    annotations = of_split(file, split)
    known = frozenset(answers)
    kept: list[Annotation] = []
    left_out: Counter[str] = Counter()
    for annotation in annotations:
        wrong = _what_is_wrong(annotation, task, known)
        if wrong is None:
            kept.append(annotation)
        else:
            left_out[wrong] += 1
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise AnnotationError(file.path, f"has no line that {task} can learn from: {reasons}")
    if task == "multiple_choice":
        _check_choices(file, kept)
    return Selection(tuple(kept), dict(left_out))


def of_split(file: AnnotationFile, split: str | None) -> Sequence[Annotation]:
    """Return the lines of a split; all lines for None.

    Raises:
        AnnotationError: there are none.
    """
    if split is None:
        return file.annotations
    annotations = [each for each in file.annotations if each.split == split]
    if not annotations:
        raise AnnotationError(file.path, f"has no line of the split {split!r}")
    return annotations


def _what_is_wrong(annotation: Annotation, task: HeadName, answers: Collection[str]) -> str | None:
    if task == "qa":
        given = list(answers_of(annotation))
        if not given:
            return "without an answer"
        if not any(answer in answers for answer in given):
            return "with no answer of the vocabulary"
    if task == "multiple_choice" and annotation.right_choice is None:
        return "without a right choice"
    if task == "count" and annotation.count is None:
        return "without a number"
    return None


def _check_choices(file: AnnotationFile, annotations: Sequence[Annotation]) -> None:
    """Choices are compared in one batch, so that every question needs as many."""
    first = annotations[0]
    for annotation in annotations:
        if len(annotation.choices) != len(first.choices):
            reason = f"has {len(annotation.choices)} choices, line {first.line} has "
            raise AnnotationError(
                file.path,
                f"{reason}{len(first.choices)}: they must be as many",
                line=annotation.line,
            )
