"""Find the ends of queues by their indexes, whatever the planner knows.

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Without statistics, as in a bulk that came a moment ago, all indexes of what waits cost the
# planner the same: it read and sorted all of it to find its end. Without sorts one index is left.
HEAD = """
CREATE FUNCTION head_turn(of_kind text, of_priority int) RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_sort = off SET enable_seqscan = off AS $$
BEGIN
    RETURN (SELECT turn FROM jobs
            WHERE kind = of_kind AND state = 'queued'
              AND priority >= of_priority AND priority <= of_priority
            ORDER BY priority, turn LIMIT 1);
END
$$
"""

# A range and an order by the batch, or the index of all turns would have the order too.
LAST = """
CREATE FUNCTION last_turn(of_kind text, of_priority int, of_key uuid, of_batch uuid)
RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_sort = off SET enable_seqscan = off AS $$
DECLARE
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    queue CONSTANT uuid := coalesce(of_batch, nobody);
BEGIN
    RETURN (SELECT turn FROM jobs
            WHERE kind = of_kind AND priority = of_priority AND state = 'queued'
              AND coalesce(api_key_id, '00000000-0000-0000-0000-000000000000'::uuid)
                  = coalesce(of_key, nobody)
              AND coalesce(batch_id, '00000000-0000-0000-0000-000000000000'::uuid) >= queue
              AND coalesce(batch_id, '00000000-0000-0000-0000-000000000000'::uuid) <= queue
            ORDER BY coalesce(batch_id, '00000000-0000-0000-0000-000000000000'::uuid) DESC,
                     turn DESC
            LIMIT 1);
END
$$
"""


def upgrade() -> None:
    op.execute(HEAD)
    op.execute(LAST)


def downgrade() -> None:
    op.execute("DROP FUNCTION last_turn(text, int, uuid, uuid)")
    op.execute("DROP FUNCTION head_turn(text, int)")
