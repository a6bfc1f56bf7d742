r"""Videos by their file name or that of a copy: by the whole name, or by a part of it.

A part is any letters that follow one another in the name, in any case, as LIKE '%part%' has it. Its
index is one of PostgreSQL's own full text, whose words are the trigrams of the name; what it finds
is compared in full.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, literal, or_, select, text
from sqlalchemy.orm import InstrumentedAttribute

from store.jobs.state import JobKind
from store.jobs.tables import Job
from store.videos.tables import Video

_COPY_NAME: Final = Job.result["filename"].astext
_IS_COPY: Final = (Job.kind == JobKind.INGEST, Job.video_id.is_not(None))
_Name = ColumnElement[str] | InstrumentedAttribute[str | None]
_ENDING: Final = r"\.[^.]*$"


@dataclass(frozen=True)
class NameFilter:
    """A condition on a video's names: its own and those of its copies.

    Attributes:
        name: the whole name, or a part of it.
        is_part: which of the two.
    """

    name: str
    is_part: bool

    def condition(self) -> ColumnElement[bool]:
        """Return the condition, of which an index leads to the copies of each video."""
        # A scalar, or the planner may look through all jobs for a few videos.
        copy = select(literal(True)).where(
            *_IS_COPY, Job.video_id == Video.id, self._is(_COPY_NAME)
        )
        is_copys = copy.limit(1).correlate(Video).scalar_subquery().is_not(None)
        return or_(self._is(Video.filename), is_copys)

    def indexed(self) -> Select[UUID]:
        """Select the ids of all videos that may meet the condition, some twice, by an index."""
        own = select(Video.id.label("id")).where(self._may_be(Video.filename))
        copies = select(Job.video_id.label("id")).where(*_IS_COPY, self._may_be(_COPY_NAME))
        return select(own.union_all(copies).subquery().c.id)

    def _is(self, name: _Name) -> ColumnElement[bool]:
        if self.is_part:
            return name.icontains(self.name, autoescape=True)
        return name == literal(self.name)

    def _may_be(self, name: _Name) -> ColumnElement[bool]:
        if self.is_part:
            return func.name_trigrams(name).op("@@")(func.name_part_query(self.name))
        stem = func.regexp_replace(literal(self.name), _ENDING, "")
        return func.regexp_replace(name, text(f"'{_ENDING}'"), text("''")) == stem
