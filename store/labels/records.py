"""What goes into a label, checked, and on which side of the split its video falls."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn
from uuid import UUID

from store.errors import IllegalLabel
from store.labels.tables import Label, Split
from store.table_base import Task
from store.texts import can_be_stored

LABEL_TASKS = (Task.QA, Task.MULTIPLE_CHOICE, Task.RETRIEVAL)
"""The tasks that labels teach."""

HOLDOUT_SHARE = 0.2
"""How much of the videos goes to the holdout where nobody says otherwise."""


# As data sets call them. To measure on what others call validation or test is the same to us.
_SPLITS: Mapping[str, Split] = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "holdout": Split.HOLDOUT,
    "validation": Split.HOLDOUT,
    "val": Split.HOLDOUT,
    "dev": Split.HOLDOUT,
    "test": Split.HOLDOUT,
}


@dataclass(frozen=True)
class NewLabel:
    """A label to add.

    Attributes:
        video_id: whom it is about.
        task: `qa`, `multiple_choice` or `retrieval`.
        text: the question; of retrieval the caption.
        answer: of qa; of multiple choice the right choice, unless right_choice says it.
        choices: of multiple choice, at least two.
        right_choice: index of the right one.
        start_seconds: where the moment it speaks of begins; None is the start of the video.
        end_seconds: where that ends; None is the end of the video.
        split: `train` or `holdout`, or what data sets call these; None takes the video's, or that
            which `default_split` gives.
        source: who or what said it, as people call it.
        provenance: JSON; where exactly it comes from.
    """

    video_id: UUID
    task: str
    text: str
    answer: str | None = None
    choices: tuple[str, ...] = ()
    right_choice: int | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    split: str | None = None
    source: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelRefused:
    """A label that was not added.

    Attributes:
        index: its place among the new ones, from 0.
        code: as IllegalLabel has it.
        message: the same as a sentence.
    """

    index: int
    code: str
    message: str


@dataclass(frozen=True)
class LabelsAdded:
    """What became of new labels.

    Attributes:
        ids: one for each new label, in order: of the label that now says this, new or not; None for
            a refused one.
        num_inserted: how many are new.
        num_unchanged: how many were there already.
        refused: the others, by index.
    """

    ids: Sequence[UUID | None]
    num_inserted: int
    num_unchanged: int
    refused: Sequence[LabelRefused]


@dataclass(frozen=True)
class DisputedQuestion:
    """A question about one moment of a video to which labels give several answers.

    Attributes:
        video_id: the video.
        text: the question.
        answers: as they were typed; some may differ in spelling alone.
    """

    video_id: UUID
    text: str
    answers: Sequence[str]


def parse_split(name: str) -> Split:
    """Read the name of a split, also as data sets call it: `val` is the holdout.

    Raises:
        IllegalLabel: it is none.
    """
    split = _SPLITS.get(name.strip().lower())
    if split is None:
        raise IllegalLabel("invalid_split", f"{name!r} is not a split: say train or holdout")
    return split


def default_split(video_sha256: str) -> Split:
    """Choose the split of a video from its content, the same on every day and every machine.

    Args:
        video_sha256: of its file, as hex digits.
    """
    digest = hashlib.sha256(f"{video_sha256}split".encode()).digest()
    fraction = int.from_bytes(digest[:8]) / 2**64
    return Split.HOLDOUT if fraction < HOLDOUT_SHARE else Split.TRAIN


def checked(new: NewLabel) -> dict[str, Any]:
    """Check a new label on its own and give the columns of its row; the split is not settled yet.

    Raises:
        IllegalLabel: it cannot say this.
    """
    try:
        task = Task(new.task)
    except ValueError:
        task = Task.RECALL
    if task not in LABEL_TASKS:
        _refuse(f"{new.task!r} is not a task of labels: say {', '.join(LABEL_TASKS)}")
    columns: dict[str, Any] = {
        "video_id": new.video_id,
        "task": task,
        "text": _said("the text", new.text),
        "answer": None,
        "choices": [_said("a choice", choice) for choice in new.choices],
        "right_choice": None,
        "start_seconds": new.start_seconds,
        "end_seconds": new.end_seconds,
        "source": None if new.source is None else _said("the source", new.source),
        "provenance": dict(new.provenance),
        "split": None if new.split is None else parse_split(new.split),
    }
    if task == Task.MULTIPLE_CHOICE:
        columns["right_choice"] = _right_choice(new, columns["choices"])
        columns["answer"] = columns["choices"][columns["right_choice"]]
    elif new.choices or new.right_choice is not None:
        _refuse(f"choices belong to multiple_choice, not to {task}")
    elif task == Task.QA:
        columns["answer"] = _said("the answer", new.answer)
    elif new.answer is not None:
        _refuse(f"an answer belongs to qa, not to {task}")
    _check_span(new.start_seconds, new.end_seconds)
    _check_json(columns["provenance"])
    return columns | {"content_sha256": content_sha256(columns)}


def content_sha256(columns: Mapping[str, Any]) -> str:
    """Hash what a label says: two with the same hash are the same label, whoever said it."""
    said = ("task", "text", "answer", "choices", "right_choice", "start_seconds", "end_seconds")
    content = [str(columns["video_id"]), *(columns[name] for name in said)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def to_new(label: Label) -> NewLabel:
    """Return what a label says as if it were to be added."""
    return NewLabel(
        video_id=label.video_id,
        task=label.task,
        text=label.text,
        answer=label.answer,
        choices=tuple(label.choices),
        right_choice=label.right_choice,
        start_seconds=label.start_seconds,
        end_seconds=label.end_seconds,
        split=label.split,
        source=label.source,
        provenance=label.provenance,
    )


def _right_choice(new: NewLabel, choices: Sequence[str]) -> int:
    if len(choices) < 2:  # noqa: PLR2004 - one choice is none
        _refuse("multiple_choice needs at least two choices")
    index = new.right_choice
    if index is None:
        answer = _said("the answer", new.answer)
        if answer not in choices:
            _refuse(f"the answer {answer!r} is none of the choices")
        return choices.index(answer)
    if not 0 <= index < len(choices):
        _refuse(f"there is no choice {index}: they are numbered 0 to {len(choices) - 1}")
    if new.answer is not None and new.answer.strip() != choices[index]:
        _refuse(f"the answer {new.answer!r} is not choice {index}, {choices[index]!r}")
    return index


def _said(what: str, text: str | None) -> str:
    stripped = "" if text is None else text.strip()
    if not stripped:
        _refuse(f"{what} is missing")
    if not can_be_stored(stripped):
        _refuse(f"{what} holds a character that is none")
    return stripped


def _check_span(start_seconds: float | None, end_seconds: float | None) -> None:
    start = 0.0 if start_seconds is None else start_seconds
    if not (math.isfinite(start) and start >= 0):
        raise IllegalLabel("invalid_span", f"a span cannot start at {start} s")
    if end_seconds is not None and not (math.isfinite(end_seconds) and end_seconds > start):
        raise IllegalLabel(
            "invalid_span", f"a span that starts at {start} s cannot end at {end_seconds} s"
        )


def _check_json(provenance: Mapping[str, Any]) -> None:
    try:
        encoded = json.dumps(provenance, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise IllegalLabel("invalid_label", f"the provenance is not JSON: {error}") from error
    if b"\\u0000" in encoded:
        _refuse("the provenance holds a character that is none")


def _refuse(message: str) -> NoReturn:
    raise IllegalLabel("invalid_label", message)
