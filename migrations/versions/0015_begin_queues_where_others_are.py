"""Begin new queues where others are served now, whatever waits for later.

Revision ID: 0015
Revises: 0014
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# A file that still grows waits for minutes, with the turn that it had. Who came meanwhile would
# begin there, and go before all that has waited longer. Bounded: after an outage all may wait.
HEAD = """
CREATE OR REPLACE FUNCTION head_turn(of_kind text, of_priority int) RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_sort = off SET enable_seqscan = off AS $$
DECLARE
    head bigint;
BEGIN
    SELECT turn INTO head
    FROM (SELECT turn, run_at FROM jobs
          WHERE kind = of_kind AND state = 'queued'
            AND priority >= of_priority AND priority <= of_priority
          ORDER BY priority, turn LIMIT 1000) AS first
    WHERE run_at <= now() LIMIT 1;
    IF FOUND THEN
        RETURN head;
    END IF;
    RETURN (SELECT max(turn)
            FROM (SELECT turn FROM jobs
                  WHERE kind = of_kind AND state = 'queued'
                    AND priority >= of_priority AND priority <= of_priority
                  ORDER BY priority, turn LIMIT 1000) AS first);
END
$$
"""

HEAD_BEFORE = """
CREATE OR REPLACE FUNCTION head_turn(of_kind text, of_priority int) RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_sort = off SET enable_seqscan = off AS $$
BEGIN
    RETURN (SELECT turn FROM jobs
            WHERE kind = of_kind AND state = 'queued'
              AND priority >= of_priority AND priority <= of_priority
            ORDER BY priority, turn LIMIT 1);
END
$$
"""


def upgrade() -> None:
    op.execute(HEAD)


def downgrade() -> None:
    op.execute(HEAD_BEFORE)
