"""The tables of counts that are kept while rows change, so that nobody has to count the rows.

Triggers on jobs, videos and clips append what a statement changed; see store/counts.py.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, text
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


class BatchDelta(Table):
    """What one statement changed in the number of a batch's items in a state.

    Items are counted by the sum of their batch's rows. Maintenance folds rows into one for each
    state; a sum never changes by that.
    """

    __tablename__ = "batch_deltas"
    __table_args__ = (
        Index("ix_batch_deltas_batch_id", "batch_id"),
        Index("ix_batch_deltas_unfolded", "id", postgresql_where=text("NOT is_folded")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    batch_id: Mapped[UUID] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"))
    state: Mapped[str]
    change: Mapped[int] = mapped_column(BigInteger)
    duplicates: Mapped[int] = mapped_column(BigInteger)  # of these, with content known before
    ended_at: Mapped[datetime | None]  # when items came into a state in which they are done
    is_folded: Mapped[bool] = mapped_column(default=False, server_default="false")
