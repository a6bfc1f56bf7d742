"""Choose how an annotation file is put to a model: which head, which texts."""

from collections.abc import Sequence

from clipbert.datasets.annotation_files import Annotation, AnnotationFile
from clipbert.datasets.answers import in_words_of
from clipbert.errors import AnnotationError, MissingHead
from clipbert.evaluation.evaluators import (
    AnswerEvaluator,
    ChoiceEvaluator,
    CountEvaluator,
    Evaluator,
    RetrievalEvaluator,
    right_answers,
)
from clipbert.model.config import ClipBertConfig
from clipbert.model.head_names import HeadName


def build_evaluator(
    file: AnnotationFile,
    *,
    config: ClipBertConfig,
    task: HeadName | None = None,
    split: str | None = None,
    limit: int | None = None,
    authors_rounding: bool = False,
) -> Evaluator:
    """Choose how an annotation file is put to a model.

    Multiple choice goes through the multiple-choice head where the annotations ask a question,
    and through the retrieval head where they do not (MSRVTT-MC, whose choices are captions); a
    head that was trained is preferred to one that was not.

    Args:
        file: the annotations.
        config: of the model.
        task: what to evaluate, if not the file's own task: captions for pretraining can be
            evaluated as retrieval.
        split: take only the lines of this split.
        limit: take only so many lines, the first ones; at least 1.
        authors_rounding: retrieval only; see clipbert.evaluation.metrics.

    Raises:
        AnnotationError: the task is pretraining, a line does not say what is right, or there is
            no line of the split.
        MissingHead: the model has no head for the task.
    """
    task = task or file.task
    annotations = file.annotations
    if split is not None:
        annotations = tuple(each for each in annotations if each.split == split)
    annotations = annotations[:limit]
    _check(file, task, annotations)
    how = config.aggregation
    if task == "retrieval":
        _require(config, "retrieval")
        return RetrievalEvaluator(annotations, how=how, authors_rounding=authors_rounding)
    if task == "multiple_choice":
        has_questions = any(each.text for each in annotations)
        head = _choice_head(config, has_questions=has_questions)
        return ChoiceEvaluator(annotations, how=how, head=head)
    if task == "count":
        _require(config, "count")
        return CountEvaluator(annotations, how=how)
    _require(config, "qa")
    return AnswerEvaluator(
        in_words_of(annotations, config.answers), how=how, answers=config.answers
    )


def _check(file: AnnotationFile, task: HeadName, annotations: Sequence[Annotation]) -> None:
    if task == "pretraining":
        raise AnnotationError(file.path, "is for pretraining: evaluate it as retrieval")
    if not annotations:
        raise AnnotationError(file.path, "has no line of the split")
    # A question on whose answer nobody agreed has no labels in VQA, and any answer scores 0; a file
    # in which none has any is a test split.
    may_lack = file.kind == "vqa" and any(_says_what_is_right(each, task) for each in annotations)
    for each in annotations:
        if not may_lack and not _says_what_is_right(each, task):
            reason = f"does not say what is right, as {task} needs"
            raise AnnotationError(file.path, reason, line=each.line)


def _says_what_is_right(annotation: Annotation, task: HeadName) -> bool:
    if task == "retrieval":
        return bool(annotation.text)
    if task == "multiple_choice":
        return annotation.right_choice is not None
    if task == "count":
        return annotation.count is not None
    return bool(right_answers(annotation))


def _choice_head(config: ClipBertConfig, *, has_questions: bool) -> HeadName:
    wanted: tuple[HeadName, ...] = ("multiple_choice", "retrieval")
    if not has_questions:
        wanted = wanted[::-1]
    there = [name for name in wanted if config.head(name) is not None]
    if not there:
        raise MissingHead(" or ".join(wanted))
    return next((name for name in there if name in config.trained_heads), there[0])


def _require(config: ClipBertConfig, head: HeadName) -> None:
    if config.head(head) is None:
        raise MissingHead(head)
