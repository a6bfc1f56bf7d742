"""Lock jobs after the videos that they are about; see store/lock_order.py."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from store.jobs.state import JobKind
from store.jobs.tables import Job
from store.lock_order import lock_videos


def lock_jobs(session: Session, condition: ColumnElement[bool]) -> Sequence[UUID]:
    """Lock all jobs that meet a condition, after the videos that embed jobs among them are about.

    Returns:
        The ids of these jobs, ascending.
    """
    of_embeds = select(Job.video_id).where(
        condition, Job.kind == JobKind.EMBED, Job.video_id.is_not(None)
    )
    lock_videos(session, of_embeds)
    jobs = select(Job.id).where(condition).order_by(Job.id).with_for_update(key_share=True)
    return session.scalars(jobs).all()
