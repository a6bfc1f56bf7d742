"""Add labels, data sets, finetunes, schedules and the history of promotions.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The key as store.results.questions.normal_text has it, the task as the answering worker saw it.
QUESTIONS = r"""
UPDATE questions SET
    text_key = rtrim(lower(regexp_replace(btrim(text), '\s+', ' ', 'g')), ' ?!.'),
    task = CASE WHEN jsonb_typeof(input -> 'choices') = 'array' AND input -> 'choices' <> '[]'
                THEN 'multiple_choice' ELSE 'qa' END
"""

# What serves now was promoted once. The ids are UUIDv7 of that moment.
PROMOTIONS = """
INSERT INTO promotions (id, task, model_id, action, created_at)
SELECT (lpad(to_hex(floor(extract(epoch FROM promoted_at) * 1000)::bigint), 12, '0')
        || '70008' || substr(md5(task), 1, 15))::uuid,
       task, model_id, 'promote', promoted_at
FROM serving
"""


def upgrade() -> None:
    op.add_column(
        "jobs", sa.Column("pause_requested_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.create_index(
        "ix_jobs_copy_stem",
        "jobs",
        [sa.text(r"regexp_replace(result ->> 'filename', '\.[^.]*$', '')")],
        postgresql_where=sa.text("kind = 'ingest' AND video_id IS NOT NULL"),
    )
    op.create_index(
        "ix_videos_filename_stem",
        "videos",
        [sa.text(r"regexp_replace(filename, '\.[^.]*$', '')")],
    )
    op.create_index(
        "ix_videos_uri_stem",
        "videos",
        [sa.text(r"regexp_replace(regexp_replace(uri, '^.*/', ''), '\.[^.]*$', '')")],
    )
    op.add_column("generations", sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE generations SET retired_at = now() WHERE state = 'retired'")
    _widen_questions()
    _create_label_tables()
    _create_finetune_tables()
    op.execute(PROMOTIONS)


def _widen_questions() -> None:
    op.add_column("questions", sa.Column("text_key", sa.Text(), nullable=True))
    op.add_column("questions", sa.Column("task", sa.String(16), nullable=True))
    op.add_column("questions", sa.Column("trial_source", sa.Text(), nullable=True))
    op.add_column("questions", sa.Column("uncertainty", sa.Double(), nullable=True))
    op.execute(QUESTIONS)
    op.alter_column("questions", "text_key", nullable=False)
    op.alter_column("questions", "task", nullable=False)
    op.create_index(
        "ix_questions_uncertainty",
        "questions",
        ["task", "uncertainty", "id"],
        postgresql_where=sa.text("uncertainty IS NOT NULL"),
    )
    op.create_index(
        "ix_questions_trials",
        "questions",
        ["model_id"],
        postgresql_where=sa.text("trial_source IS NOT NULL"),
    )


def _create_label_tables() -> None:
    op.create_table(
        "video_splits",
        sa.Column("video_id", sa.Uuid(), nullable=False),
        sa.Column("split", sa.String(16), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["video_id"], ["videos.id"], name="fk_video_splits_video_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("video_id", name="pk_video_splits"),
    )
    op.create_table(
        "labels",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("video_id", sa.Uuid(), nullable=False),
        sa.Column("task", sa.String(16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("choices", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("right_choice", sa.Integer(), nullable=True),
        sa.Column("start_seconds", sa.Double(), nullable=True),
        sa.Column("end_seconds", sa.Double(), nullable=True),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("provenance", JSONB(), nullable=False),
        sa.Column("split", sa.String(16), nullable=False),
        sa.Column("content_sha256", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["video_id"], ["videos.id"], name="fk_labels_video_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_labels"),
    )
    op.create_index(
        "uq_labels_content_sha256",
        "labels",
        ["content_sha256"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_labels_task_id",
        "labels",
        ["task", "id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index("ix_labels_video_id", "labels", ["video_id"])
    op.create_table(
        "label_revisions",
        sa.Column("label_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("content", JSONB(), nullable=False),
        sa.Column("by", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["label_id"], ["labels.id"], name="fk_label_revisions_label_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("label_id", "revision", name="pk_label_revisions"),
    )
    op.create_table(
        "vocabularies",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("answers", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name="pk_vocabularies"),
        sa.UniqueConstraint("version", name="uq_vocabularies_version"),
        sa.UniqueConstraint("sha256", name="uq_vocabularies_sha256"),
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("task", sa.String(16), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("num_train", sa.Integer(), nullable=False),
        sa.Column("num_holdout", sa.Integer(), nullable=False),
        sa.Column("num_videos", sa.Integer(), nullable=False),
        sa.Column("answers", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("vocabulary_id", sa.Uuid(), nullable=True),
        sa.Column("filter", JSONB(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["vocabulary_id"], ["vocabularies.id"], name="fk_datasets_vocabulary_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("sha256", name="uq_datasets_sha256"),
    )
    op.create_table(
        "dataset_labels",
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("label_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("video_id", sa.Uuid(), nullable=False),
        sa.Column("video_sha256", sa.Text(), nullable=False),
        sa.Column("split", sa.String(16), nullable=False),
        sa.Column("content", JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name="fk_dataset_labels_dataset_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("dataset_id", "position", name="pk_dataset_labels"),
    )


def _create_finetune_tables() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("min_new_labels", sa.Integer(), nullable=False),
        sa.Column("misfire_policy", sa.String(16), nullable=False),
        sa.Column("overlap_policy", sa.String(16), nullable=False),
        sa.Column("finetune", JSONB(), nullable=False),
        sa.Column("next_fire_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint("name", name="uq_schedules_name"),
    )
    op.create_index(
        "ix_schedules_next_fire_at",
        "schedules",
        ["next_fire_at"],
        postgresql_where=sa.text("enabled"),
    )
    op.create_table(
        "finetunes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("task", sa.String(16), nullable=False),
        sa.Column("base_model_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("recipe", JSONB(), nullable=False),
        sa.Column("gate", JSONB(), nullable=False),
        sa.Column("request", JSONB(), nullable=False),
        sa.Column("schedule_id", sa.Uuid(), nullable=True),
        sa.Column("model_id", sa.Uuid(), nullable=True),
        sa.Column("report", JSONB(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["base_model_id"], ["models.id"], name="fk_finetunes_base_model_id"
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_finetunes_dataset_id"),
        sa.ForeignKeyConstraint(["id"], ["jobs.id"], name="fk_finetunes_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="fk_finetunes_model_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name="fk_finetunes_schedule_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_finetunes"),
    )
    op.create_index("ix_finetunes_schedule_id", "finetunes", ["schedule_id"])
    op.create_index("ix_finetunes_model_id", "finetunes", ["model_id"])
    op.create_index("ix_finetunes_dataset_id", "finetunes", ["dataset_id"])
    op.create_table(
        "schedule_fires",
        sa.Column("schedule_id", sa.Uuid(), nullable=False),
        sa.Column("fire_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("finetune_id", sa.Uuid(), nullable=True),
        sa.Column("is_manual", sa.Boolean(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["finetune_id"],
            ["finetunes.id"],
            name="fk_schedule_fires_finetune_id",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["schedules.id"],
            name="fk_schedule_fires_schedule_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("schedule_id", "fire_time", name="pk_schedule_fires"),
    )
    op.create_index("ix_schedule_fires_finetune_id", "schedule_fires", ["finetune_id"])
    op.create_table(
        "promotions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("task", sa.String(16), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=True),
        sa.Column("previous_model_id", sa.Uuid(), nullable=True),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("finetune_id", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.clock_timestamp(),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="fk_promotions_model_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["previous_model_id"],
            ["models.id"],
            name="fk_promotions_previous_model_id",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["finetune_id"], ["finetunes.id"], name="fk_promotions_finetune_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
    )
    op.create_index("ix_promotions_task", "promotions", ["task", "created_at"])
    op.create_index("ix_promotions_model_id", "promotions", ["model_id"])


def downgrade() -> None:
    for table in ("promotions", "schedule_fires", "finetunes", "schedules"):
        op.drop_table(table)
    for table in ("dataset_labels", "datasets", "vocabularies"):
        op.drop_table(table)
    for table in ("label_revisions", "labels", "video_splits"):
        op.drop_table(table)
    # The code of before knows neither these kinds and states nor what to do with such jobs.
    op.execute("DELETE FROM jobs WHERE kind IN ('finetune', 'trial')")
    op.execute("UPDATE generations SET state = 'retired' WHERE state = 'deleted'")
    op.drop_index("ix_questions_trials", "questions")
    op.drop_index("ix_questions_uncertainty", "questions")
    for column in ("uncertainty", "trial_source", "task", "text_key"):
        op.drop_column("questions", column)
    op.drop_column("generations", "retired_at")
    op.drop_index("ix_videos_uri_stem", "videos")
    op.drop_index("ix_videos_filename_stem", "videos")
    op.drop_index("ix_jobs_copy_stem", "jobs")
    op.drop_column("jobs", "pause_requested_at")
