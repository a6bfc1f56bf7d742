import time
from uuid import uuid4

import pytest
from sqlalchemy import text

from store.videos.locations import FORGET_COPIES, VideoLocations


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


def test_places_are_looked_up_by_index(session):
    session.execute(
        text(
            "INSERT INTO videos (id, uri, sha256, filename, state, is_still, probe, tags, "
            "metadata) SELECT gen_random_uuid(), 'file:///v/' || n || '/clip.mp4', 's' || n, "
            "'clip.mp4', 'ready', true, '{}', '{}', '{}' FROM generate_series(1, 20000) AS n"
        )
    )
    session.execute(
        text(
            "INSERT INTO jobs (id, kind, state, priority, input, video_id, result) "
            "SELECT gen_random_uuid(), 'ingest', 'succeeded', 5, jsonb_build_object('uri', uri), "
            "id, jsonb_build_object('filename', filename) FROM videos"
        )
    )
    session.execute(text("ANALYZE videos"))
    session.execute(text("ANALYZE jobs"))
    uri = "file:///v/7/clip.mp4"
    plans = [
        "\n".join(session.scalars(text(f"EXPLAIN {statement}"), parameters))
        for statement, parameters in (
            ("SELECT id FROM videos WHERE uri = :uri AND blob_key IS NULL", {"uri": uri}),
            (FORGET_COPIES, {"uri": uri, "but": uuid4()}),
            (
                "SELECT id FROM videos WHERE blob_key IS NULL AND state <> 'superseded' "
                "ORDER BY place_checked_at, id LIMIT 500",
                {},
            ),
        )
    ]

    assert ["Seq Scan" in plan for plan in plans] == [False] * 3
    started = time.monotonic()
    [other] = VideoLocations(session).others_at(uri, "another")
    assert other.sha256 == "s7"
    assert VideoLocations(session).copies_of(other.id, but="file:///x") == [uri]
    assert time.monotonic() - started < 20
