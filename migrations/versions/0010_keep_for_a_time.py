"""Let old jobs, their events and models go; find videos by parts of their names.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

OVER = "('succeeded', 'failed', 'cancelled', 'quarantined')"

# Two blanks at the end, so that each letter begins one. A name is looked at as far as 500 letters.
TRIGRAMS = """
CREATE FUNCTION name_trigrams(name text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN array_to_tsvector(ARRAY(
    SELECT DISTINCT substr(lower(name) || '  ', place, 3)
    FROM generate_series(1, least(length(name), 500)) AS place))
"""

# A part of one or two letters begins a trigram; a longer one has all of its own.
PART = r"""
CREATE FUNCTION name_part_query(part text) RETURNS tsquery
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT string_agg(
        '''' || replace(replace(substr(lower(part), place, 3), '\', '\\'), '''', '''''')
        || '''' || CASE WHEN length(part) < 3 THEN ':*' ELSE '' END, ' & ')::tsquery
    FROM generate_series(1, greatest(1, least(length(part), 500) - 2)) AS place)
"""


def upgrade() -> None:
    op.create_table(
        "retention_marks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_retention_marks"),
    )
    op.create_index(
        "ix_jobs_finished",
        "jobs",
        ["finished_at", "id"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_batch_active",
        "jobs",
        ["batch_id"],
        postgresql_where=sa.text(f"batch_id IS NOT NULL AND state NOT IN {OVER}"),
    )
    op.create_index(
        "ix_labels_source_id",
        "labels",
        ["source", "id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_labels_created_at",
        "labels",
        ["created_at"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    for column in ("deleted_at", "files_removed_at"):
        op.add_column("models", sa.Column(column, sa.DateTime(timezone=True), nullable=True))
    op.drop_index("uq_models_name_version", "models")
    op.create_index(
        "uq_models_name_version",
        "models",
        ["name", "version"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.execute(TRIGRAMS)
    op.execute(PART)
    op.create_index(
        "ix_videos_name_parts",
        "videos",
        [sa.text("name_trigrams(filename)")],
        postgresql_using="gin",
    )
    op.create_index(
        "ix_jobs_copy_parts",
        "jobs",
        [sa.text("name_trigrams((result ->> 'filename'))")],
        postgresql_using="gin",
        postgresql_where=sa.text("kind = 'ingest' AND video_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_copy_parts", "jobs")
    op.drop_index("ix_videos_name_parts", "videos")
    op.execute("DROP FUNCTION name_part_query(text)")
    op.execute("DROP FUNCTION name_trigrams(text)")
    # Two with the same name and version there cannot be: the deleted one keeps its id in it.
    op.execute(
        "UPDATE models SET version = version || ' deleted ' || id WHERE deleted_at IS NOT NULL"
    )
    op.drop_index("uq_models_name_version", "models")
    op.create_index("uq_models_name_version", "models", ["name", "version"], unique=True)
    for column in ("files_removed_at", "deleted_at"):
        op.drop_column("models", column)
    op.drop_index("ix_labels_created_at", "labels")
    op.drop_index("ix_labels_source_id", "labels")
    op.drop_index("ix_jobs_batch_active", "jobs")
    op.drop_index("ix_jobs_finished", "jobs")
    op.drop_table("retention_marks")
