"""Labels put in: lines of our own form or of the paper's annotation files, each checked by itself.

The lines are read in chunks, so that their number costs no memory, and written in one transaction,
so that a client sees all of an import or nothing.
"""

import dataclasses
import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, cast
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from api.dependencies import Services
from api.errors import ApiError
from api.intake.batch_bodies import RawItem, read_lines
from api.schemas.labels import (
    MAX_CHOICES,
    MAX_LABEL_LENGTH,
    LabelsImported,
    NewLabel,
    RefusedLine,
)
from api.schemas.player_clock import take_span
from api.schemas.text import MAX_TEXT_LENGTH
from clipbert.datasets.annotation import Annotation
from clipbert.datasets.kinds import AnnotationKind, read_line, recognise_kind
from clipbert.datasets.line_fields import LineFields
from clipbert.datasets.same_answers import merge_counts
from clipbert.errors import AnnotationError
from policy.finetunes.data import contradictions, tell_contradictions
from policy.texts import Metadata
from store.errors import IllegalLabel
from store.labels import repository as stored
from store.labels.repository import LabelRepository
from store.table_base import Task
from store.videos.repository import VideoRepository

MAX_LISTED_LINES: Final = 100

# What other files call a line by.
_NAMES_ELSEWHERE: Final = ("id", "qid", "sen_id", "question_id", "answer_type")
_FIELDS: Final = frozenset(NewLabel.model_fields).union(_NAMES_ELSEWHERE)
_METADATA: Final = TypeAdapter(Metadata)
_CHUNK: Final = 2000  # as many as the store inserts at once
_MAX_LISTED_VIDEOS: Final = 3
_BODY: Final = Path("body")  # the annotation reader names its file in errors; we do not
# COCO's pictures are called by their number, and in its folders by a longer name.
_COCO_KINDS: Final = frozenset({"vqa", "captions"})
_COCO_NAMES: Final = ("COCO_train2014_{}", "COCO_val2014_{}", "COCO_test2015_{}")
_COCO_DIGITS: Final = 12


class OnRefused(StrEnum):
    """What a refused line does: `fail` the whole import, or be `skip`ped."""

    FAIL = "fail"
    SKIP = "skip"


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


@dataclass
class _Outcome:
    """What became of the lines so far."""

    num_lines: int = 0
    num_inserted: int = 0
    num_unchanged: int = 0
    num_refused: int = 0
    errors: list[RefusedLine] = field(default_factory=list)
    questions: set[tuple[UUID, str]] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)

    def refuse(self, line: int, error: IllegalLabel) -> None:
        self.num_refused += 1
        # A message may quote half of a surrogate pair, which no answer can carry.
        message = str(error).encode("utf-8", "backslashreplace").decode("utf-8")
        self.errors.append(RefusedLine(line=line, code=error.code, message=message))

    def keep_first_errors(self) -> None:
        """Forget all but the first; called after each chunk, whose errors come out of order."""
        self.errors.sort(key=lambda error: error.line)
        del self.errors[MAX_LISTED_LINES:]


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


def import_labels(
    services: Services, body: IO[bytes], *, reader: LabelReader, on_error: OnRefused
) -> LabelsImported:
    """Import the lines of a body in one transaction. Blocks.

    Raises:
        ApiError: 422 labels_refused: on_error is `fail` and lines were refused; nothing was kept.
    """
    outcome = _Outcome()
    lines = read_lines(body)
    with services.sessions.begin() as session:
        while chunk := list(islice(lines, _CHUNK)):
            outcome.num_lines += len(chunk)
            _import_chunk(session, list(_drafts(chunk, reader, outcome)), outcome)
            outcome.keep_first_errors()
        if outcome.num_refused and on_error is OnRefused.FAIL:
            raise _labels_refused(outcome)  # and leave the transaction by that
        warnings = _warnings(session, outcome)
    return LabelsImported(
        num_lines=outcome.num_lines,
        num_inserted=outcome.num_inserted,
        num_unchanged=outcome.num_unchanged,
        num_refused=outcome.num_refused,
        errors=outcome.errors,
        warnings=warnings,
    )


def add_label(session: Session, new: NewLabel) -> tuple[UUID, bool]:
    """Add one label.

    Returns:
        The id of the label that says this, and whether it is new.

    Raises:
        IllegalLabel: it cannot be; the code says why.
    """
    values = new.model_dump(mode="json", exclude={"provenance"})
    draft = LabelReader(kind="labels").read(1, values)
    label = dataclasses.replace(draft.label, provenance=new.provenance)
    labels = LabelRepository(session)
    found = labels.find_videos(draft.names)
    video_id = _one_video(draft, found)
    starts_at = VideoRepository(session).starts_at([video_id])
    added = labels.add_many([_of_video(label, video_id, starts_at)])
    for refused in added.refused:
        raise IllegalLabel(refused.code, refused.message)
    # The store gives an id to each label that it does not refuse.
    return cast("UUID", added.ids[0]), added.num_inserted == 1


def _drafts(
    chunk: Sequence[RawItem], reader: LabelReader, outcome: _Outcome
) -> Iterator[LabelDraft]:
    for raw in chunk:
        number = raw.line or raw.index + 1
        if raw.error is not None:
            outcome.refuse(number, IllegalLabel("invalid_json", raw.error))
            continue
        try:
            yield reader.read(number, raw.value)
        except IllegalLabel as error:
            outcome.refuse(number, error)


def _import_chunk(session: Session, drafts: Sequence[LabelDraft], outcome: _Outcome) -> None:
    labels = LabelRepository(session)
    found = labels.find_videos(sorted({name for draft in drafts for name in draft.names}))
    kept: list[LabelDraft] = []
    new: list[stored.NewLabel] = []
    starts_at = VideoRepository(session).starts_at({each for ids in found.values() for each in ids})
    for draft in drafts:
        try:
            new.append(_of_video(draft.label, _one_video(draft, found), starts_at))
        except IllegalLabel as error:
            outcome.refuse(draft.line, error)
        else:
            kept.append(draft)
    outcome.questions.update((label.video_id, _question_key(label.text)) for label in new)
    outcome.answers.update(label.answer for label in new if label.answer and not label.choices)
    added = labels.add_many(new)
    outcome.num_inserted += added.num_inserted
    outcome.num_unchanged += added.num_unchanged
    for refused in added.refused:
        draft = kept[refused.index]
        # The store knows videos by their ids; whoever reads this knows them by their names.
        sentence = f"{refused.message} (video {draft.names[0]!r})"
        outcome.refuse(draft.line, IllegalLabel(refused.code, sentence))


def _warnings(session: Session, outcome: _Outcome) -> list[str]:
    """Describe what may be wrong with labels that are right line by line."""
    found = []
    video_ids = {video_id for video_id, _ in outcome.questions}
    disputed = [
        each
        for each in contradictions(LabelRepository(session).disputed(video_ids))
        if (each.video_id, _question_key(each.text)) in outcome.questions
    ]
    if disputed:
        noun = "question has" if len(disputed) == 1 else "questions have"
        found.append(
            f"{len(disputed)} {noun} contradicting answers: {tell_contradictions(disputed)}"
        )
    merged = merge_counts(outcome.answers.items())
    if len(merged) == 1 and merged[0][1] > 1:
        found.append(
            f"all {merged[0][1]} open-ended questions of this import have the answer "
            f"{merged[0][0]!r}: a model needs at least two different ones"
        )
    return found


def _question_key(text: str) -> str:
    """Return what the store tells questions apart by; see LabelRepository.disputed."""
    return unicodedata.normalize("NFC", text).lower()


def _of_video(
    label: stored.NewLabel, video_id: UUID, starts_at: Mapping[UUID, float]
) -> stored.NewLabel:
    """Make a label one of a video; its moment was read off a player."""
    start, end = take_span(label.start_seconds, label.end_seconds, starts_at.get(video_id, 0.0))
    return dataclasses.replace(label, video_id=video_id, start_seconds=start, end_seconds=end)


def _one_video(draft: LabelDraft, found: dict[str, list[UUID]]) -> UUID:
    for name in draft.names:
        video_ids = found[name]
        if len(video_ids) == 1:
            return video_ids[0]
        if video_ids:
            listed = ", ".join(str(video_id) for video_id in video_ids[:_MAX_LISTED_VIDEOS])
            more = ", ..." if len(video_ids) > _MAX_LISTED_VIDEOS else ""
            raise IllegalLabel(
                "ambiguous_video",
                f"video: {name!r} may be any of {len(video_ids)} videos, an id cannot: "
                f"{listed}{more}",
            )
    raise IllegalLabel("unknown_video", f"video: no video is named {draft.names[0]!r}")


def _names(fields: LineFields, annotation: Annotation, kind: AnnotationKind) -> Sequence[str]:
    names = []
    written = fields.value("video") if kind == "labels" else None
    if isinstance(written, str):
        # An id, a URI or a name with its ending says more than the bare name.
        names.append(written)
    names.append(annotation.video)
    if kind in _COCO_KINDS and annotation.video.isdecimal():
        number = annotation.video.zfill(_COCO_DIGITS)
        names += [form.format(number) for form in _COCO_NAMES]
        names.append(str(int(number)))
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
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise IllegalLabel("invalid_label", f"provenance: {why}") from error


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


def _labels_refused(outcome: _Outcome) -> ApiError:
    first = outcome.errors[0]
    if outcome.num_refused == outcome.num_lines > 1 and all(
        error.code == "invalid_json" for error in outcome.errors
    ):
        return ApiError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "labels_refused",
            f"none of the {outcome.num_lines} lines is JSON, so nothing was kept: labels are lines "
            'such as {"video": "dog.mp4", "question": "what is it?", "answer": "a dog"}, tables '
            "(CSV) are not read",
            facts={"num_lines": outcome.num_lines, "num_refused": outcome.num_refused},
        )
    lines = "line is" if outcome.num_refused == 1 else "lines are"
    return ApiError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "labels_refused",
        f"{outcome.num_refused} {lines} refused, so nothing was kept; "
        f"line {first.line}: {first.message}",
        errors=[error.model_dump() for error in outcome.errors],
        facts={"num_lines": outcome.num_lines, "num_refused": outcome.num_refused},
    )


_TASKS: Final = {
    "qa": Task.QA,
    "count": Task.QA,  # the number is the answer
    "multiple_choice": Task.MULTIPLE_CHOICE,
    "retrieval": Task.RETRIEVAL,
    "pretraining": Task.RETRIEVAL,  # COCO's and Visual Genome's captions
}
