"""What is removed once it is old: events of jobs, and jobs whose result is kept elsewhere.

Both go through the jobs in the order in which they ended, in steps of some hundred, and write down
how far they came. Kept for ever are the jobs of searches, questions, trials and finetunes, whose
rows are the answer, and the events of finetunes, which are its curve.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

STEP: Final = 300
"""Jobs that one step deals with: some milliseconds, with their events and indexes."""

_EVENTS: Final = "events"
_JOBS: Final = "jobs"

_NEXT = """
SELECT jobs.id, jobs.finished_at FROM jobs
WHERE jobs.finished_at IS NOT NULL AND jobs.finished_at < now() - CAST(:kept_for AS interval)
  AND (jobs.finished_at, jobs.id) > (
      coalesce((SELECT finished_at FROM retention_marks WHERE name = :name), '-infinity'),
      coalesce((SELECT job_id FROM retention_marks WHERE name = :name),
               '00000000-0000-0000-0000-000000000000'))
ORDER BY jobs.finished_at, jobs.id
LIMIT :limit
"""

_MARK = """
INSERT INTO retention_marks (name, finished_at, job_id) VALUES (:name, :finished_at, :job_id)
ON CONFLICT (name) DO UPDATE SET finished_at = excluded.finished_at, job_id = excluded.job_id
"""

_DELETE_EVENTS = """
DELETE FROM job_events USING jobs
WHERE job_events.job_id = ANY(CAST(:ids AS uuid[])) AND jobs.id = job_events.job_id
  AND jobs.id = ANY(CAST(:ids AS uuid[]))
  AND jobs.kind <> 'finetune' AND jobs.finished_at IS NOT NULL
"""

# Not those of a batch that is still at work, whose items are listed with them; nor those of a video
# that is not settled; nor the last that was said of a copy, whose name the video is found by, and
# in whose place it lives on when other content comes to its own.
_DELETE_JOBS = """
DELETE FROM jobs WHERE id IN (
    SELECT jobs.id FROM jobs
    LEFT JOIN LATERAL (
        SELECT id, state, uri, filename FROM videos WHERE videos.id = jobs.video_id LIMIT 1
    ) AS videos ON true
    LEFT JOIN LATERAL (
        SELECT true AS found FROM jobs AS others
        WHERE others.batch_id = jobs.batch_id AND others.batch_id IS NOT NULL
          AND others.state NOT IN ('succeeded', 'failed', 'cancelled', 'quarantined')
        LIMIT 1) AS active ON true
    WHERE jobs.id = ANY(CAST(:ids AS uuid[]))
      AND jobs.kind IN ('ingest', 'embed')
      AND jobs.state IN ('succeeded', 'failed', 'cancelled', 'quarantined')
      AND active.found IS NULL
      AND (videos.id IS NULL
           OR (videos.state <> 'processing'
               AND (jobs.kind <> 'ingest' OR jobs.result ->> 'filename' IS NULL
                    OR (jobs.result ->> 'filename' IS NOT DISTINCT FROM videos.filename
                        AND (jobs.input ->> 'uri' IS NULL OR jobs.input ->> 'uri' = videos.uri))
                    OR EXISTS (
                        SELECT FROM jobs AS later
                        WHERE later.video_id = jobs.video_id AND later.kind = 'ingest'
                          AND later.id > jobs.id
                          AND later.result ->> 'filename' = jobs.result ->> 'filename'
                          AND later.input ->> 'uri' IS NOT DISTINCT FROM jobs.input ->> 'uri'))))
    ORDER BY jobs.id
    FOR UPDATE OF jobs SKIP LOCKED)
RETURNING id
"""


@dataclass(frozen=True)
class Pruned:
    """What a step did.

    Attributes:
        num_deleted: rows that it removed.
        is_last: nothing older is left, for now.
    """

    num_deleted: int
    is_last: bool


def prune_events(session: Session, *, kept_for: timedelta, limit: int = STEP) -> Pruned:
    """Remove the events of some jobs that have been over for so long.

    Args:
        session: in a transaction of its own.
        kept_for: after the end of the job.
        limit: how many jobs are looked at.
    """
    some = _next(session, _EVENTS, kept_for, limit)
    deleted = 0
    if some:
        result = session.execute(text(_DELETE_EVENTS), {"ids": [id_ for id_, _ in some]})
        deleted = result.rowcount  # type: ignore[attr-defined]  # typed as any result
        _mark(session, _EVENTS, *some[-1])
    return Pruned(deleted, is_last=len(some) < limit)


def prune_jobs(session: Session, *, kept_for: timedelta, limit: int = STEP) -> Pruned:
    """Remove some jobs that have been over for so long, where nothing shows them now.

    The passage begins anew when it is through: what was kept for the sake of something else may go
    by then.

    Args:
        session: in a transaction of its own.
        kept_for: after the end of the job.
        limit: how many jobs are looked at.
    """
    some = _next(session, _JOBS, kept_for, limit)
    deleted = 0
    if some:
        deleted = len(session.execute(text(_DELETE_JOBS), {"ids": [id_ for id_, _ in some]}).all())
    if len(some) < limit:
        session.execute(text("DELETE FROM retention_marks WHERE name = :name"), {"name": _JOBS})
    else:
        _mark(session, _JOBS, *some[-1])
    return Pruned(deleted, is_last=len(some) < limit)


def _next(
    session: Session, name: str, kept_for: timedelta, limit: int
) -> list[tuple[UUID, datetime]]:
    parameters = {"name": name, "kept_for": kept_for, "limit": limit}
    return [(row.id, row.finished_at) for row in session.execute(text(_NEXT), parameters)]


def _mark(session: Session, name: str, job_id: UUID, finished_at: datetime) -> None:
    parameters = {"name": name, "finished_at": finished_at, "job_id": job_id}
    session.execute(text(_MARK), parameters)
