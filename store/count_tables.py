"""The tables of counts that are kept while rows change, so that nobody has to count the rows.

Triggers on jobs, videos and clips append what a statement changed; see store/counts.py.
"""

from sqlalchemy import BigInteger, Identity
from sqlalchemy.orm import Mapped, mapped_column

from store.table_base import Table


class Count(Table):
    """How many rows of a name there are, but for the changes that were not folded in yet."""

    __tablename__ = "counts"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class CountChange(Table):
    """What one statement added to a count or took from it.

    Only ever inserted and folded: transactions that change the same count do not meet.
    """

    __tablename__ = "count_changes"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[str]
    change: Mapped[int] = mapped_column(BigInteger)
