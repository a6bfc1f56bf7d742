"""Answer vocabularies: what an open-ended question may be answered with."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from clipbert.datasets.annotation import Annotation
from clipbert.datasets.same_answers import SameAnswers, Vocabulary, merge_counts
from clipbert.errors import AnnotationError


def answer_vocabulary(
    annotations: Iterable[Annotation],
    *,
    min_count: int = 1,
    max_answers: int | None = None,
    same: SameAnswers = "folded",
) -> tuple[str, ...]:
    """Collect the answers of a data set, the most frequent first.

    Args:
        annotations: of open-ended questions. Of soft labels (VQA), each answer counts once.
        min_count: leaves out answers that fewer annotations give, at least 1.
        max_answers: keeps so many, at least 1; None keeps all.
        same: which answers are one; it is shown in the form most used.

    Returns:
        The answers by falling count, those of one count in the order of their characters. An
        answer's place is the output of the head that stands for it.

    Raises:
        ValueError: min_count or max_answers is below 1.
    """
    if min_count < 1 or (max_answers is not None and max_answers < 1):
        raise ValueError(f"need at least 1, got {min_count=} and {max_answers=}")
    counts = Counter(answer for annotation in annotations for answer in answers_of(annotation))
    ranked = merge_counts(counts.items(), same=same)
    return tuple(answer for answer, count in ranked[:max_answers] if count >= min_count)


def in_words_of(
    annotations: Iterable[Annotation], answers: Sequence[str], *, same: SameAnswers = "folded"
) -> tuple[Annotation, ...]:
    """Put the answers of annotations into the words of a vocabulary.

    Args:
        annotations: of open-ended questions.
        answers: the vocabulary.
        same: which answers are one.

    Returns:
        The annotations; answers that the vocabulary has in no form are left as they are.
    """
    vocabulary = Vocabulary(answers, same=same)
    return tuple(_translated(annotation, vocabulary) for annotation in annotations)


def _translated(annotation: Annotation, vocabulary: Vocabulary) -> Annotation:
    answer, scores = annotation.answer, annotation.answer_scores
    if answer is not None:
        answer = vocabulary.in_its_words(answer)
    if scores:
        scores = vocabulary.scores_in_its_words(scores)
    if answer == annotation.answer and scores == annotation.answer_scores:
        return annotation
    return dataclasses.replace(annotation, answer=answer, answer_scores=scores)


def answers_of(annotation: Annotation) -> Iterator[str]:
    """Return the right answers of an annotation: one, several (VQA), or none (VQA's test split)."""
    if annotation.answer is not None:
        yield annotation.answer
    yield from annotation.answer_scores


def count_unknown_answers(
    annotations: Iterable[Annotation], answers: Sequence[str], *, same: SameAnswers = "folded"
) -> Counter[str]:
    """Count the answers that a vocabulary lacks.

    Args:
        annotations: of open-ended questions.
        answers: the vocabulary.
        same: which answers are one.

    Returns:
        Answer -> number of annotations that give it, most frequent first by `most_common()`.
    """
    vocabulary = Vocabulary(answers, same=same)
    return Counter(
        answer
        for annotation in annotations
        for answer in answers_of(annotation)
        if vocabulary.find(answer) is None
    )


def read_answer_labels(path: Path) -> tuple[str, ...]:
    """Read an ans2label file: one JSON object, answer -> label, the labels being 0 to A - 1.

    Args:
        path: JSON in UTF-8, as the paper's data sets have it (`train_ans2label.json`).

    Returns:
        The answers in the order of their labels, (A,).

    Raises:
        AnnotationError: the file cannot be read, an answer or a label stands twice, or a label is
            missing or no whole number; the error's field is the answer.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        pairs = json.loads(text, object_pairs_hook=tuple)
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise AnnotationError(path, f"is not JSON in UTF-8: {error}") from error
    # An object comes as a tuple, a list as a list.
    if not isinstance(pairs, tuple) or not pairs:
        raise AnnotationError(path, "is not a JSON object with answers")
    answers: dict[int, str] = {}
    for answer, label in pairs:
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(pairs):
            reason = f"must have a label from 0 to {len(pairs) - 1}, has {json.dumps(label)}"
            raise AnnotationError(path, reason, field=answer)
        if label in answers:
            reason = f"has the label {label}, and so has {answers[label]}"
            raise AnnotationError(path, reason, field=answer)
        answers[label] = answer
    if len(set(answers.values())) < len(answers):
        (answer, _), *_ = Counter(answers.values()).most_common(1)
        raise AnnotationError(path, "stands there twice", field=answer)
    # As many labels as answers, none twice, none too high: none is missing.
    return tuple(answers[label] for label in range(len(answers)))
