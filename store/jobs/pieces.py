"""Pieces of work that outlive their worker: scored slices of a search, finished clips of a video.

They are written only by the worker that holds the job, seen by nobody but the next one, and removed
with the job's end. What is left by a job that ended in another way is swept.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from store.errors import LeaseLost
from store.jobs.records import ClaimedJob
from store.jobs.state import TERMINAL_STATES
from store.jobs.tables import Job, JobPiece

# The lock keeps the job from being taken away between the check and the commit.
_ADD: Final = """
INSERT INTO job_pieces (job_id, seq, about, content)
SELECT held.id,
       (SELECT coalesce(max(seq) + 1, 0) FROM job_pieces WHERE job_pieces.job_id = held.id),
       CAST(:about AS jsonb), :content
FROM (SELECT id FROM jobs
      WHERE id = :id AND lease_token = :token AND state IN ('running', 'cancelling')
      FOR NO KEY UPDATE) AS held
RETURNING seq
"""


@dataclass(frozen=True)
class Piece:
    """A part of a job's work.

    Attributes:
        about: JSON; what it was made from. Who goes on compares it first.
        content: as the worker wrote it.
    """

    about: dict[str, Any]
    content: bytes


class JobPieces:
    """Every query about pieces of work.

    Args:
        session: in a transaction of the caller's.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, claim: ClaimedJob, piece: Piece) -> None:
        """Keep a piece after those that are there. Raises LeaseLost."""
        parameters = {
            "id": claim.id,
            "token": claim.lease_token,
            "about": json.dumps(piece.about),
            "content": piece.content,
        }
        if self._session.scalar(text(_ADD), parameters) is None:
            raise LeaseLost(claim.id, claim.lease_token)

    def list(self, job_id: UUID) -> Sequence[Piece]:
        """List the pieces of a job, in the order in which they were kept."""
        query = select(JobPiece.about, JobPiece.content).where(JobPiece.job_id == job_id)
        rows = self._session.execute(query.order_by(JobPiece.seq))
        return [Piece(row.about, row.content) for row in rows]

    def remove(self, job_id: UUID) -> None:
        """Remove all pieces of a job."""
        self._session.execute(delete(JobPiece).where(JobPiece.job_id == job_id))

    def remove_unneeded(self) -> int:
        """Remove the pieces of jobs that are over. Returns how many there were."""
        over = select(Job.id).where(Job.id == JobPiece.job_id, Job.state.in_(TERMINAL_STATES))
        gone = delete(JobPiece).where(over.exists()).returning(JobPiece.seq)
        return len(self._session.execute(gone).all())
