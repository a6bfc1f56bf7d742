"""Lead what filters ask of each row.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_jobs_ingest_video_id",
        "jobs",
        ["video_id"],
        postgresql_where=sa.text("kind = 'ingest' AND video_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_ingest_video_id", "jobs")
