"""What all tables share: their base class, their column types, and the kinds of their rows."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import DateTime, Enum, Float, MetaData, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from store.identifiers import new_id

Json = dict[str, Any]


class Task(StrEnum):
    """What a promoted model does."""

    RECALL = "recall"
    RETRIEVAL = "retrieval"
    QA = "qa"
    MULTIPLE_CHOICE = "multiple_choice"


def enum_column(kind: type[StrEnum]) -> Enum:
    """Return the column type of an enum: plain text, so that a new value needs no migration."""
    return Enum(
        kind,
        native_enum=False,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


def listed(states: tuple[StrEnum, ...]) -> str:
    """Write values as the literals of an SQL list."""
    return ", ".join(f"'{state}'" for state in states)


class Table(DeclarativeBase):
    """Base of the tables, with predictable constraint names so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        str: Text(),
        Json: JSONB(),
        list[str]: ARRAY(Text()),
        list[float]: ARRAY(Float()),
    }


class ListedTable(Table):
    """A table that people list, the newest rows first: its ids are in the order they came in."""

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
