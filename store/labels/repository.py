"""Labels: what people say is true of videos, added one by one or by the ten thousand.

    labels.add_many([NewLabel(video_id, "qa", "What colour is the ball?", answer="red")])

A label says the same thing once: adding it again changes nothing. The first label of a video
settles the video's split, so that what a model learnt from never stands in what it is measured on.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, cast, func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.bounded_lists import newest
from store.errors import IllegalLabel, LabelNotFound
from store.labels.additions import (
    add_labels,
    check_video,
    hold_videos,
    record_revision,
    split_conflict,
)
from store.labels.filters import LabelFilter
from store.labels.records import (
    DisputedQuestion,
    LabelRefused,
    LabelsAdded,
    NewLabel,
    checked,
    default_split,
    parse_split,
    to_new,
)
from store.labels.tables import Label, LabelAction, LabelRevision, Split
from store.pages import Page, PageTokens, clamp_page_size
from store.table_base import Task

__all__ = [
    "LabelFilter",
    "LabelRefused",
    "LabelRepository",
    "LabelsAdded",
    "NewLabel",
    "default_split",
    "parse_split",
]

CHUNK = 2000
"""Rows that are in memory at once."""

WINDOW = 4000
"""Labels that are looked through at once for a page of a list."""

_DISPUTED = """
SELECT video_id, min(text), array_agg(DISTINCT answer)
FROM labels
WHERE video_id = ANY(CAST(:video_ids AS uuid[])) AND deleted_at IS NULL AND answer IS NOT NULL
GROUP BY video_id, lower(normalize(text)), start_seconds, end_seconds, choices
HAVING count(DISTINCT answer) > 1
ORDER BY video_id, 2
"""

COMPARED_CHARACTERS = 200
"""Of an answer; an index takes no long ones."""

# From each answer to the next by the index, over however many labels have the same one.
_TRAINED_ANSWERS = """
WITH RECURSIVE trained AS (
    (SELECT left(answer, 200) AS answer FROM labels
     WHERE task = 'qa' AND split = 'train' AND deleted_at IS NULL ORDER BY 1 LIMIT 1)
    UNION ALL
    SELECT (SELECT left(answer, 200) FROM labels
            WHERE task = 'qa' AND split = 'train' AND deleted_at IS NULL
            AND left(answer, 200) > trained.answer ORDER BY 1 LIMIT 1)
    FROM trained WHERE trained.answer IS NOT NULL
)
SELECT answer FROM trained WHERE answer IS NOT NULL LIMIT :most
"""

_COUNTS = """
SELECT video_id, count(*) FROM labels
WHERE video_id = ANY(CAST(:video_ids AS uuid[])) AND deleted_at IS NULL
GROUP BY video_id
"""

EDITABLE = (
    "text",
    "answer",
    "choices",
    "right_choice",
    "start_seconds",
    "end_seconds",
    "split",
    "source",
    "provenance",
)
"""What an edit may change; who means another video or task adds another label."""


class LabelRepository:
    """Every query about labels.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def add_many(self, new: Sequence[NewLabel]) -> LabelsAdded:
        """Add labels, but for those that are there already and those that cannot be.

        An import of many holds up other imports of many until the transaction ends, since two that
        meet the same videos in another order would wait for each other for ever. So the lines
        should be at hand before the transaction begins.

        Args:
            new: of any number.
        """
        return add_labels(self._session, new)

    def get(self, label_id: UUID) -> Label:
        """Get a label as it is now.

        Raises:
            LabelNotFound: there is none with this id, or it was deleted.
        """
        query = select(Label).where(Label.id == label_id, Label.deleted_at.is_(None))
        label = self._session.scalar(query.execution_options(populate_existing=True))
        if label is None:
            raise LabelNotFound(label_id)
        return label

    def edit(self, label_id: UUID, changes: Mapping[str, Any], by: str | None = None) -> Label:
        """Change what a label says; what it said before is kept.

        Of multiple choice, `answer` or `right_choice` is enough: the other follows.

        Args:
            label_id: the label.
            changes: by name, of those in EDITABLE; None takes away.
            by: who changes it, as people call them.

        Returns:
            The label as it is now; if nothing changes, it is still the same revision.

        Raises:
            LabelNotFound: there is none with this id, or it was deleted.
            IllegalLabel: it cannot say this.
        """
        label = self._lock(label_id)
        columns = checked(_changed(label, changes))
        split = columns.pop("split") or label.split
        if split != label.split:
            raise split_conflict(label.split)
        check_video(columns, hold_videos(self._session, [label.video_id]))
        if all(getattr(label, name) == value for name, value in columns.items()):
            return label
        try:
            with self._session.begin_nested():
                self._change(label, LabelAction.EDITED, by, **columns)
        except IntegrityError as error:
            raise IllegalLabel("duplicate", "another label says exactly this") from error
        return self.get(label_id)

    def delete(self, label_id: UUID, by: str | None = None) -> None:
        """Take a label away; its history and the data sets with a copy of it stay.

        Args:
            label_id: the label.
            by: who deletes it, as people call them.

        Raises:
            LabelNotFound: there is none with this id, or it was deleted before.
        """
        self._change(self._lock(label_id), LabelAction.DELETED, by, deleted_at=func.now())

    def history(self, label_id: UUID) -> Sequence[LabelRevision]:
        """List what a label has said, the oldest first; also of a deleted one.

        Raises:
            LabelNotFound: there has never been one with this id, or its video was deleted.
        """
        query = select(LabelRevision).where(LabelRevision.label_id == label_id)
        revisions = self._session.scalars(query.order_by(LabelRevision.revision)).all()
        if not revisions:
            raise LabelNotFound(label_id)
        return revisions

    def list(
        self,
        *,
        page_size: int = 50,
        page_token: str | None = None,
        filter: LabelFilter | None = None,
    ) -> Page[Label]:
        """List labels, the newest first.

        Under filters that many labels meet, but few of the newest, a page may be short, or have
        nothing, and not be the last: see store/bounded_lists.py.

        Raises:
            InvalidPageToken: page_token is not one of ours.
            ValueError: page_size is below 1.
        """
        wanted = filter or LabelFilter()
        size, tokens = clamp_page_size(page_size), PageTokens("labels", filter=wanted.to_json())
        before = None if page_token is None else tokens.id_of(page_token)
        found = newest(
            self._session, Label, wanted=wanted.filters(), before=before, limit=size, window=WINDOW
        )
        following = found.go_on_before
        return Page(found.rows, None if following is None else tokens.of_id(following))

    def stream(self, filter: LabelFilter | None = None) -> Iterator[Label]:
        """Yield all labels, the oldest first, in memory that does not grow with their number."""
        wanted = filter or LabelFilter()
        query = select(Label).where(*wanted.conditions()).order_by(Label.id)
        yield from self._session.scalars(query.execution_options(yield_per=CHUNK))

    def count(self, filter: LabelFilter | None = None) -> int:
        """Count labels."""
        wanted = filter or LabelFilter()
        query = select(func.count()).select_from(Label).where(*wanted.conditions())
        return self._session.scalars(query).one()

    def counts_of(self, video_ids: Collection[UUID]) -> dict[UUID, int]:
        """Count the labels of each of these videos; those without any are left out."""
        rows = self._session.execute(text(_COUNTS), {"video_ids": list(video_ids)})
        return {row[0]: row[1] for row in rows}

    def answers(self, filter: LabelFilter | None = None) -> Sequence[tuple[str, int]]:
        """List the answers that labels of qa give and how often, the most frequent first."""
        wanted = filter or LabelFilter()
        query = (
            select(Label.answer, func.count())
            .where(*wanted.conditions(), Label.task == Task.QA)
            .group_by(Label.answer)
            .order_by(func.count().desc(), Label.answer.collate("C"))
        )
        return [(answer or "", count) for answer, count in self._session.execute(query)]

    def held_out_answers(self, video_ids: Collection[UUID]) -> Sequence[tuple[str, int]]:
        """List the answers to open-ended questions about these videos that are in the holdout."""
        query = (
            select(Label.answer, func.count())
            .where(
                Label.video_id == any_(cast(list(video_ids), ARRAY(Uuid()))),
                Label.task == Task.QA,
                Label.split == Split.HOLDOUT,
                Label.deleted_at.is_(None),
            )
            .group_by(Label.answer)
        )
        return [(answer or "", count) for answer, count in self._session.execute(query)]

    def trained_answers(self, *, most: int) -> Sequence[str]:
        """List the different answers to train from, in no order that matters.

        Of long ones the first COMPARED_CHARACTERS; of more than `most` as many as that.
        """
        return self._session.scalars(text(_TRAINED_ANSWERS), {"most": most}).all()

    def disputed(self, video_ids: Collection[UUID]) -> Iterator[DisputedQuestion]:
        """Yield the questions about these videos that have several answers as they were typed.

        Args:
            video_ids: any number; all of their labels are looked at, new or not.
        """
        rows = self._session.execute(text(_DISPUTED), {"video_ids": list(video_ids)})
        return (DisputedQuestion(*row) for row in rows)

    def _lock(self, label_id: UUID) -> Label:
        query = select(Label).where(Label.id == label_id, Label.deleted_at.is_(None))
        locked = query.with_for_update().execution_options(populate_existing=True)
        label = self._session.scalar(locked)
        if label is None:
            raise LabelNotFound(label_id)
        return label

    def _change(self, label: Label, action: LabelAction, by: str | None, **values: object) -> None:
        self._session.execute(
            update(Label)
            .where(Label.id == label.id)
            .values(revision=Label.revision + 1, updated_at=func.now(), **values)
            .execution_options(synchronize_session=False)
        )
        record_revision(self._session, label.id, action=action, by=by)


def _changed(label: Label, changes: Mapping[str, Any]) -> NewLabel:
    unknown = sorted(set(changes) - set(EDITABLE))
    if unknown:
        raise IllegalLabel("invalid_label", f"a label's {', '.join(unknown)} cannot be changed")
    values = dict(changes)
    if label.task == Task.MULTIPLE_CHOICE:
        # What of the two is not said follows from the other.
        if "right_choice" in values:
            values.setdefault("answer", None)
        elif {"answer", "choices"} & set(values):
            values["right_choice"] = None
    if "choices" in values:
        values["choices"] = tuple(values["choices"] or ())
    if "provenance" in values:
        values["provenance"] = values["provenance"] or {}
    return replace(to_new(label), **values)
