"""Find the ingest jobs of a place by its uri.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_jobs_input_uri",
        "jobs",
        [sa.text("(input ->> 'uri')")],
        postgresql_using="hash",
        postgresql_where=sa.text("kind = 'ingest' AND video_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_input_uri", "jobs")
