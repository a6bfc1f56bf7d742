"""The baseline of questions that looks at nothing; needs no torch, which takes seconds to load."""

from pathlib import Path
from typing import Final

from clipbert.datasets.annotation_files import read_annotations
from clipbert.datasets.answers import answer_vocabulary, answers_of, in_words_of
from clipbert.datasets.selection import of_split
from clipbert.errors import AnnotationError
from clipbert.evaluation.line_scores import Scores, check_task

TRAINING_SPLIT: Final = "train"


def score_majority(data: Path, *, split: str | None, training: Path | None = None) -> Scores:
    """Answer every question with the most frequent answer of a training split.

    Args:
        data: annotation file with the questions.
        split: of it; None takes all lines.
        training: annotation file with the training split; None is the same one.

    Raises:
        AnnotationError: a file cannot be read, has no line of its split, or no answers.
    """
    file, learned = read_annotations(data), training or data
    check_task(file, "qa")
    answers = answer_vocabulary(of_split(read_annotations(learned), TRAINING_SPLIT), max_answers=1)
    if not answers:
        raise AnnotationError(learned, f"has no answers in the split {TRAINING_SPLIT!r}")
    scores = {
        each.line: each.answer_scores.get(answers[0], float(answers[0] in answers_of(each)))
        for each in in_words_of(of_split(file, split), answers)
    }
    return Scores("qa", scores, {}, {}, None)
