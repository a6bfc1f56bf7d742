"""One annotation: a video and what somebody says about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Task = Literal["pretraining", "retrieval", "qa", "multiple_choice", "count"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One line of an annotation file: a video and what somebody says about it.

    Attributes:
        line: its number in the file, from 1; names it in errors, and is its id.
        video: name of the media file, without folder and extension.
        text: the caption or the question; empty in msrvtt_mc, whose choices are captions.
        answer: open-ended questions: the right answer.
        answer_scores: VQA: how right each answer is, 0 to 1.
        choices: multiple choice: what there is to choose from, at least two.
        right_choice: multiple choice: the index of the right one.
        count: counting questions: the right number.
        answer_type: group that accuracy is also given for, such as "object" or "yes/no".
        split: labels: the part of the data set that it belongs to, such as "train".
        start_seconds: labels: from where in the video it holds; None: from the beginning.
        end_seconds: labels: to where in the video it holds; None: to the end.
    """

    line: int
    video: str
    text: str
    answer: str | None = None
    answer_scores: Mapping[str, float] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    right_choice: int | None = None
    count: int | None = None
    answer_type: str | None = None
    split: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
