"""The statements about jobs that are clearest as SQL: sets of rows, locks, clocks.

The states are spelled as literals where a partial index needs them to be.
"""

from sqlalchemy.sql.elements import ColumnElement

from store.jobs.state import TERMINAL_STATES
from store.jobs.tables import Job


def is_active() -> ColumnElement[bool]:
    """Return the condition of a job that is not over yet."""
    return Job.state.not_in(TERMINAL_STATES)


def head_turn(job: str) -> str:
    """Return the SQL of the turn that is served next among the jobs of a row's kind and priority.

    Jobs that wait for later do not count. By functions of the database (migrations 0013 and 0015),
    which are led by an index also where the planner has no statistics yet, as of a bulk that came a
    moment ago.

    Args:
        job: alias of a row that has `kind` and `priority`.
    """
    return f"head_turn({job}.kind, {job}.priority)"


def next_turn(job: str) -> str:
    """Return the SQL of the turn of a job that joins its queue at the end; see docs/decisions.

    That is the one after the last of its queue, which is one API key's jobs of one batch; and of a
    queue that is empty the turn that is served next, so that neither idling nor coming late counts.

    Args:
        job: alias of a row that has `kind`, `priority`, `api_key_id` and `batch_id`.
    """
    last = f"last_turn({job}.kind, {job}.priority, {job}.api_key_id, {job}.batch_id)"
    return f"coalesce(greatest({head_turn(job)}, {last} + 1), 0)"


def first_turn(job: str) -> str:
    """Return the SQL of the turn of a job that goes before all others of its kind and priority.

    One before the first, whatever turn it had: the head is also where new queues begin.
    """
    return f"coalesce({head_turn(job)} - 1, {job}.turn)"


INSERT_MANY = f"""
WITH new AS (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        position int, id uuid, kind text, input jsonb, priority int, api_key_id uuid,
        batch_id uuid, batch_index int, video_id uuid, idempotency_key text, dedupe_key text,
        run_at timestamptz, error_code text, error_message text)
), placed AS (
    SELECT *, row_number() OVER (
        PARTITION BY kind, priority, api_key_id, batch_id ORDER BY position) AS place
    FROM new
), numbered AS (
    SELECT *, place - 1 + max(CASE WHEN place = 1 THEN {next_turn("placed")} END) OVER (
        PARTITION BY kind, priority, api_key_id, batch_id) AS turn
    FROM placed
), inserted AS (
    INSERT INTO jobs (id, kind, state, input, priority, turn, api_key_id, batch_id, batch_index,
                      video_id, idempotency_key, dedupe_key, run_at, num_events, error_code,
                      error_message, finished_at)
    SELECT id, kind, CASE WHEN error_code IS NULL THEN 'queued' ELSE 'failed' END, input, priority,
           turn, api_key_id, batch_id, batch_index, video_id, idempotency_key, dedupe_key,
           coalesce(run_at, now()), 1, error_code, error_message,
           CASE WHEN error_code IS NOT NULL THEN now() END
    FROM numbered
    ORDER BY position
    ON CONFLICT DO NOTHING
    RETURNING id, state
), events AS (
    INSERT INTO job_events (job_id, seq, type, data) SELECT id, 1, state, '{{}}' FROM inserted
)
SELECT id FROM inserted
"""  # noqa: S608

# Each kind gives its first rows from the index, then the best of them are taken, the kinds in turn.
# A row that another worker locked is passed over; one that is locked here and not taken is free
# again at the commit. A suspect, which was lost with a worker, is taken with nothing beside it; see
# LeasedJobs.claim for the rules.
CLAIM = """
WITH company AS MATERIALIZED (
    SELECT count(*) > 0 AS is_busy, coalesce(bool_or(worker_losses > 0), false) AS has_suspect
    FROM jobs
    WHERE lease_owner = :owner AND state IN ('running', 'cancelling') AND lease_expires_at > now()
), candidates AS (
    SELECT due.*
    FROM company
    CROSS JOIN unnest(CAST(:kinds AS text[])) AS wanted(kind)
    CROSS JOIN LATERAL (
        SELECT id, kind, priority, turn, run_at, worker_losses > 0 AS is_suspect FROM jobs
        WHERE jobs.kind = wanted.kind AND state = 'queued' AND run_at <= now()
          AND (worker_losses = 0 OR NOT company.is_busy
               OR run_at <= now() - CAST(:suspect_patience AS interval))
        ORDER BY priority, turn, run_at, id
        LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS due
    WHERE NOT company.has_suspect
), placed AS (
    SELECT *, row_number() OVER (
        PARTITION BY kind, priority ORDER BY turn, run_at, id) AS place
    FROM candidates
), ordered AS (
    SELECT *, row_number() OVER best AS position, first_value(is_suspect) OVER best AS is_alone
    FROM placed WINDOW best AS (ORDER BY priority, place, run_at, id)
), taken AS (
    SELECT id, position FROM ordered
    WHERE CASE WHEN is_alone THEN position = 1 ELSE NOT is_suspect END
    ORDER BY position
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
    RETURNING jobs.id, kind, input, attempt, lease_token, priority, api_key_id, batch_id, video_id,
              created_at, worker_losses, num_events, taken.position
), events AS (
    INSERT INTO job_events (job_id, seq, type, data)
    SELECT id, num_events, 'claimed',
           jsonb_build_object('owner', CAST(:owner AS text), 'attempt', attempt)
    FROM claimed
)
SELECT * FROM claimed ORDER BY position
"""

# Jobs in the order of their ids, as everywhere: see store/lock_order.py.
EXTEND = """
WITH held AS (
    SELECT jobs.id
    FROM jobs
    JOIN unnest(CAST(:ids AS uuid[]), CAST(:tokens AS bigint[])) AS claim(id, token)
      ON jobs.id = claim.id AND jobs.lease_token = claim.token
    WHERE state IN ('running', 'cancelling')
    ORDER BY jobs.id
    FOR NO KEY UPDATE OF jobs
)
UPDATE jobs SET lease_expires_at = now() + CAST(:lease AS interval)
FROM held
WHERE jobs.id = held.id
RETURNING jobs.id, state = 'cancelling' AS is_cancelling,
          pause_requested_at IS NOT NULL AS is_pausing
"""

# A job that is further than it ever was when it lost a worker is not what killed that one.
REPORT_PROGRESS = """
UPDATE jobs SET progress_done = :done, progress_total = :total, stage = :stage, updated_at = now(),
    worker_losses = CASE WHEN :done > lost_progress THEN 0 ELSE worker_losses END
FROM (SELECT id, stage FROM jobs WHERE id = :id FOR NO KEY UPDATE) AS before
WHERE jobs.id = before.id AND lease_token = :token AND state IN ('running', 'cancelling')
RETURNING before.stage IS DISTINCT FROM jobs.stage AS stage_changed
"""

# All that hold jobs, by the index of those that are held: few.
OWNERS = """
SELECT DISTINCT lease_owner FROM jobs
WHERE state IN ('running', 'cancelling') AND lease_owner IS NOT NULL
"""

END_LEASES = """
WITH held AS (
    SELECT id FROM jobs
    WHERE lease_owner = ANY(CAST(:owners AS text[])) AND state IN ('running', 'cancelling')
      AND lease_expires_at >= now()
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs SET lease_expires_at = now() - interval '1 second'
FROM held
WHERE jobs.id = held.id
"""

# Of an embed job the video is locked first, for it may fail with its job. What somebody else has in
# hand is left for the next time.
LOCK_VIDEOS_OF_LOST = """
SELECT id FROM videos
WHERE id IN (SELECT video_id FROM jobs
             WHERE state IN ('running', 'cancelling') AND lease_expires_at < now()
               AND kind = 'embed')
ORDER BY id
FOR NO KEY UPDATE SKIP LOCKED
"""

# A loss counts for every job that the process held, but where one of them was a suspect: then for
# that one alone.
RETURN_LOST = f"""
WITH lost AS (
    SELECT id, CASE WHEN progress_done > lost_progress THEN 0 ELSE worker_losses END
             + CASE WHEN worker_losses = 0 AND EXISTS (
                   SELECT FROM jobs AS suspect
                   WHERE suspect.lease_owner = jobs.lease_owner
                     AND suspect.state IN ('running', 'cancelling')
                     AND suspect.worker_losses > 0) THEN 0 ELSE 1 END AS losses,
           {first_turn("jobs")} AS first_turn
    FROM jobs
    WHERE state IN ('running', 'cancelling') AND lease_expires_at < now()
      AND (kind <> 'embed' OR video_id IS NULL OR video_id = ANY(CAST(:video_ids AS uuid[])))
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
), moved AS (
    UPDATE jobs SET
        worker_losses = losses,
        lost_progress = greatest(lost_progress, progress_done),
        state = CASE WHEN state = 'cancelling' THEN 'cancelled'
                     WHEN losses >= :max_losses THEN 'quarantined'
                     WHEN pause_requested_at IS NOT NULL THEN 'paused'
                     ELSE 'queued' END,
        pause_requested_at = NULL,
        error_code = CASE WHEN state = 'cancelling' THEN NULL ELSE 'worker_lost' END,
        error_message = CASE
            WHEN state = 'cancelling' THEN NULL
            WHEN losses = 0 THEN 'the worker stopped at another job, while it held this one too'
            ELSE 'the worker stopped in the middle of this job, ' || losses
                 || CASE WHEN losses = 1 THEN ' time' ELSE ' times' END || ' so far' END,
        run_at = now(),
        turn = first_turn,
        finished_at = CASE WHEN state = 'cancelling' OR losses >= :max_losses THEN now() END,
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
"""  # noqa: S608

# With a clean count, at the end of their queues, each in its place there. Locked before.
RETRY = f"""
WITH placed AS (
    SELECT id, kind, priority, api_key_id, batch_id, row_number() OVER (
        PARTITION BY kind, priority, api_key_id, batch_id ORDER BY batch_index, id) AS place
    FROM jobs
    WHERE id = ANY(CAST(:ids AS uuid[]))
), numbered AS (
    SELECT id, place - 1 + max(CASE WHEN place = 1 THEN {next_turn("placed")} END) OVER (
        PARTITION BY kind, priority, api_key_id, batch_id) AS turn
    FROM placed
), moved AS (
    UPDATE jobs SET
        state = 'queued', turn = numbered.turn, run_at = now(), attempt = 0,
        worker_losses = 0, lost_progress = 0,
        cancel_requested_at = NULL, error_code = NULL, error_message = NULL, error_detail = NULL,
        progress_done = 0, progress_total = NULL, stage = NULL, finished_at = NULL,
        updated_at = now(), num_events = num_events + 1
    FROM numbered
    WHERE jobs.id = numbered.id
    RETURNING jobs.id, num_events
), events AS (
    INSERT INTO job_events (job_id, seq, type, data)
    SELECT id, num_events, 'retried', '{{}}' FROM moved
)
SELECT id FROM moved
"""  # noqa: S608

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

# In an order, so that the index is read where the planner would look for some rows anywhere: of a
# kind with none it would read the whole table.
# Bounded: after an outage a hundred thousand jobs may wait for their next try.
WAITING_FOR_LATER = """
SELECT kind, later FROM unnest(CAST(:kinds AS text[])) AS wanted(kind)
CROSS JOIN LATERAL (
    SELECT count(*) AS later
    FROM (SELECT FROM jobs
          WHERE jobs.kind = wanted.kind AND state = 'queued' AND run_at > now()
          ORDER BY run_at LIMIT 10000) AS bounded) AS counted
"""

DUE_UP_TO = """
SELECT kind, due FROM unnest(CAST(:kinds AS text[])) AS wanted(kind)
CROSS JOIN LATERAL (
    SELECT count(*) AS due
    FROM (SELECT FROM jobs
          WHERE jobs.kind = wanted.kind AND state = 'queued' AND run_at <= now()
          ORDER BY run_at LIMIT :most) AS bounded) AS counted
"""
