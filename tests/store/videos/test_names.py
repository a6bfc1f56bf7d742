import time
import unicodedata
from uuid import uuid4

import pytest
from sqlalchemy import text

from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.labels.repository import LabelRepository
from store.videos.locations import FORGET_COPIES, VideoLocations
from store.videos.repository import VideoRepository


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def labels(session):
    return LabelRepository(session)


def make_video(session, sha256, uri, filename=None):
    videos = VideoRepository(session)
    return videos.create(uri=uri, sha256=sha256, filename=filename)[0].id


def test_a_video_is_found_by_every_name_it_has(labels, session):
    id_ = make_video(session, "abc123", "file:///videos/dir.x/clip.one.mp4", "clip.one.mp4")
    make_video(session, "other", "file:///videos/other.mp4", "other.mp4")
    names = [
        str(id_),
        id_.hex.upper(),
        "ABC123",
        "file:///videos/dir.x/clip.one.mp4",
        "clip.one.mp4",
        "clip.one",
    ]

    assert labels.find_videos(names) == {name: [id_] for name in names}


def test_unknown_names_find_nothing(labels, session):
    make_video(session, "abc", "file:///a.mp4", "a.mp4")
    names = ["b", "a.avi", str(uuid4()), "", "a%", "nul\0", "\ud800", "file:///else/a.mp4"]

    assert labels.find_videos(names) == {name: [] for name in names}
    assert labels.find_videos([]) == {}


def test_a_name_that_several_videos_have_gives_them_all(labels, session):
    first = make_video(session, "1", "file:///x/a.mp4", "a.mp4")
    second = make_video(session, "2", "file:///y/a.mp4", "a.mp4")
    third = make_video(session, "3", "file:///y/a.avi", "a.avi")

    found = labels.find_videos(["a.mp4", "a", "file:///y/a.mp4", "a.avi"])

    assert found["a.mp4"] == [first, second]
    assert found["a"] == [first, second, third]
    assert found["file:///y/a.mp4"] == [second]
    assert found["a.avi"] == [third]


def test_the_whole_name_goes_before_a_name_without_its_ending(labels, session):
    whole = make_video(session, "1", "file:///x/7", "7")
    make_video(session, "2", "file:///x/7.mp4", "7.mp4")

    assert labels.find_videos(["7"]) == {"7": [whole]}


def test_an_upload_is_found_by_its_file_name_and_a_path_by_its_last_part(labels, session):
    upload = make_video(session, "1", "upload:///two%20words.mp4", "two words.mp4")
    path = make_video(session, "2", "file:///x/nameless.mp4")

    assert labels.find_videos(["two words", "nameless"]) == {
        "two words": [upload],
        "nameless": [path],
    }


def test_a_video_is_found_by_the_name_of_a_copy(labels, session):
    id_ = make_video(session, "1", "file:///x/a.mp4", "a.mp4")
    jobs = JobRepository(session)
    job = jobs.enqueue(NewJob(JobKind.INGEST, {}))
    session.execute(
        text('UPDATE jobs SET video_id = :id, result = \'{"filename": "b.mp4"}\' WHERE id = :job'),
        {"id": id_, "job": job.id},
    )

    assert labels.find_videos(["b", "b.mp4"]) == {"b": [id_], "b.mp4": [id_]}

    VideoRepository(session).delete(id_)
    assert labels.find_videos(["a", "b"]) == {"a": [], "b": []}


def test_many_names_are_looked_up_by_index(labels, session):
    session.execute(
        text(
            "INSERT INTO videos (id, uri, sha256, filename, state, is_still, probe, tags, "
            "metadata) SELECT gen_random_uuid(), 'file:///v/' || n || '.png', 's' || n, "
            "n || '.png', 'ready', true, '{}', '{}', '{}' FROM generate_series(1, 20000) AS n"
        )
    )
    session.execute(text("ANALYZE videos"))
    session.execute(text("SET LOCAL statement_timeout = '10s'"))

    found = labels.find_videos([str(n) for n in range(1, 20001, 4)])

    assert all(len(ids) == 1 for ids in found.values())
    assert len(found) == 5000


def test_names_are_one_in_nfc_and_nfd(labels, session):
    id_ = make_video(session, "1", "file:///x/Ka%CC%88se.mp4", "Käse.mp4")

    names = [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in ("Käse",)]

    assert labels.find_videos(names) == {name: [id_] for name in names}


def test_what_was_superseded_is_found_by_its_id_and_not_by_its_name(labels, session):
    old = make_video(session, "1", "file:///x/a.mp4", "a.mp4")
    new = make_video(session, "2", "file:///x/a.mp4", "a.mp4")
    jobs = JobRepository(session)
    job = jobs.enqueue(NewJob(JobKind.INGEST, {"uri": "file:///x/b.mp4"}))
    session.execute(
        text('UPDATE jobs SET video_id = :id, result = \'{"filename": "b.mp4"}\' WHERE id = :job'),
        {"id": old, "job": job.id},
    )
    assert labels.find_videos(["b"]) == {"b": [old]}

    VideoLocations(session).supersede([old], by=new)

    assert labels.find_videos(["a", "a.mp4", "b", str(old)]) == {
        "a": [new],
        "a.mp4": [new],
        "b": [],
        str(old): [old],
    }


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
    assert time.monotonic() - started < 1
