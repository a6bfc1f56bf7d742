"""How many jobs, videos and indexed videos there are, read in the same time however many.

Triggers (migration 0004) append to count_changes, in the transaction that changes the rows and
whoever changes them; maintenance folds what was appended into one row for each name:

    jobs:{kind}:{state}     videos:{state}     clips:{generation id}, which counts videos

The items of batches are counted likewise (migration 0007), in rows of batch_deltas that are summed
up when they are read: as many as states, and what was appended since the last folding. A batch
stays as it was counted when retention has deleted its jobs.
"""

from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, Identity, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.table_base import Table

FOLD_CHUNK: Final = 2000
"""Changes that one step folds: a few milliseconds."""

# One statement sees one moment: a change is in one of the two tables.
_READ = """
SELECT name, CAST(sum(value) AS bigint) AS value
FROM (SELECT name, value FROM counts WHERE starts_with(name, :prefix)
      UNION ALL
      SELECT name, change FROM count_changes WHERE starts_with(name, :prefix)) AS every
GROUP BY name
HAVING sum(value) <> 0
"""

# In the order of the names: two at once never wait for each other in a circle.
_FOLD = """
WITH folded AS (
    DELETE FROM count_changes
    WHERE id IN (SELECT id FROM count_changes ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING name, change
), summed AS (
    SELECT name, sum(change) AS change FROM folded GROUP BY name ORDER BY name
), kept AS (
    INSERT INTO counts (name, value) SELECT name, change FROM summed
    ON CONFLICT (name) DO UPDATE SET value = counts.value + excluded.value
)
SELECT count(*) FROM folded
"""


# The sum stands beside the changes that come meanwhile. What another process is folding, it folds.
_FOLD_BATCHES = """
WITH fresh AS MATERIALIZED (
    SELECT id, batch_id FROM batch_deltas
    WHERE NOT is_folded ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
), known AS MATERIALIZED (
    SELECT id FROM batch_deltas
    WHERE is_folded AND batch_id IN (SELECT batch_id FROM fresh) FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM batch_deltas
    WHERE id IN (SELECT id FROM fresh UNION ALL SELECT id FROM known)
    RETURNING batch_id, state, change, duplicates, ended_at
), summed AS (
    INSERT INTO batch_deltas (batch_id, state, change, duplicates, ended_at, is_folded)
    SELECT batch_id, state, sum(change), sum(duplicates), max(ended_at), true
    FROM gone GROUP BY batch_id, state
)
SELECT count(*) FROM fresh
"""


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


def read_counts(session: Session, prefix: str) -> dict[str, int]:
    """Read the counts whose names begin so, by the rest of the name; zeros are left out.

    Args:
        session: in a transaction of the caller's, whose own changes count.
        prefix: such as `videos:`.
    """
    rows = session.execute(text(_READ), {"prefix": prefix})
    return {row.name.removeprefix(prefix): row.value for row in rows}


def count_indexed_videos(session: Session, generation_id: UUID) -> int:
    """Count the videos that have clips in a generation."""
    return read_counts(session, f"clips:{generation_id}").get("", 0)


def fold_batch_deltas(session: Session, *, limit: int = FOLD_CHUNK) -> int:
    """Fold the changes of batches' items into one row for each batch and state, the oldest first.

    Args:
        session: in a transaction of the caller's.
        limit: at most so many changes.

    Returns:
        How many were folded; fewer than the limit if no more are there.
    """
    folded: int = session.execute(text(_FOLD_BATCHES), {"limit": limit}).scalar_one()
    return folded


def fold_counts(session: Session, *, limit: int = FOLD_CHUNK) -> int:
    """Fold changes into the counts, the oldest first.

    Args:
        session: in a transaction of the caller's.
        limit: at most so many changes.

    Returns:
        How many were folded; fewer than the limit if no more are there.
    """
    folded: int = session.execute(text(_FOLD), {"limit": limit}).scalar_one()
    return folded
