"""List the answers to train from without reading all labels.

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_labels_trained_answers",
        "labels",
        [sa.text('"left"(answer, 200)')],
        postgresql_where=sa.text("task = 'qa' AND split = 'train' AND deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_labels_trained_answers", "labels")
