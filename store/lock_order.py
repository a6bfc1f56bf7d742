"""The order in which transactions lock rows, so that no two wait for each other.

1. a batch, where its items are numbered or cancelled;
2. videos, by id;
3. jobs, by id;
4. what hangs on one of these: clips, searches, labels, questions, finetunes;
5. deltas of counters: only ever inserted, so nobody waits for them (see store/counts.py).

A transaction that may need a row of a lower number locks it before any of a higher one. So an
embed job's video, which fails with it, is locked before the job; a job is locked before its
question. Rows are locked FOR NO KEY UPDATE where they stay, so that rows which refer to them can
still be added, and FOR UPDATE only where they are deleted. Maintenance takes what it gets with
SKIP LOCKED.

A trigger closes and opens questions when answers and labels change (migration 0011). It takes no
label that another transaction has in hand, so that it only ever waits for questions.

Where two transactions meet in a way that this does not cover, PostgreSQL makes one of them a
victim; `store.database.run_in_transaction` runs it again.
"""

from collections.abc import Collection
from typing import Final
from uuid import UUID

from sqlalchemy import Select, Uuid, column, func, select, table
from sqlalchemy.orm import Session

# Only its key: what locks videos lies below the repositories of jobs, and these below the videos'.
_VIDEOS: Final = table("videos", column("id", Uuid()))


def lock_videos(session: Session, video_ids: Collection[UUID] | Select[UUID | None]) -> None:
    """Lock videos before the jobs that are about them; those that do not exist are left out.

    Args:
        session: in a transaction of the caller's.
        video_ids: which, or a query for them.
    """
    session.flush()  # as a query over the class would: rows of this transaction count
    key = _VIDEOS.c.id
    videos = select(key).where(key.in_(video_ids)).order_by(key).with_for_update(key_share=True)
    session.execute(select(func.count()).select_from(videos.subquery()))
