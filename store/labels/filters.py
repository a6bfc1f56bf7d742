"""Which labels are meant: a filter that can be kept as JSON and asked again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, any_, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from store.bounded_lists import Filters
from store.errors import IllegalLabel
from store.labels.records import parse_split
from store.labels.tables import Label
from store.table_base import Task
from store.videos.tables import Video

_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class LabelFilter:
    """Labels that meet all of these; what is left out asks for nothing.

    Attributes:
        task: `qa`, `multiple_choice` or `retrieval`.
        sources: from one of these.
        video_ids: about one of these.
        tags: about a video with one of these.
        created_after: added then or later.
        created_before: added before.
        split: `train` or `holdout`.
        text: with this in the text or the answer, in any case.

    Raises:
        ValueError: there is no such task or split.
    """

    task: str | None = None
    sources: Sequence[str] = ()
    video_ids: Sequence[UUID] = ()
    tags: Sequence[str] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    split: str | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        for name in ("sources", "video_ids", "tags"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        for name in ("created_after", "created_before"):
            instant = getattr(self, name)
            if instant is not None:
                aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
                object.__setattr__(self, name, _as_utc(aware))
        if self.task is not None:
            object.__setattr__(self, "task", Task(self.task).value)
        if self.split is not None:
            object.__setattr__(self, "split", _split(self.split))

    def to_json(self) -> dict[str, Any]:
        """Return the filter as JSON: equal filters give equal JSON."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: _to_json(value) for name, value in values.items() if value not in (None, ())}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "LabelFilter":
        """Read what `to_json` gave, or what a person wrote.

        Raises:
            ValueError: a field is unknown or says something impossible.
        """
        unknown = sorted(set(content) - set(_READERS))
        if unknown:
            raise ValueError(f"labels cannot be chosen by {', '.join(unknown)}")
        values = {}
        for name, value in content.items():
            if value is None:
                continue
            try:
                values[name] = _READERS[name](value)
            except (TypeError, ValueError, AttributeError) as error:
                raise ValueError(f"{name} cannot be {value!r}") from error
        return cls(**values)

    def conditions(self) -> Sequence[ColumnElement[bool]]:
        """Return the conditions on the rows of `labels`; deleted ones are never meant."""
        filters = self._without_tags()
        return [*filters.in_order, *filters.others, *self._of_tags()]

    def filters(self) -> Filters:
        """Return the same conditions by what leads to them, for a list of the newest."""
        filters = self._without_tags()
        if not self.tags:
            return filters
        # A scalar, or the planner may read all videos with the tag for a few labels.
        tagged = select(literal(True)).where(Video.id == Label.video_id, self._is_tagged())
        is_tagged = tagged.limit(1).correlate(Label).scalar_subquery().is_not(None)
        ids = select(Label.id).where(Label.deleted_at.is_(None), *self._of_tags())
        return Filters(filters.in_order, [*filters.others, is_tagged], [*filters.indexed, ids])

    def _is_tagged(self) -> ColumnElement[bool]:
        is_tagged: ColumnElement[bool] = Video.tags.overlap(list(self.tags))
        return is_tagged

    def _of_tags(self) -> Sequence[ColumnElement[bool]]:
        if not self.tags:
            return []
        return [Label.video_id.in_(select(Video.id).where(self._is_tagged()))]

    def _without_tags(self) -> Filters:
        in_order: list[ColumnElement[bool]] = [Label.deleted_at.is_(None)]
        others: list[ColumnElement[bool]] = []
        led: list[ColumnElement[bool]] = []
        if self.task is not None:
            in_order.append(Label.task == Task(self.task))
        if len(self.sources) == 1:
            in_order.append(Label.source == self.sources[0])
        elif self.sources:
            led.append(Label.source.in_(self.sources))
        if self.video_ids:
            led.append(Label.video_id == any_(literal(self.video_ids, ARRAY(Uuid()))))
        if self.created_after is not None:
            led.append(Label.created_at >= self.created_after)
        if self.created_before is not None:
            led.append(Label.created_at < self.created_before)
        if self.split is not None:
            others.append(Label.split == self.split)
        if self.text is not None:
            others.append(
                or_(
                    Label.text.icontains(self.text, autoescape=True),
                    Label.answer.icontains(self.text, autoescape=True),
                )
            )
        indexed = [select(Label.id).where(Label.deleted_at.is_(None), each) for each in led]
        return Filters(in_order, [*others, *led], indexed)


def _as_utc(instant: datetime) -> datetime:
    """Convert to UTC; the ends of the calendar, by which people mean "ever", stay its ends."""
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        return _LAST if instant.year == _LAST.year else _FIRST


def _split(name: str) -> str:
    try:
        return parse_split(name).value
    except IllegalLabel as error:
        raise ValueError(str(error)) from error


def _to_json(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return value


def _texts(value: object) -> Sequence[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise TypeError("not a list of texts")
    return tuple(value)


def _ids(value: object) -> Sequence[UUID]:
    if not isinstance(value, list | tuple):
        raise TypeError("not a list of ids")
    return tuple(UUID(str(item)) for item in value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _instant(value: object) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(_text(value))


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "task": _text,
    "sources": _texts,
    "video_ids": _ids,
    "tags": _texts,
    "created_after": _instant,
    "created_before": _instant,
    "split": _text,
    "text": _text,
}
