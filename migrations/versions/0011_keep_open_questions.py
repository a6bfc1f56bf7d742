"""Keep of each question whether a label is still worth something.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Case, spaces and closing marks do not tell two questions apart.
KEY = r"""
CREATE FUNCTION question_key(said text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN rtrim(lower(regexp_replace(btrim(said), '\s+', ' ', 'g')), ' ?!.')
"""

# The last answer to a question about a video is open until a person gives the right one. The flag
# may only ever err to one side: what is not open is known not to be (suggestions read nothing
# else), and what is open is compared again where it is read. So whoever closes an answer holds the
# row that closes it until the commit, or takes it for gone if another transaction has it in hand;
# and whoever takes such a row away looks for what it had closed after those who held it.
_SAME = (
    "video_id = {of}.video_id AND task = {of}.task "
    "AND md5(text_key) = md5({of}.text_key) AND text_key = {of}.text_key"
)
_OF_NEW = _SAME.format(of="NEW")

ANSWERED = f"""
CREATE FUNCTION open_question() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    NEW.is_open := false;
    IF NEW.uncertainty IS NULL OR NEW.video_id IS NULL THEN
        RETURN NEW;
    END IF;
    PERFORM FROM labels
    WHERE video_id = NEW.video_id AND task = NEW.task AND deleted_at IS NULL
      AND question_key(text) = NEW.text_key
    LIMIT 1 FOR SHARE SKIP LOCKED;
    IF FOUND THEN
        RETURN NEW;
    END IF;
    PERFORM FROM questions WHERE is_open AND {_OF_NEW} AND id > NEW.id
    LIMIT 1 FOR SHARE SKIP LOCKED;
    NEW.is_open := NOT FOUND;
    RETURN NEW;
END
$$
"""

ASKED_AGAIN = f"""
CREATE FUNCTION close_older_answers() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    UPDATE questions SET is_open = false WHERE is_open AND {_OF_NEW} AND id < NEW.id;
    RETURN NULL;
END
$$
"""  # noqa: S608

# When a label or an answer goes. Waits for whoever has the newest answer in hand: it may be
# deleted, and then the one before is the newest.
REOPEN = """
CREATE FUNCTION reopen_question(of_video uuid, of_task text, key text) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    newest uuid;
BEGIN
    PERFORM FROM labels
    WHERE video_id = of_video AND task = of_task AND deleted_at IS NULL
      AND question_key(text) = key
    LIMIT 1 FOR SHARE SKIP LOCKED;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT id INTO newest FROM questions
    WHERE video_id = of_video AND task = of_task AND md5(text_key) = md5(key) AND text_key = key
      AND uncertainty IS NOT NULL
    ORDER BY id DESC LIMIT 1 FOR NO KEY UPDATE;
    UPDATE questions SET is_open = true WHERE id = newest AND NOT is_open;
END
$$
"""

REMOVED = """
CREATE FUNCTION reopen_asked_before() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM reopen_question(OLD.video_id, OLD.task, OLD.text_key);
    RETURN NULL;
END
$$
"""

LABELLED = """
CREATE FUNCTION close_question() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    key text := question_key(NEW.text);
BEGIN
    IF NEW.deleted_at IS NULL THEN
        UPDATE questions SET is_open = false
        WHERE is_open AND video_id = NEW.video_id AND task = NEW.task
          AND md5(text_key) = md5(key) AND text_key = key;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        PERFORM reopen_question(OLD.video_id, OLD.task, question_key(OLD.text));
    END IF;
    RETURN NULL;
END
$$
"""

TRIGGERS = {
    "open_question": "BEFORE INSERT OR UPDATE OF uncertainty ON questions FOR EACH ROW "
    "EXECUTE FUNCTION open_question()",
    "close_older_answers": "AFTER INSERT OR UPDATE OF uncertainty ON questions FOR EACH ROW "
    "WHEN (NEW.is_open) EXECUTE FUNCTION close_older_answers()",
    "reopen_question_unsure": "AFTER UPDATE OF uncertainty ON questions FOR EACH ROW "
    "WHEN (OLD.uncertainty IS NOT NULL AND NEW.uncertainty IS NULL) "
    "EXECUTE FUNCTION reopen_asked_before()",
    "reopen_question_deleted": "AFTER DELETE ON questions FOR EACH ROW "
    "WHEN (OLD.uncertainty IS NOT NULL AND OLD.video_id IS NOT NULL) "
    "EXECUTE FUNCTION reopen_asked_before()",
    "close_question_labelled": "AFTER INSERT ON labels FOR EACH ROW "
    "EXECUTE FUNCTION close_question()",
    "close_question_changed": "AFTER UPDATE OF text, deleted_at ON labels FOR EACH ROW "
    "WHEN (OLD.text <> NEW.text OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at) "
    "EXECUTE FUNCTION close_question()",
}

# By one sort of the answers, and one of the labels.
OPEN = """
UPDATE questions SET is_open = true
FROM (SELECT DISTINCT ON (video_id, task, text_key) id, video_id, task, text_key
      FROM questions WHERE uncertainty IS NOT NULL AND video_id IS NOT NULL
      ORDER BY video_id, task, text_key, id DESC) AS newest
LEFT JOIN (SELECT DISTINCT video_id, task, question_key(text) AS text_key
           FROM labels WHERE deleted_at IS NULL) AS labelled USING (video_id, task, text_key)
WHERE questions.id = newest.id AND labelled.video_id IS NULL
"""

_IS_OPEN = "is_open AND uncertainty IS NOT NULL AND video_id IS NOT NULL"


def upgrade() -> None:
    op.add_column(
        "questions", sa.Column("is_open", sa.Boolean(), server_default="false", nullable=False)
    )
    for function in (KEY, ANSWERED, ASKED_AGAIN, REOPEN, REMOVED, LABELLED):
        op.execute(function)
    op.drop_index("ix_questions_uncertainty", "questions")
    op.drop_index("ix_questions_video_id", "questions")
    op.execute(OPEN)
    op.create_index(
        "ix_questions_uncertainty",
        "questions",
        ["task", "uncertainty", "id"],
        postgresql_where=sa.text(_IS_OPEN),
    )
    op.create_index(
        "ix_questions_open",
        "questions",
        ["video_id", sa.text("md5(text_key)")],
        postgresql_where=sa.text("is_open"),
    )
    op.create_index(
        "ix_questions_answered",
        "questions",
        ["video_id", sa.text("md5(text_key)"), "id"],
        postgresql_where=sa.text("uncertainty IS NOT NULL"),
    )
    op.create_index("ix_questions_video_id", "questions", ["video_id", "id"])
    for name, trigger in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {trigger}")


def downgrade() -> None:
    for name, trigger in TRIGGERS.items():
        table = "questions" if " ON questions " in trigger else "labels"
        op.execute(f"DROP TRIGGER {name} ON {table}")
    op.drop_index("ix_questions_video_id", "questions")
    op.create_index("ix_questions_video_id", "questions", ["video_id"])
    for name in ("answered", "open", "uncertainty"):
        op.drop_index(f"ix_questions_{name}", "questions")
    op.create_index(
        "ix_questions_uncertainty",
        "questions",
        ["task", "uncertainty", "id"],
        postgresql_where=sa.text("uncertainty IS NOT NULL"),
    )
    for function in (
        "close_question()",
        "reopen_asked_before()",
        "reopen_question(uuid, text, text)",
        "close_older_answers()",
        "open_question()",
        "question_key(text)",
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.drop_column("questions", "is_open")
