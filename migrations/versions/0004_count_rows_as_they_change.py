"""Keep counts of jobs, videos and indexed videos, and index what grew without one.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# A statement's rows are counted together: a thousand jobs of one INSERT are one change.
BY_NAME = """
CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO count_changes (name, change)
        SELECT {name} AS name, count(*) FROM new_rows GROUP BY 1;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO count_changes (name, change)
        SELECT {name} AS name, -count(*) FROM old_rows GROUP BY 1;
    ELSE
        INSERT INTO count_changes (name, change)
        SELECT name, sum(change)
        FROM (SELECT {name} AS name, 1 AS change FROM new_rows
              UNION ALL SELECT {name}, -1 FROM old_rows) AS moved
        GROUP BY name HAVING sum(change) <> 0;
    END IF;
    RETURN NULL;
END
$$
"""

# A video counts when its first clips come and until its last are gone; one statement may bring or
# take only some of them.
OF_CLIPS = """
CREATE FUNCTION count_clips() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO count_changes (name, change)
        SELECT 'clips:' || generation_id, count(*)
        FROM (SELECT generation_id, video_id, count(*) AS num_new
              FROM new_rows GROUP BY generation_id, video_id) AS came
        WHERE num_new = (SELECT count(*) FROM clips
                         WHERE clips.generation_id = came.generation_id
                           AND clips.video_id = came.video_id)
        GROUP BY generation_id;
    ELSE
        INSERT INTO count_changes (name, change)
        SELECT 'clips:' || generation_id, -count(*)
        FROM (SELECT DISTINCT generation_id, video_id FROM old_rows) AS went
        WHERE NOT EXISTS (SELECT FROM clips
                          WHERE clips.generation_id = went.generation_id
                            AND clips.video_id = went.video_id)
        GROUP BY generation_id;
    END IF;
    RETURN NULL;
END
$$
"""

TRIGGERS: dict[str, tuple[str, ...]] = {
    "jobs": ("INSERT", "UPDATE", "DELETE"),
    "videos": ("INSERT", "UPDATE", "DELETE"),
    "clips": ("INSERT", "DELETE"),  # nobody changes whose a clip is
}
ROWS = {
    "INSERT": "NEW TABLE AS new_rows",
    "DELETE": "OLD TABLE AS old_rows",
    "UPDATE": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
}
COUNTED = (
    "SELECT 'jobs:' || kind || ':' || state, count(*) FROM jobs GROUP BY 1",
    "SELECT 'videos:' || state, count(*) FROM videos GROUP BY 1",
    "SELECT 'clips:' || generation_id, count(DISTINCT video_id) FROM clips GROUP BY 1",
)

# What a deletion of the row referred to would look for row by row.
REFERENCES = (
    ("models", "parent_id"),
    ("serving", "model_id"),
    ("generations", "model_id"),
    ("generations", "recall_model_id"),
    ("searches", "model_id"),
    ("searches", "generation_id"),
    ("questions", "model_id"),
    ("questions", "generation_id"),
    ("finetunes", "base_model_id"),
    ("promotions", "previous_model_id"),
    ("promotions", "finetune_id"),
    ("datasets", "vocabulary_id"),
)


def upgrade() -> None:
    op.create_table(
        "counts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counts"),
    )
    op.create_table(
        "count_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_count_changes"),
    )
    # Rows come and go by the thousand, and there are never many: vacuumed by number, not by share.
    op.execute(
        "ALTER TABLE count_changes SET "
        "(autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)"
    )
    names = {"jobs": "'jobs:' || kind || ':' || state", "videos": "'videos:' || state"}
    for table, name in names.items():
        op.execute(BY_NAME.format(function=f"count_{table}", name=name))
    op.execute(OF_CLIPS)
    for table, events in TRIGGERS.items():
        for event in events:
            op.execute(
                f"CREATE TRIGGER count_{table}_{event.lower()} AFTER {event} ON {table} "
                f"REFERENCING {ROWS[event]} FOR EACH STATEMENT EXECUTE FUNCTION count_{table}()"
            )
    for counted in COUNTED:
        op.execute(f"INSERT INTO counts (name, value) {counted}")
    op.create_index(
        "ix_jobs_waiting", "jobs", ["kind", "run_at"], postgresql_where=sa.text("state = 'queued'")
    )
    for table, column in REFERENCES:
        op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    for table, column in REFERENCES:
        op.drop_index(f"ix_{table}_{column}", table)
    op.drop_index("ix_jobs_waiting", "jobs")
    for table, events in TRIGGERS.items():
        for event in events:
            op.execute(f"DROP TRIGGER count_{table}_{event.lower()} ON {table}")
        op.execute(f"DROP FUNCTION count_{table}()")
    op.drop_table("count_changes")
    op.drop_table("counts")
