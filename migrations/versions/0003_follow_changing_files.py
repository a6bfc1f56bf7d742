"""Add what a video says of damage and of its file in place; write file names in one Unicode form.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Names are written and asked for in NFC; macOS gave those of files in NFD.
NAMES = (
    """
UPDATE videos SET filename = normalize(filename, NFC) WHERE filename IS NOT NFC NORMALIZED
""",
    """
UPDATE jobs SET
    result = jsonb_set(result, '{filename}', to_jsonb(normalize(result ->> 'filename', NFC)))
WHERE kind = 'ingest' AND result ->> 'filename' IS NOT NFC NORMALIZED
""",
)


def upgrade() -> None:
    op.add_column(
        "videos",
        sa.Column("damaged_spans", JSONB(), nullable=False, server_default=sa.text("'[]'::jsonb")),
    )
    op.add_column("videos", sa.Column("file_stamp", sa.Text(), nullable=True))
    op.add_column("videos", sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "videos",
        sa.Column(
            "place_checked_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("now()"),
        ),
    )
    op.add_column("videos", sa.Column("superseded_by_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        "fk_videos_superseded_by_id",
        "videos",
        "videos",
        ["superseded_by_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_index("ix_videos_uri", "videos", ["uri"], postgresql_using="hash")
    op.create_index(
        "ix_videos_superseded_by_id",
        "videos",
        ["superseded_by_id"],
        postgresql_where=sa.text("superseded_by_id IS NOT NULL"),
    )
    op.create_index(
        "ix_videos_missing",
        "videos",
        ["id"],
        postgresql_where=sa.text("missing_since IS NOT NULL"),
    )
    op.create_index(
        "ix_videos_place_checked_at",
        "videos",
        ["place_checked_at", "id"],
        postgresql_where=sa.text("blob_key IS NULL AND state <> 'superseded'"),
    )
    for statement in NAMES:
        op.execute(statement)


def downgrade() -> None:
    # What had no clips any more would be searched for, and not be found, as one that failed is.
    op.execute(
        "UPDATE videos SET state = 'failed', error_code = 'media_changed', "
        "error_message = 'other content was indexed at its place' WHERE state = 'superseded'"
    )
    op.drop_index("ix_videos_place_checked_at", "videos")
    op.drop_index("ix_videos_missing", "videos")
    op.drop_index("ix_videos_superseded_by_id", "videos")
    op.drop_index("ix_videos_uri", "videos")
    op.drop_constraint("fk_videos_superseded_by_id", "videos", type_="foreignkey")
    for column in (
        "superseded_by_id",
        "place_checked_at",
        "missing_since",
        "file_stamp",
        "damaged_spans",
    ):
        op.drop_column("videos", column)
