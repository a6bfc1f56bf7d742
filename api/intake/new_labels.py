"""Labels put in: one, or the lines of an import, each checked by itself.

The lines are read in chunks, so that their number costs no memory, and written in one transaction,
so that a client sees all of an import or nothing.
"""

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from itertools import islice
from typing import IO, Final, cast
from uuid import UUID

from sqlalchemy.orm import Session

from api.dependencies import Services
from api.errors import ApiError
from api.intake.batch_bodies import RawItem, read_lines
from api.intake.label_lines import LabelDraft, LabelReader
from api.schemas.labels import LabelsImported, NewLabel, RefusedLine
from api.schemas.player_clock import take_span
from clipbert.datasets.same_answers import merge_counts, untrained_answers
from policy.finetunes.data import contradictions, describe_contradictions, describe_untrained
from policy.video_references import (
    describe_ambiguous,
    describe_superseded,
    describe_unknown,
    find_videos,
)
from store.errors import IllegalLabel
from store.labels import repository as stored
from store.labels.repository import COMPARED_CHARACTERS, LabelRepository
from store.videos.names import NamedVideo
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState

MAX_LISTED_LINES: Final = 100

_MOST_SUPERSEDED: Final = 3
_MOST_ANSWERS: Final = 5000  # that are compared, each a look into an index
_CHUNK: Final = 2000  # as many as the store inserts at once


class OnRefused(StrEnum):
    """What a refused line does: `fail` the whole import, or be `skip`ped."""

    FAIL = "fail"
    SKIP = "skip"


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
    superseded: dict[UUID, NamedVideo] = field(default_factory=dict)

    def refuse(self, line: int, error: IllegalLabel) -> None:
        self.num_refused += 1
        # A message may quote half of a surrogate pair, which no answer can carry.
        message = str(error).encode("utf-8", "backslashreplace").decode("utf-8")
        self.errors.append(RefusedLine(line=line, code=error.code, message=message))

    def keep_first_errors(self) -> None:
        """Forget all but the first; called after each chunk, whose errors come out of order."""
        self.errors.sort(key=lambda error: error.line)
        del self.errors[MAX_LISTED_LINES:]


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
    video = _one_video(draft, find_videos(session, draft.names))
    starts_at = VideoRepository(session).starts_at([video.id])
    added = labels.add_many([_of_video(label, video.id, starts_at)])
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
    found = find_videos(session, sorted({name for draft in drafts for name in draft.names}))
    kept: list[LabelDraft] = []
    new: list[stored.NewLabel] = []
    video_ids = {video.id for videos in found.values() for video in videos}
    starts_at = VideoRepository(session).starts_at(video_ids)
    for draft in drafts:
        try:
            video = _one_video(draft, found)
            new.append(_of_video(draft.label, video.id, starts_at))
        except IllegalLabel as error:
            outcome.refuse(draft.line, error)
        else:
            kept.append(draft)
            if video.state == VideoState.SUPERSEDED:
                outcome.superseded[video.id] = video
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
            f"{len(disputed)} {noun} contradicting answers: {describe_contradictions(disputed)}"
        )
    merged = merge_counts(outcome.answers.items())
    if len(merged) == 1 and merged[0][1] > 1:
        found.append(
            f"all {merged[0][1]} open-ended questions of this import have the answer "
            f"{merged[0][0]!r}: a model needs at least two different ones"
        )
    superseded = list(outcome.superseded.values())
    found += map(describe_superseded, superseded[:_MOST_SUPERSEDED])
    if len(superseded) > _MOST_SUPERSEDED:
        found.append(f"and {len(superseded) - _MOST_SUPERSEDED} more videos were superseded")
    return [*found, *_untrained(session, video_ids)]


def _untrained(session: Session, video_ids: Collection[UUID]) -> Iterator[str]:
    """Describe the answers about held-out videos of an import that no label to train from has."""
    labels = LabelRepository(session)
    held_out = labels.held_out_answers(video_ids)
    trained = labels.trained_answers(most=_MOST_ANSWERS) if held_out else ()
    # Without any, the labels to train from are still to come.
    if 0 < len(trained) < _MOST_ANSWERS:
        missed = untrained_answers(
            ((answer[:COMPARED_CHARACTERS], count) for answer, count in held_out), trained
        )
        if missed:
            yield describe_untrained(missed, sum(count for _, count in held_out))


def _question_key(text: str) -> str:
    """Return what the store tells questions apart by; see LabelRepository.disputed."""
    return unicodedata.normalize("NFC", text).lower()


def _of_video(
    label: stored.NewLabel, video_id: UUID, starts_at: Mapping[UUID, float]
) -> stored.NewLabel:
    """Make a label one of a video; its moment was read off a player."""
    start, end = take_span(
        label.start_seconds, label.end_seconds, starts_at_seconds=starts_at.get(video_id, 0.0)
    )
    return dataclasses.replace(label, video_id=video_id, start_seconds=start, end_seconds=end)


def _one_video(draft: LabelDraft, found: Mapping[str, Sequence[NamedVideo]]) -> NamedVideo:
    for name in draft.names:
        videos = found[name]
        if len(videos) == 1:
            return videos[0]
        if videos:
            raise IllegalLabel("ambiguous_video", f"video: {describe_ambiguous(name, videos)}")
    raise IllegalLabel("unknown_video", f"video: {describe_unknown(draft.names[0])}")


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
