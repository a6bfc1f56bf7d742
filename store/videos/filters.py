"""Which videos are meant: the filters of their list."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, select

from store.bounded_lists import Filters
from store.videos.name_parts import NameFilter
from store.videos.tables import Video, VideoState

WINDOW = 1000
"""Videos that are looked through at once, each with the ingest jobs that tell its other names."""


@dataclass(frozen=True)
class VideoFilter:
    """Videos that meet all of these; what is left out asks for nothing.

    Attributes:
        state: in this state; None: in any but superseded.
        missing: whose file in place is not there, or only the others.
        tag: with this tag.
        names: that have a name of each kind.
        ids: one of these, whatever its state.
    """

    state: VideoState | None = None
    missing: bool | None = None
    tag: str | None = None
    names: Sequence[NameFilter] = ()
    ids: Sequence[UUID] | None = None

    def filters(self) -> Filters:
        """Return the conditions, by what leads to them."""
        in_order: list[ColumnElement[bool]] = []
        others = [names.condition() for names in self.names]
        indexed = [names.indexed() for names in self.names]
        if self.ids is not None:
            is_one = Video.id.in_(self.ids)
            others.append(is_one)
            indexed.append(select(Video.id).where(is_one))
        elif self.state is None:
            others.append(Video.state != VideoState.SUPERSEDED)
        if self.state is not None:
            in_order.append(Video.state == self.state)
        if self.missing:
            in_order.append(Video.missing_since.is_not(None))
        elif self.missing is not None:
            others.append(Video.missing_since.is_(None))
        if self.tag is not None:
            is_tagged = Video.tags.contains([self.tag])
            others.append(is_tagged)
            indexed.append(select(Video.id).where(is_tagged))
        return Filters(in_order, others, indexed)
