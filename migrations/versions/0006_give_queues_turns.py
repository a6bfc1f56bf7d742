"""Give the jobs of each API key and batch equal turns, and count losses anew after progress.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_NOBODY = "'00000000-0000-0000-0000-000000000000'::uuid"

# As if all that waits had been enqueued now, in the order in which it would have been claimed.
TURNS = """
UPDATE jobs SET turn = placed.turn
FROM (SELECT id, row_number() OVER (PARTITION BY kind, priority, batch_id ORDER BY run_at, id) - 1
             AS turn
      FROM jobs WHERE state = 'queued') AS placed
WHERE jobs.id = placed.id AND placed.turn > 0
"""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("api_key_id", sa.Uuid(), nullable=True))
    op.add_column(
        "jobs", sa.Column("lost_progress", sa.Integer(), server_default="0", nullable=False)
    )
    op.add_column("jobs", sa.Column("turn", sa.BigInteger(), server_default="0", nullable=False))
    op.execute(TURNS)
    op.drop_index("ix_jobs_due", "jobs")
    op.create_index(
        "ix_jobs_due",
        "jobs",
        ["kind", "priority", "turn", "run_at", "id"],
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        [
            "kind",
            "priority",
            sa.text(f"COALESCE(api_key_id, {_NOBODY})"),
            sa.text(f"COALESCE(batch_id, {_NOBODY})"),
            "turn",
        ],
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.drop_index("ix_jobs_leased", "jobs")
    op.create_index(
        "ix_jobs_held",
        "jobs",
        ["lease_owner"],
        postgresql_where=sa.text("state IN ('running', 'cancelling')"),
    )
    op.create_index(
        "ix_jobs_batch_id",
        "jobs",
        ["batch_id", "id"],
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.create_index("ix_jobs_kind_id", "jobs", ["kind", "id"])


def downgrade() -> None:
    for name in ("kind_id", "batch_id", "held", "queue", "due"):
        op.drop_index(f"ix_jobs_{name}", "jobs")
    op.create_index(
        "ix_jobs_leased",
        "jobs",
        ["lease_expires_at"],
        postgresql_where=sa.text("state IN ('running', 'cancelling')"),
    )
    op.create_index(
        "ix_jobs_due",
        "jobs",
        ["kind", "priority", "run_at", "id"],
        postgresql_where=sa.text("state = 'queued'"),
    )
    for column in ("turn", "lost_progress", "api_key_id"):
        op.drop_column("jobs", column)
