"""Rows as years leave them behind, written by PostgreSQL itself: a million in minutes.

Videos with their ingest and embed jobs in batches of several sizes, some of them waiting, failed or
in hand; a generation that is searched, one that is being built; searches, questions and labels.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from store.database import Sessions
from store.models.repository import GenerationRepository, ModelRepository
from store.table_base import Task

DIM = 8
LEASE = timedelta(minutes=1)


@dataclass(frozen=True)
class Library:
    """What the operations are about: some rows of each kind.

    Attributes:
        model_id: serves everything.
        active, building: the generations.
        video_id, other_video_id: two that can be searched; nothing of the other is under way.
        job_id: an ingest job that is over.
        search_id, question_id: of two that are answered.
        batches: of 1, 10, 100 … items, all over.
        waiting_batch: whose items wait.
    """

    model_id: UUID
    active: UUID
    building: UUID
    video_id: UUID
    other_video_id: UUID
    job_id: UUID
    search_id: UUID
    question_id: UUID
    batches: tuple[UUID, ...]
    waiting_batch: UUID


# Of n = 1, 2, 3 …; ids as UUIDv7 are, in the order of n.
ID = "(lpad(to_hex({kind}), 4, '0') || '0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
VIDEO, INGEST, EMBED, SEARCH, QUESTION, LABEL, BATCH = (
    ID.format(kind=kind) for kind in range(1, 8)
)

STATEMENTS = (
    f"""
    INSERT INTO batches (id, name, created_at)
    SELECT {BATCH}, 'batch ' || n, now() - interval '100 days'
    FROM generate_series(1, CAST(:rows AS int) / 10) AS n
    """,
    f"""
    INSERT INTO videos (id, uri, sha256, filename, state, error_code, is_still, probe, tags,
                        metadata, blob_key, created_at, updated_at)
    SELECT {VIDEO}, 'file:///media/' || (n % 1000) || '/IMG_' || n || '.mp4', md5(n::text),
           CASE WHEN n <= 3 THEN 'odd name.mov' ELSE
           (ARRAY['IMG', 'holiday', 'Beach day', 'MVI', '旅行'])[1 + n % 5] || '_' || n || '.mp4'
           END,
           CASE WHEN n % 50 = 0 THEN 'failed' WHEN n > 0.97 * :rows THEN 'processing'
                ELSE 'ready' END,
           CASE WHEN n % 50 = 0 THEN 'decode_failed' END, false, '{{}}',
           ARRAY['tag ' || n % 500], '{{}}',
           CASE WHEN n % 3 = 0 THEN 'media/' || md5(n::text) END,
           now() - interval '200 days' * (1 - n / CAST(:rows AS float)), now()
    FROM generate_series(1, :rows) AS n
    """,
    # Batches take what comes one after another: the first 10 are of 1, 10, 100 … items, and so on.
    f"""
    INSERT INTO jobs (id, kind, state, input, result, batch_id, batch_index, video_id, priority,
                      num_events, created_at, started_at, finished_at, lease_owner,
                      lease_expires_at, dedupe_key)
    SELECT {INGEST}, 'ingest',
           CASE WHEN n > 0.98 * :rows THEN 'queued' WHEN n % 100 = 0 THEN 'failed'
                WHEN n % 1000 = 1 THEN 'cancelled' ELSE 'succeeded' END,
           jsonb_build_object('uri', 'file:///' || n, 'blob_key', 'media/' || md5(n::text)),
           CASE WHEN n % 100 <> 0 THEN jsonb_build_object('filename', 'copy of ' || n || '.mp4')
           END,
           CASE WHEN n > 0.98 * :rows THEN {BATCH.replace("n)", "10)")}
                WHEN n <= 11111 THEN {BATCH.replace("n)", "length(n::text))")}
                ELSE NULL END,
           n, CASE WHEN n <= 0.98 * :rows THEN {VIDEO} END, 5, 2,
           now() - interval '200 days' * (1 - n / CAST(:rows AS float)),
           now() - interval '200 days' * (1 - n / CAST(:rows AS float)),
           CASE WHEN n <= 0.98 * :rows
                THEN now() - interval '200 days' * (1 - n / CAST(:rows AS float)) END,
           NULL, NULL, NULL
    FROM generate_series(1, :rows) AS n
    """,
    f"""
    INSERT INTO jobs (id, kind, state, input, video_id, priority, num_events, created_at,
                      finished_at, dedupe_key, lease_owner, lease_expires_at, error_code, run_at)
    SELECT {EMBED}, 'embed',
           CASE WHEN n > :rows - 10 THEN 'running' WHEN n > 0.97 * :rows THEN 'queued'
                WHEN n % 50 = 0 THEN 'failed' ELSE 'succeeded' END,
           jsonb_build_object('video_id', {VIDEO}, 'generation_id',
                              CAST(CASE WHEN n > 0.97 * :rows THEN :building ELSE :active END
                                   AS text)),
           {VIDEO}, 8, 2, now() - interval '200 days' * (1 - n / CAST(:rows AS float)),
           CASE WHEN n <= 0.97 * :rows
                THEN now() - interval '200 days' * (1 - n / CAST(:rows AS float)) END,
           'embed:' || n, CASE WHEN n > :rows - 10 THEN 'somebody' END,
           CASE WHEN n > :rows - 10 THEN now() + interval '1 minute' END, NULL,
           CASE WHEN n % 20 = 0 THEN now() + interval '1 hour' ELSE now() END
    FROM generate_series(1, :rows) AS n
    """,
    f"""
    INSERT INTO job_events (job_id, seq, type, data)
    SELECT {INGEST}, seq, 'succeeded', '{{}}'
    FROM generate_series(1, :rows) AS n, generate_series(1, 2) AS seq
    """,
    f"""
    INSERT INTO jobs (id, kind, state, input, video_id, priority, finished_at)
    SELECT {SEARCH}, 'search', 'succeeded', '{{}}', NULL, 5, now() - interval '100 days'
    FROM generate_series(1, CAST(:rows AS int) / 5) AS n
    """,
    f"""
    INSERT INTO searches (id, text, input, result, model_id, generation_id)
    SELECT {SEARCH}, 'a dog', '{{}}', '{{}}', :model_id, CAST(:active AS uuid)
    FROM generate_series(1, CAST(:rows AS int) / 5) AS n
    """,
    f"""
    INSERT INTO jobs (id, kind, state, input, video_id, priority, finished_at)
    SELECT {QUESTION}, 'question', 'succeeded', '{{}}', {VIDEO}, 5, now() - interval '100 days'
    FROM generate_series(1, CAST(:rows AS int) / 5) AS n
    """,
    f"""
    INSERT INTO questions (id, video_id, text, text_key, task, input, result, uncertainty, is_open,
                           model_id, generation_id)
    SELECT {QUESTION}, {VIDEO}, CASE WHEN n % 50 = 0 THEN 'Where is it?' ELSE 'What is it?' END,
           CASE WHEN n % 50 = 0 THEN 'where is it' ELSE 'what is it' END, 'qa', '{{}}', '{{}}',
           (n * 7919 % 10007) / 10007.0, n % 50 = 0, :model_id, CAST(:active AS uuid)
    FROM generate_series(1, CAST(:rows AS int) / 5) AS n
    """,
    f"""
    INSERT INTO video_splits (video_id, split)
    SELECT {VIDEO}, CASE WHEN n % 5 = 0 THEN 'holdout' ELSE 'train' END
    FROM generate_series(1, CAST(:rows AS int) / 2) AS n
    """,
    f"""
    INSERT INTO labels (id, video_id, task, text, choices, answer, source, provenance, split,
                        content_sha256)
    SELECT {LABEL}, {VIDEO}, 'qa', 'What is it?', '{{}}', 'answer ' || n % 100, 'import', '{{}}',
           CASE WHEN n % 5 = 0 THEN 'holdout' ELSE 'train' END, md5(n::text)
    FROM generate_series(1, CAST(:rows AS int) / 2) AS n
    """,
    f"""
    INSERT INTO clips (generation_id, video_id, index, start_seconds, end_seconds, instants,
                       tokens_key, vector)
    SELECT CAST(:active AS uuid), {VIDEO}, 0, 0, 1, '{{0.5}}', 'tokens/' || n,
           CASE WHEN n <= :vectors THEN (
               SELECT array_agg(sin(n * k)) FROM generate_series(1, {DIM}) AS k
           )::real[]::halfvec END
    FROM generate_series(1, CAST(0.97 * :rows AS int)) AS n WHERE n % 50 <> 0
    """,
    f"""
    INSERT INTO clips (generation_id, video_id, index, start_seconds, end_seconds, instants,
                       tokens_key)
    SELECT CAST(:building AS uuid), {VIDEO}, 0, 0, 1, '{{0.5}}', 'tokens/' || n
    FROM generate_series(1, CAST(:rows AS int) / 2) AS n
    """,
)


INDEXES = """
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
FROM pg_index
WHERE indrelid::regclass::text IN ('videos', 'jobs', 'job_events', 'clips', 'labels', 'questions',
                                   'searches')
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""
COUNTED = (
    "SELECT 'jobs:' || kind || ':' || state, count(*) FROM jobs GROUP BY 1",
    "SELECT 'videos:' || state, count(*) FROM videos GROUP BY 1",
    "SELECT 'clips:' || generation_id, count(DISTINCT video_id) FROM clips GROUP BY 1",
)


def fill(sessions: Sessions, rows: int, *, vectors: int) -> Library:
    """Write a library of so many videos, and twice as many jobs of theirs.

    Args:
        sessions: of an empty database with the newest schema.
        rows: videos, at least 20,000.
        vectors: clips that have a vector.
    """
    with sessions.begin() as session:
        model = ModelRepository(session).register(
            name="m",
            version="1",
            heads=["qa", "retrieval"],
            tasks=list(Task),
            folder_key="models/m",
            sha256="s",
            visual_sha256="v",
            config={"hidden_size": DIM},
        )
        ModelRepository(session).promote(model.id, list(Task))
        generations = GenerationRepository(session)
        ids = []
        for _ in range(2):
            ids.append(generations.create(model_id=model.id, recall_model_id=model.id, plan={}).id)
        active, building = ids
        generations.activate(active)
        generations.ensure_index(active, DIM)
        model_id = model.id
    values = {
        "rows": rows,
        "vectors": vectors,
        "model_id": model_id,
        "active": str(active),
        "building": str(building),
    }
    with sessions.begin() as session:
        # Without foreign keys and triggers, and the indexes afterwards: many times as fast.
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
        indexes = session.execute(text(INDEXES)).all()
        for index in indexes:
            session.execute(text(f"DROP INDEX {index.name}"))
        for statement in STATEMENTS:
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            session.execute(text(statement), used)
        for index in indexes:
            session.connection().exec_driver_sql(index.definition)
        for counted in COUNTED:
            session.execute(text(f"INSERT INTO counts (name, value) {counted}"))
    with sessions.kw["bind"].connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
    with sessions.begin() as session:
        return Library(
            model_id=model_id,
            active=active,
            building=building,
            video_id=_id(session, VIDEO, 7),
            other_video_id=_id(session, VIDEO, 11),
            job_id=_id(session, INGEST, 7),
            search_id=_id(session, SEARCH, 7),
            question_id=_id(session, QUESTION, 7),
            batches=tuple(_id(session, BATCH, n) for n in range(1, 6)),
            waiting_batch=_id(session, BATCH, 10),
        )


def _id(session: Session, expression: str, n: int) -> UUID:
    query = text(f"SELECT {expression} FROM (VALUES (CAST(:n AS int))) AS each(n)")
    return session.scalars(query, {"n": n}).one()
