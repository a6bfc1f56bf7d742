"""Count the items of batches while their jobs and videos change.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# What became of an item, by its ingest job and the video that led to, if there is one still.
ITEM_STATE = """
CREATE FUNCTION item_state(job_state text, video_state text, video_error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN job_state IN ('queued', 'paused') THEN 'queued'
    WHEN job_state IN ('failed', 'cancelled', 'quarantined') THEN job_state
    WHEN job_state <> 'succeeded' THEN 'running'
    WHEN video_state = 'processing' THEN 'running'
    WHEN video_state = 'failed' AND video_error = 'cancelled' THEN 'cancelled'
    WHEN video_state = 'failed' AND video_error = 'worker_lost' THEN 'quarantined'
    WHEN video_state = 'failed' THEN 'failed'
    ELSE 'succeeded'
END
"""

# Of a job's video, found by its key whatever the planner knew when it saw this first.
_OF_JOB = """
CASE WHEN state = 'succeeded' THEN coalesce((
         SELECT item_state('succeeded', videos.state, videos.error_code) FROM videos
         WHERE videos.id = video_id), 'succeeded')
     ELSE item_state(state, NULL, NULL) END"""
_DUPLICATE = "coalesce((result ->> 'duplicate')::boolean, false)"

# Appended in one statement for all rows of the one that changed them. Jobs that are deleted stay
# counted: retention removes the items of batches that are over, and not what became of them.
OF_JOBS = f"""
CREATE FUNCTION count_items_of_jobs() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO batch_deltas (batch_id, state, duplicates, change, ended_at)
        SELECT batch_id, state, count(*) FILTER (WHERE is_duplicate), count(*),
               CASE WHEN state NOT IN ('queued', 'running') THEN now() END
        FROM (SELECT batch_id, {_OF_JOB} AS state, {_DUPLICATE} AS is_duplicate FROM new_rows
              WHERE kind = 'ingest' AND batch_id IS NOT NULL) AS came
        GROUP BY batch_id, state;
    ELSE
        INSERT INTO batch_deltas (batch_id, state, duplicates, change, ended_at)
        SELECT batch_id, state, coalesce(sum(change) FILTER (WHERE is_duplicate), 0), sum(change),
               CASE WHEN state NOT IN ('queued', 'running') AND sum(change) > 0 THEN now() END
        FROM (SELECT batch_id, {_OF_JOB} AS state, {_DUPLICATE} AS is_duplicate, 1 AS change
              FROM new_rows WHERE kind = 'ingest' AND batch_id IS NOT NULL
              UNION ALL
              SELECT batch_id, {_OF_JOB}, {_DUPLICATE}, -1
              FROM old_rows WHERE kind = 'ingest' AND batch_id IS NOT NULL) AS moved
        WHERE EXISTS (SELECT FROM batches WHERE batches.id = batch_id)
        GROUP BY batch_id, state
        HAVING sum(change) <> 0 OR coalesce(sum(change) FILTER (WHERE is_duplicate), 0) <> 0;
    END IF;
    RETURN NULL;
END
$$
"""  # noqa: S608 - put together from constants

# A video's items follow its state. Before it is deleted, since afterwards no job leads to it.
OF_VIDEO = f"""
CREATE FUNCTION count_items_of_video() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
DECLARE
    before text := item_state('succeeded', OLD.state, OLD.error_code);
    after text := 'succeeded';
BEGIN
    IF TG_OP = 'UPDATE' THEN
        after := item_state('succeeded', NEW.state, NEW.error_code);
    END IF;
    IF before <> after THEN
        INSERT INTO batch_deltas (batch_id, state, duplicates, change, ended_at)
        SELECT batch_id, moved.state, sign * num_duplicates, sign * num_items,
               CASE WHEN sign > 0 AND moved.state NOT IN ('queued', 'running') THEN now() END
        FROM (SELECT batch_id, count(*) AS num_items,
                     count(*) FILTER (WHERE {_DUPLICATE}) AS num_duplicates
              FROM jobs
              WHERE video_id = OLD.id AND kind = 'ingest' AND state = 'succeeded'
                AND batch_id IS NOT NULL
              GROUP BY batch_id) AS items
        CROSS JOIN (VALUES (before, -1), (after, 1)) AS moved(state, sign);
    END IF;
    RETURN OLD;
END
$$
"""  # noqa: S608

TRIGGERS = (
    "CREATE TRIGGER count_items_insert AFTER INSERT ON jobs REFERENCING NEW TABLE AS new_rows "
    "FOR EACH STATEMENT EXECUTE FUNCTION count_items_of_jobs()",
    "CREATE TRIGGER count_items_update AFTER UPDATE ON jobs "
    "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows "
    "FOR EACH STATEMENT EXECUTE FUNCTION count_items_of_jobs()",
    "CREATE TRIGGER count_items_update AFTER UPDATE OF state, error_code ON videos FOR EACH ROW "
    "WHEN (OLD.state <> NEW.state OR OLD.error_code IS DISTINCT FROM NEW.error_code) "
    "EXECUTE FUNCTION count_items_of_video()",
    "CREATE TRIGGER count_items_delete BEFORE DELETE ON videos FOR EACH ROW "
    "EXECUTE FUNCTION count_items_of_video()",
)

COUNTED = f"""
INSERT INTO batch_deltas (batch_id, state, duplicates, change, ended_at, is_folded)
SELECT batch_id, state, count(*) FILTER (WHERE is_duplicate), count(*),
       CASE WHEN state NOT IN ('queued', 'running') THEN max(changed_at) END, true
FROM (SELECT jobs.batch_id, {_DUPLICATE} AS is_duplicate,
             item_state(jobs.state, videos.state, videos.error_code) AS state,
             greatest(jobs.finished_at, videos.updated_at) AS changed_at
      FROM jobs LEFT JOIN videos ON videos.id = jobs.video_id
      WHERE jobs.kind = 'ingest' AND jobs.batch_id IS NOT NULL) AS items
GROUP BY batch_id, state
"""  # noqa: S608


def upgrade() -> None:
    op.execute(ITEM_STATE)
    op.create_table(
        "batch_deltas",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_folded", sa.Boolean(), server_default="false", nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name="fk_batch_deltas_batch_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_batch_deltas"),
    )
    # Rows come and go by the thousand: vacuumed by number, not by share.
    op.execute(
        "ALTER TABLE batch_deltas SET "
        "(autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)"
    )
    op.create_index("ix_batch_deltas_batch_id", "batch_deltas", ["batch_id"])
    op.create_index(
        "ix_batch_deltas_unfolded",
        "batch_deltas",
        ["id"],
        postgresql_where=sa.text("NOT is_folded"),
    )
    op.execute(OF_JOBS)
    op.execute(OF_VIDEO)
    for trigger in TRIGGERS:
        op.execute(trigger)
    op.execute(COUNTED)


def downgrade() -> None:
    op.execute("DROP TRIGGER count_items_delete ON videos")
    op.execute("DROP TRIGGER count_items_update ON videos")
    op.execute("DROP TRIGGER count_items_update ON jobs")
    op.execute("DROP TRIGGER count_items_insert ON jobs")
    op.execute("DROP FUNCTION count_items_of_video()")
    op.execute("DROP FUNCTION count_items_of_jobs()")
    op.drop_table("batch_deltas")
    op.execute("DROP FUNCTION item_state(text, text, text)")
