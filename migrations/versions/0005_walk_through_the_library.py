"""Let a generation remember how far a passage through the library is; index embeds and uploads.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OVER = "('succeeded', 'failed', 'cancelled', 'quarantined')"


def upgrade() -> None:
    op.add_column("generations", sa.Column("walk", sa.String(16), nullable=True))
    op.add_column("generations", sa.Column("walked_to", sa.Uuid(), nullable=True))
    op.add_column(
        "generations",
        sa.Column("walk_failed", sa.Integer(), nullable=False, server_default=sa.text("0")),
    )
    op.add_column("generations", sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_jobs_active_embeds",
        "jobs",
        [sa.text("(input ->> 'generation_id')")],
        postgresql_where=sa.text(f"kind = 'embed' AND state NOT IN {OVER}"),
    )
    op.create_index(
        "ix_jobs_blob_key",
        "jobs",
        [sa.text("(input ->> 'blob_key')")],
        postgresql_where=sa.text("kind = 'ingest' AND (input ->> 'blob_key') IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_blob_key", "jobs")
    op.drop_index("ix_jobs_active_embeds", "jobs")
    for column in ("checked_at", "walk_failed", "walked_to", "walk"):
        op.drop_column("generations", column)
