"""The table of how far the passages of retention are."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from store.table_base import Table


class RetentionMark(Table):
    """The last job, in the order in which jobs ended, that a kind of retention has dealt with."""

    __tablename__ = "retention_marks"

    name: Mapped[str] = mapped_column(primary_key=True)
    finished_at: Mapped[datetime]
    job_id: Mapped[UUID]
