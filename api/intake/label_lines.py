"""Lines of labels, of our own form or of the paper's annotation files, read as drafts of labels."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from api.schemas.labels import MAX_LABEL_LENGTH, NewLabel
from api.schemas.text import MAX_CHOICES, MAX_TEXT_LENGTH
from clipbert.datasets.annotation import Annotation
from clipbert.datasets.equal_choices import equal_choices_of
from clipbert.datasets.kinds import AnnotationKind, read_line, recognise_kind
from clipbert.datasets.line_fields import LineFields
from clipbert.datasets.video_references import split_ending
from clipbert.errors import AnnotationError
from policy.field_errors import field_errors
from policy.texts import Metadata
from store.errors import IllegalLabel
from store.labels import repository as stored
from store.table_base import Task

# What other files call a line by.
_NAMES_ELSEWHERE: Final = ("id", "qid", "sen_id", "question_id", "answer_type")
_FIELDS: Final = frozenset(NewLabel.model_fields).union(_NAMES_ELSEWHERE)
_METADATA: Final = TypeAdapter(Metadata)
_BODY: Final = Path("body")  # the annotation reader names its file in errors; we do not
# COCO's pictures are called by their number, and in its folders by a longer name.
_COCO_KINDS: Final = frozenset({"vqa", "captions"})
_COCO_NAMES: Final = ("COCO_train2014_{}", "COCO_val2014_{}", "COCO_test2015_{}")
_COCO_DIGITS: Final = 12
_TASKS: Final = {
    "qa": Task.QA,
    "count": Task.QA,  # the number is the answer
    "multiple_choice": Task.MULTIPLE_CHOICE,
    "retrieval": Task.RETRIEVAL,
    "pretraining": Task.RETRIEVAL,  # COCO's and Visual Genome's captions
}


@dataclass(frozen=True)
class LabelDraft:
    """A label that was read, and whose video is still a name.

    Attributes:
        line: number of its line.
        names: what the video may be called, the likeliest first.
        label: the rest of it; its video_id counts for nothing.
    """

    line: int
    names: Sequence[str]
    label: stored.NewLabel


class LabelReader:
    """Turns lines of one import into drafts of labels.

    Args:
        kind: the form of the lines; None: told from the first line whose fields tell it.
        split: of lines that have none.
        source: of lines that have none.
    """

    def __init__(
        self,
        *,
        kind: AnnotationKind | None = None,
        split: str | None = None,
        source: str | None = None,
    ) -> None:
        self._kind = kind
        self._split, self._source = split, source

    def read(self, number: int, values: object) -> LabelDraft:
        """Read a line.

        Args:
            number: of the line, from 1.
            values: what its JSON says.

        Raises:
            IllegalLabel: it is none; the sentence names the field.
        """
        if not isinstance(values, dict):
            raise IllegalLabel("invalid_label", "the line is not a JSON object")
        fields = LineFields(_BODY, number, values)
        try:
            if self._kind is None:
                self._kind = recognise_kind(fields)
            if self._kind == "labels":
                _check_names(fields)  # first: a misspelt field is also one that is missing
            annotation, task = read_line(fields, self._kind)
        except AnnotationError as error:
            sentence = error.reason if error.field is None else f"{error.field} {error.reason}"
            raise IllegalLabel("invalid_label", sentence) from error
        except RecursionError as error:
            raise IllegalLabel("invalid_label", "the line is nested too deeply") from error
        doubt = equal_choices_of(annotation, self._kind)
        if doubt is not None:
            raise IllegalLabel("invalid_label", doubt)
        text, answer, provenance = annotation.text, annotation.answer, _provenance(fields)
        if self._kind == "msrvtt_mc":
            text = "which of these captions fits?"  # its lines have no question
        elif self._kind == "tgif_count":
            answer = str(annotation.count)
        elif self._kind == "vqa":
            answer = _best_answer(annotation)
            provenance["answer_scores"] = dict(annotation.answer_scores)
        if self._kind == "labels":
            provenance |= _given_provenance(fields)
        else:
            provenance |= {"kind": self._kind, "line": number}
        label = stored.NewLabel(
            video_id=UUID(int=0),
            task=_TASKS[task],
            text=text,
            answer=answer,
            choices=annotation.choices,
            right_choice=annotation.right_choice,
            start_seconds=annotation.start_seconds,
            end_seconds=annotation.end_seconds,
            split=annotation.split or self._split,
            source=_source(fields) or self._source,
            provenance=provenance,
        )
        _check_lengths(label)
        return LabelDraft(number, _names(fields, annotation, self._kind), label)


def _names(fields: LineFields, annotation: Annotation, kind: AnnotationKind) -> Sequence[str]:
    names = [annotation.video]
    stem, ending = split_ending(annotation.video)
    if kind in _COCO_KINDS and stem.isdecimal():
        number = stem.zfill(_COCO_DIGITS)
        names += [form.format(number) + ending for form in _COCO_NAMES]
        names.append(str(int(number)) + ending)
    return list(dict.fromkeys(names))


def _source(fields: LineFields) -> str | None:
    try:
        source = fields.optional_text("source")
    except AnnotationError:
        return None  # in the paper's files a field of this name may be anything
    return None if source is None else source[:MAX_TEXT_LENGTH]


def _check_names(fields: LineFields) -> None:
    """Refuse what a line of our own form does not have: a typing error would be lost silently."""
    for name in sorted(fields.names - _FIELDS):
        nearest = difflib.get_close_matches(name, _FIELDS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "provenance may hold anything"
        raise IllegalLabel("unknown_label_field", f"a label has no field {name!r}: {hint}")


def _given_provenance(fields: LineFields) -> dict[str, Any]:
    if "provenance" not in fields:
        return {}
    try:
        return _METADATA.validate_python(fields.value("provenance"))
    except ValidationError as error:
        (wrong, *_) = field_errors(error.errors())
        raise IllegalLabel("invalid_label", f"provenance: {wrong.message}") from error


def _provenance(fields: LineFields) -> dict[str, Any]:
    """Keep what other files call a line by, so that it is found there again."""
    kept: dict[str, Any] = {}
    for name in _NAMES_ELSEWHERE:
        value = fields.value(name) if name in fields else None
        if isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_TEXT_LENGTH):
            kept[name] = value
    return kept


def _best_answer(annotation: Annotation) -> str:
    """Take the answer that most of VQA's people gave: a label has one."""
    scores = annotation.answer_scores
    best = max(scores, key=lambda answer: scores[answer], default=None)
    if best is None or scores[best] <= 0:
        raise IllegalLabel("invalid_label", "labels has no answer that anybody gave")
    return best


def _check_lengths(label: stored.NewLabel) -> None:
    texts = [("the answer", label.answer or ""), ("the split", label.split or "")]
    texts += [("a choice", choice) for choice in label.choices]
    limits = [("the text", label.text, MAX_LABEL_LENGTH)]
    limits += [(name, text, MAX_TEXT_LENGTH) for name, text in texts]
    for name, text, most in limits:
        if len(text) > most:
            raise IllegalLabel("invalid_label", f"{name} is longer than {most} characters")
    if len(label.choices) > MAX_CHOICES:
        raise IllegalLabel("invalid_label", f"there are more than {MAX_CHOICES} choices")
