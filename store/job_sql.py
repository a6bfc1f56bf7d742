"""The statements about jobs that are clearest as SQL: sets of rows, locks, clocks.

The states are spelled as literals where a partial index needs them to be.
"""

from sqlalchemy.sql.elements import ColumnElement

from store.job_state import TERMINAL_STATES
from store.tables import Job


def is_active() -> ColumnElement[bool]:
    """Give the condition of a job that is not over yet."""
    return Job.state.not_in(TERMINAL_STATES)


INSERT_MANY = """
WITH new AS (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        id uuid, kind text, input jsonb, priority int, batch_id uuid, batch_index int,
        video_id uuid, idempotency_key text, dedupe_key text, run_at timestamptz,
        error_code text, error_message text)
), inserted AS (
    INSERT INTO jobs (id, kind, state, input, priority, batch_id, batch_index, video_id,
                      idempotency_key, dedupe_key, run_at, num_events, error_code, error_message,
                      finished_at)
    SELECT id, kind, CASE WHEN error_code IS NULL THEN 'queued' ELSE 'failed' END, input, priority,
           batch_id, batch_index, video_id, idempotency_key, dedupe_key, coalesce(run_at, now()), 1,
           error_code, error_message, CASE WHEN error_code IS NOT NULL THEN now() END
    FROM new
    ON CONFLICT DO NOTHING
    RETURNING id, state
), events AS (
    INSERT INTO job_events (job_id, seq, type, data) SELECT id, 1, state, '{}' FROM inserted
)
SELECT count(*) FROM inserted
"""

# Each kind gives its first rows from the index, then the best of them are taken. A row that another
# worker locked is passed over; one that is locked here and not taken is free again at the commit.
CLAIM = """
WITH candidates AS (
    SELECT due.id, due.priority, due.run_at
    FROM unnest(CAST(:kinds AS text[])) AS wanted(kind)
    CROSS JOIN LATERAL (
        SELECT id, priority, run_at FROM jobs
        WHERE jobs.kind = wanted.kind AND state = 'queued' AND run_at <= now()
        ORDER BY priority, run_at, id
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ) AS due
), preferred AS (
    SELECT id, -2147483648 AS priority, run_at FROM jobs
    WHERE id = CAST(:prefer_id AS uuid) AND kind = ANY(CAST(:kinds AS text[]))
      AND state = 'queued' AND run_at <= now()
    FOR UPDATE SKIP LOCKED
), taken AS (
    SELECT DISTINCT ON (priority, run_at, id) id, priority, run_at
    FROM (SELECT * FROM preferred
          UNION ALL
          SELECT * FROM candidates WHERE id IS DISTINCT FROM (SELECT id FROM preferred)) AS every
    ORDER BY priority, run_at, id
    LIMIT :limit
), claimed AS (
    UPDATE jobs SET
        state = 'running',
        attempt = attempt + 1,
        lease_token = lease_token + 1,
        lease_owner = :owner,
        lease_expires_at = now() + CAST(:lease AS interval),
        started_at = now(),
        updated_at = now(),
        num_events = num_events + 1
    FROM taken
    WHERE jobs.id = taken.id
    RETURNING jobs.id, kind, input, attempt, lease_token, batch_id, video_id, created_at,
              num_events, taken.priority, taken.run_at
), events AS (
    INSERT INTO job_events (job_id, seq, type, data)
    SELECT id, num_events, 'claimed',
           jsonb_build_object('owner', CAST(:owner AS text), 'attempt', attempt)
    FROM claimed
)
SELECT * FROM claimed ORDER BY priority, run_at, id
"""

EXTEND = """
UPDATE jobs SET lease_expires_at = now() + CAST(:lease AS interval)
FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS bigint[])) AS held(id, token)
WHERE jobs.id = held.id AND jobs.lease_token = held.token
  AND state IN ('running', 'cancelling')
RETURNING jobs.id, state = 'cancelling' AS is_cancelling,
          pause_requested_at IS NOT NULL AS is_pausing
"""

REPORT_PROGRESS = """
UPDATE jobs SET progress_done = :done, progress_total = :total, stage = :stage, updated_at = now()
FROM (SELECT id, stage FROM jobs WHERE id = :id FOR UPDATE) AS before
WHERE jobs.id = before.id AND lease_token = :token AND state IN ('running', 'cancelling')
RETURNING before.stage IS DISTINCT FROM jobs.stage AS stage_changed
"""

RETURN_LOST = """
WITH lost AS (
    SELECT id FROM jobs
    WHERE state IN ('running', 'cancelling') AND lease_expires_at < now()
    ORDER BY lease_expires_at
    FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE jobs SET
        worker_losses = worker_losses + 1,
        state = CASE WHEN state = 'cancelling' THEN 'cancelled'
                     WHEN worker_losses + 1 >= :max_losses THEN 'quarantined'
                     WHEN pause_requested_at IS NOT NULL THEN 'paused'
                     ELSE 'queued' END,
        pause_requested_at = NULL,
        error_code = CASE WHEN state = 'cancelling' THEN NULL ELSE 'worker_lost' END,
        error_message = CASE WHEN state = 'cancelling' THEN NULL
            ELSE 'the worker stopped in the middle of this job, ' || (worker_losses + 1)
                 || CASE WHEN worker_losses = 0 THEN ' time' ELSE ' times' END || ' so far' END,
        run_at = now(),
        finished_at = CASE WHEN state = 'cancelling' OR worker_losses + 1 >= :max_losses
                           THEN now() END,
        lease_owner = NULL,
        lease_expires_at = NULL,
        updated_at = now(),
        num_events = num_events + 1
    FROM lost
    WHERE jobs.id = lost.id
    RETURNING jobs.id, kind, state, num_events, worker_losses
), events AS (
    INSERT INTO job_events (job_id, seq, type, data)
    SELECT id, num_events, 'lost', jsonb_build_object('state', state, 'losses', worker_losses)
    FROM moved
)
SELECT id, kind, state FROM moved
"""

# Beside a change of state, which has counted its event already.
INSERT_EVENTS = """
INSERT INTO job_events (job_id, seq, type, data)
SELECT id, seq, CAST(:type AS text), CAST(:data AS jsonb)
FROM unnest(CAST(:ids AS uuid[]), CAST(:seqs AS int[])) AS moved(id, seq)
"""

# With no change of state.
ADD_EVENT = """
WITH counted AS (
    UPDATE jobs SET num_events = num_events + 1
    WHERE id = :id
    RETURNING id, num_events
)
INSERT INTO job_events (job_id, seq, type, data)
SELECT id, num_events, CAST(:type AS text), CAST(:data AS jsonb) FROM counted
"""

# By the worker that holds the job.
ADD_CLAIM_EVENT = """
WITH counted AS (
    UPDATE jobs SET num_events = num_events + 1
    WHERE id = :id AND lease_token = :token AND state IN ('running', 'cancelling')
    RETURNING id, num_events
)
INSERT INTO job_events (job_id, seq, type, data)
SELECT id, num_events, CAST(:type AS text), CAST(:data AS jsonb) FROM counted
RETURNING seq
"""

# A video waits for its embed job: if that is over without success, so is the video.
FAIL_VIDEOS = """
UPDATE videos SET
    state = 'failed',
    error_code = coalesce(jobs.error_code, 'cancelled'),
    error_message = coalesce(jobs.error_message, 'the job was cancelled'),
    updated_at = now()
FROM jobs
WHERE jobs.id = ANY(CAST(:ids AS uuid[])) AND jobs.kind = 'embed'
  AND jobs.state IN ('failed', 'cancelled', 'quarantined')
  AND videos.id = jobs.video_id AND videos.state = 'processing'
"""

REVIVE_VIDEOS = """
UPDATE videos SET state = 'processing', error_code = NULL, error_message = NULL, updated_at = now()
FROM jobs
WHERE jobs.id = ANY(CAST(:ids AS uuid[])) AND jobs.kind = 'embed' AND jobs.state = 'queued'
  AND videos.id = jobs.video_id AND videos.state = 'failed'
"""

# Bounded: after an outage a hundred thousand jobs may wait for their next try.
WAITING_FOR_LATER = """
SELECT kind, later FROM unnest(CAST(:kinds AS text[])) AS wanted(kind)
CROSS JOIN LATERAL (
    SELECT count(*) AS later
    FROM (SELECT FROM jobs
          WHERE jobs.kind = wanted.kind AND state = 'queued' AND run_at > now()
          LIMIT 10000) AS bounded) AS counted
"""

DUE_UP_TO = """
SELECT kind, due FROM unnest(CAST(:kinds AS text[])) AS wanted(kind)
CROSS JOIN LATERAL (
    SELECT count(*) AS due
    FROM (SELECT FROM jobs
          WHERE jobs.kind = wanted.kind AND state = 'queued' AND run_at <= now()
          LIMIT :most) AS bounded) AS counted
"""
