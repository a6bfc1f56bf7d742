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
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from store.jobs.state import JobKind
from store.tables import Job, Video


def lock_videos(session: Session, video_ids: Collection[UUID]) -> None:
    """Lock videos before the jobs that are about them; those that do not exist are left out."""
    query = select(Video.id).where(Video.id.in_(video_ids)).order_by(Video.id)
    session.execute(query.with_for_update(key_share=True))


def lock_jobs(session: Session, condition: ColumnElement[bool]) -> int:
    """Lock all jobs that meet a condition, after the videos that embed jobs among them are about.

    Returns:
        How many jobs they are.
    """
    of_embeds = select(Job.video_id).where(
        condition, Job.kind == JobKind.EMBED, Job.video_id.is_not(None)
    )
    lock_videos_where(session, Video.id.in_(of_embeds))
    jobs = select(Job.id).where(condition).order_by(Job.id).with_for_update(key_share=True)
    return session.scalar(select(func.count()).select_from(jobs.subquery())) or 0


def lock_videos_where(session: Session, condition: ColumnElement[bool]) -> int:
    """Lock all videos that meet a condition, by id. Returns how many they are."""
    videos = select(Video.id).where(condition).order_by(Video.id).with_for_update(key_share=True)
    return session.scalar(select(func.count()).select_from(videos.subquery())) or 0
