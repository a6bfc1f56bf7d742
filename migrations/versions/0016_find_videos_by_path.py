r"""Find videos by the end of their path: a folder and a name, as people write them.

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Of file:///a/b/c.mp4 the hashes of a/b/c.mp4 and b/c.mp4; a name alone has an index of its own.
# A path that is not UTF-8 is found by its URI, and by its name.
PATH_ENDS = r"""
CREATE FUNCTION path_ends(uri text) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    path text := substr(uri, 9);
    parts text[];
    part text;
    kept text[] := '{}';
BEGIN
    IF uri NOT LIKE 'file:///%/%' THEN
        RETURN '{}';
    END IF;
    IF strpos(path, '%') > 0 THEN
        BEGIN
            path := normalize(convert_from((
                SELECT string_agg(
                    CASE WHEN length(piece[1]) = 3 AND piece[1] LIKE '\%%'
                         THEN decode(substr(piece[1], 2), 'hex')
                         ELSE convert_to(piece[1], 'UTF8') END, '' ORDER BY place)
                FROM regexp_matches(path, '%[0-9A-Fa-f]{2}|[^%]+|%', 'g')
                     WITH ORDINALITY AS found(piece, place)), 'UTF8'), NFC);
        EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
            RETURN '{}';
        END;
    END IF;
    parts := string_to_array(path, '/');
    IF '..' = ANY(parts) THEN
        FOREACH part IN ARRAY parts LOOP
            IF part = '..' THEN
                kept := trim_array(kept, least(1, cardinality(kept)));
            ELSE
                kept := kept || part;
            END IF;
        END LOOP;
        parts := kept;
    END IF;
    RETURN ARRAY(
        SELECT hashtextextended(array_to_string(parts[place:], '/'), 0)
        FROM generate_series(1, cardinality(parts) - 1) AS place);
END
$$
"""


def upgrade() -> None:
    op.execute(PATH_ENDS)
    # Without a list of what is yet to be put into the index: each look-up would read all of it.
    op.create_index(
        "ix_videos_path_ends",
        "videos",
        [sa.text("path_ends(uri)")],
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    )
    op.create_index(
        "ix_jobs_path_ends",
        "jobs",
        [sa.text("path_ends((input ->> 'uri'))")],
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
        postgresql_where=sa.text("kind = 'ingest' AND video_id IS NOT NULL"),
    )
    op.drop_index("ix_videos_uri_stem", "videos")


def downgrade() -> None:
    op.create_index(
        "ix_videos_uri_stem",
        "videos",
        [sa.text(r"regexp_replace(regexp_replace(uri, '^.*/', ''), '\.[^.]*$', '')")],
    )
    op.drop_index("ix_jobs_path_ends", "jobs")
    op.drop_index("ix_videos_path_ends", "videos")
    op.execute("DROP FUNCTION path_ends(text)")
