"""Videos found by what people call them in their annotation files."""

import unicodedata
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from store.jobs.tables import COPY_STEM
from store.texts import can_be_stored
from store.videos.tables import FILENAME_STEM, URI_STEM

VideoIds = list[UUID]
"""Of the videos that a name may mean."""

# The best kind of name wins: a file called `7` is not a rival of the file with the name `7`, ending
# and all. Every branch is led by an index: on the id, on the SHA-256, or on a name without its
# ending, of which the whole name is then looked at. OFFSET 0 keeps the planner from reading a whole
# table for a hundred names at once.
_ID = "^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$"
# What was superseded no longer has a name: its file has other content now.
_CURRENT = "videos.state <> 'superseded'"
_FIND = f"""
WITH asked AS (
    SELECT name, regexp_replace(name, '^.*/', '') AS last_part
    FROM unnest(CAST(:names AS text[])) AS name
), keyed AS (
    SELECT name, last_part, regexp_replace(last_part, '\\.[^.]*$', '') AS stem FROM asked
), named AS (
    SELECT 1 AS rank, keyed.name, videos.id FROM keyed
    JOIN videos ON videos.id = CASE WHEN keyed.name ~* '{_ID}'
                                    THEN CAST(keyed.name AS uuid) END
    UNION ALL
    SELECT 2, keyed.name, videos.id FROM keyed
    JOIN videos ON videos.sha256 = lower(keyed.name)
    UNION ALL
    SELECT CASE WHEN found.uri = keyed.name THEN 3
                WHEN regexp_replace(found.uri, '^.*/', '') = keyed.name THEN 4 ELSE 5 END,
           keyed.name, found.id
    FROM keyed CROSS JOIN LATERAL (
        SELECT id, uri FROM videos WHERE {URI_STEM} = keyed.stem AND {_CURRENT}
        OFFSET 0) AS found
    WHERE found.uri = keyed.name OR regexp_replace(found.uri, '^.*/', '') = keyed.name
    UNION ALL
    SELECT 5, keyed.name, found.id
    FROM keyed CROSS JOIN LATERAL (
        SELECT id FROM videos WHERE {URI_STEM} = keyed.name AND {_CURRENT}
        OFFSET 0) AS found
    UNION ALL
    SELECT 4, keyed.name, found.id
    FROM keyed CROSS JOIN LATERAL (
        SELECT id, filename FROM videos WHERE {FILENAME_STEM} = keyed.stem AND {_CURRENT}
        OFFSET 0) AS found
    WHERE found.filename = keyed.name
    UNION ALL
    SELECT 5, keyed.name, found.id
    FROM keyed CROSS JOIN LATERAL (
        SELECT id FROM videos WHERE {FILENAME_STEM} = keyed.name AND {_CURRENT}
        OFFSET 0) AS found
    UNION ALL
    SELECT 4, keyed.name, found.video_id
    FROM keyed CROSS JOIN LATERAL (
        SELECT video_id, result FROM jobs
        JOIN videos ON videos.id = jobs.video_id AND {_CURRENT}
        WHERE kind = 'ingest' AND video_id IS NOT NULL AND {COPY_STEM} = keyed.stem
        OFFSET 0) AS found
    WHERE found.result ->> 'filename' = keyed.name
    UNION ALL
    SELECT 5, keyed.name, found.video_id
    FROM keyed CROSS JOIN LATERAL (
        SELECT video_id FROM jobs
        JOIN videos ON videos.id = jobs.video_id AND {_CURRENT}
        WHERE kind = 'ingest' AND video_id IS NOT NULL AND {COPY_STEM} = keyed.name
        OFFSET 0) AS found
), ranked AS (
    SELECT DISTINCT name, id, rank, min(rank) OVER (PARTITION BY name) AS best FROM named
)
SELECT name, array_agg(id ORDER BY id) FROM ranked WHERE rank = best GROUP BY name
"""  # noqa: S608 - put together from constants


def find_videos(session: Session, names: Sequence[str]) -> dict[str, VideoIds]:
    """Find the videos that each name may mean.

    Args:
        session: in a transaction of the caller's.
        names: each an id, a SHA-256, a URI, or the name of a file (the video's own or that of a
            copy of it), with or without its ending.

    Returns:
        For each name the ids: none if there is no such video, several if the name is ambiguous.
    """
    found: dict[str, VideoIds] = {name: [] for name in names}
    # What PostgreSQL cannot hold is not a video's name.
    asked = {name: as_name(name) for name in found if can_be_stored(name)}
    if asked:
        rows = session.execute(text(_FIND), {"names": list(set(asked.values()))})
        ids = {row[0]: list(row[1]) for row in rows}
        found.update({name: ids.get(form, []) for name, form in asked.items()})
    return found


def as_name(name: str) -> str:
    """Write a name in the Unicode form (NFC) in which names are stored and compared.

    macOS gives file names in NFD, keyboards and annotation files write NFC: to people they are one.
    """
    return unicodedata.normalize("NFC", name)
