import json
import unicodedata
from uuid import uuid4

import pytest
from sqlalchemy import text

from policy.video_references import MOST_CANDIDATES, find_videos
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.videos.locations import FORGET_COPIES, VideoLocations
from store.videos.repository import VideoRepository


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def named(session):
    """The ids of the videos that each name may mean."""

    def find(names):
        found = find_videos(session, names)
        return {name: [video.id for video in videos] for name, videos in found.items()}

    return find


def make_video(session, sha256, uri, filename=None):
    videos = VideoRepository(session)
    return videos.create(uri=uri, sha256=sha256, filename=filename)[0].id


def test_a_video_is_found_by_every_name_it_has(named, session):
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

    assert named(names) == {name: [id_] for name in names}


def test_unknown_names_find_nothing(named, session):
    make_video(session, "abc", "file:///a.mp4", "a.mp4")
    names = ["b", "a.avi", str(uuid4()), "", "a%", "nul\0", "\ud800", "file:///else/a.mp4"]

    assert named(names) == {name: [] for name in names}
    assert named([]) == {}


def test_a_name_that_several_videos_have_gives_them_all(named, session):
    first = make_video(session, "1", "file:///x/a.mp4", "a.mp4")
    second = make_video(session, "2", "file:///y/a.mp4", "a.mp4")
    third = make_video(session, "3", "file:///y/a.avi", "a.avi")

    found = named(["a.mp4", "a", "file:///y/a.mp4", "a.avi"])

    assert found["a.mp4"] == [first, second]
    assert found["a"] == [first, second, third]
    assert found["file:///y/a.mp4"] == [second]
    assert found["a.avi"] == [third]


def test_the_whole_name_goes_before_a_name_without_its_ending(named, session):
    whole = make_video(session, "1", "file:///x/7", "7")
    make_video(session, "2", "file:///x/7.mp4", "7.mp4")

    assert named(["7"]) == {"7": [whole]}


def test_an_upload_is_found_by_its_file_name_and_a_path_by_its_last_part(named, session):
    upload = make_video(session, "1", "upload:///two%20words.mp4", "two words.mp4")
    path = make_video(session, "2", "file:///x/nameless.mp4", "nameless.mp4")

    assert named(["two words", "nameless"]) == {
        "two words": [upload],
        "nameless": [path],
    }


def test_a_video_is_found_by_the_name_of_a_copy(named, session):
    id_ = make_video(session, "1", "file:///x/a.mp4", "a.mp4")
    jobs = JobRepository(session)
    job = jobs.enqueue(NewJob(JobKind.INGEST, {}))
    session.execute(
        text('UPDATE jobs SET video_id = :id, result = \'{"filename": "b.mp4"}\' WHERE id = :job'),
        {"id": id_, "job": job.id},
    )

    assert named(["b", "b.mp4"]) == {"b": [id_], "b.mp4": [id_]}

    VideoRepository(session).delete(id_)
    assert named(["a", "b"]) == {"a": [], "b": []}


def test_many_names_are_looked_up_by_index(named, session):
    session.execute(
        text(
            "INSERT INTO videos (id, uri, sha256, filename, state, is_still, probe, tags, "
            "metadata) SELECT gen_random_uuid(), 'file:///v/' || n || '.png', 's' || n, "
            "n || '.png', 'ready', true, '{}', '{}', '{}' FROM generate_series(1, 20000) AS n"
        )
    )
    session.execute(text("ANALYZE videos"))
    session.execute(text("SET LOCAL statement_timeout = '10s'"))

    found = named([str(n) for n in range(1, 20001, 4)])

    assert all(len(ids) == 1 for ids in found.values())
    assert len(found) == 5000


def test_names_are_one_in_nfc_and_nfd(named, session):
    id_ = make_video(session, "1", "file:///x/Ka%CC%88se.mp4", "Käse.mp4")

    names = [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in ("Käse",)]

    assert named(names) == {name: [id_] for name in names}


def test_what_was_superseded_is_found_by_its_id_and_not_by_its_name(named, session):
    old = make_video(session, "1", "file:///x/a.mp4", "a.mp4")
    new = make_video(session, "2", "file:///x/a.mp4", "a.mp4")
    jobs = JobRepository(session)
    job = jobs.enqueue(NewJob(JobKind.INGEST, {"uri": "file:///x/b.mp4"}))
    session.execute(
        text('UPDATE jobs SET video_id = :id, result = \'{"filename": "b.mp4"}\' WHERE id = :job'),
        {"id": old, "job": job.id},
    )
    assert named(["b"]) == {"b": [old]}

    VideoLocations(session).supersede([old], by=new)

    assert named(["a", "a.mp4", "b", str(old)]) == {
        "a": [new],
        "a.mp4": [new],
        "b": [],
        str(old): [old],
    }


def copy_at(session, video_id, uri, filename):
    """Note that a video's content was found at another place too."""
    job = JobRepository(session).enqueue(
        NewJob(JobKind.INGEST, {} if uri is None else {"uri": uri})
    )
    session.execute(
        text("UPDATE jobs SET video_id = :id, result = CAST(:result AS jsonb) WHERE id = :job"),
        {"id": video_id, "job": job.id, "result": json.dumps({"filename": filename})},
    )


def test_a_part_that_is_written_is_never_left_out(named, session):
    make_video(session, "1", "file:///t/bulk/p0002.png", "p0002.png")
    make_video(session, "2", "file:///t/d2/cam.mp4", "cam.mp4")
    make_video(session, "3", "file:///t/v/rot180.mp4", "rot180.mp4")
    make_video(session, "4", "upload:///up.mp4", "up.mp4")
    names = ["file:///t/d3/cam.mp4", "nosuchfolder/p0002.png", "/etc/p0002.png", "../p0002.png"]
    names += ["file:///elsewhere/p0002.png", "cam9/rot180.mp4", "rot180.avi", "p0002.mp4"]
    names += ["ulk/p0002.png", "P0002", "bulk/p0002", "upload:///cam.mp4", "x/up.mp4", "/up.mp4"]
    names += ["s3://t/d2/cam.mp4", "file://there/t/d2/cam.mp4", "d2/cam.mp4/", "cam%2Emp4"]

    assert named(names) == {name: [] for name in names}


def test_a_path_means_one_video_where_its_last_part_means_many(named, session):
    here = make_video(session, "1", "file:///t/v/plain.webm", "plain.webm")
    others = [
        make_video(session, "2", "file:///t/w/plain.mp4", "plain.mp4"),
        make_video(session, "3", "file:///t/K%C3%A4se/x/plain.webm", "plain.webm"),
    ]
    names = ["/t/v/plain.webm", "v/plain.webm", "t/v/plain.webm", "./v/plain.webm"]
    names += ["file:///t/v/plain.webm", "file:/t/w/../v/plain.webm", "/t//v/./plain.webm"]

    assert named(names) == {name: [here] for name in names}
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "K\u00e4se/x/plain.webm")
        assert named([name, f"/t/{name}"]) == {name: others[1:], f"/t/{name}": others[1:]}
    assert named(["plain"]) == {"plain": [here, *others]}
    assert named(["plain.webm"]) == {"plain.webm": [here, others[1]]}


def test_a_copy_is_found_by_its_place_and_makes_no_doubt_of_one_video(named, session):
    video = make_video(session, "1", "file:///t/v/a.mp4", "a.mp4")
    other = make_video(session, "2", "file:///t/w/a.mp4", "a.mp4")
    copy_at(session, video, "file:///t/v/a.mp4", "a.mp4")
    copy_at(session, video, "file:///t/copies/a.mp4", "a.mp4")
    copy_at(session, video, None, "sent.mp4")
    names = ["file:///t/copies/a.mp4", "/t/copies/a.mp4", "copies/a.mp4", "v/a.mp4"]
    names += ["upload:///sent.mp4", "sent"]

    assert named(names) == {name: [video] for name in names}
    assert named(["a.mp4"]) == {"a.mp4": [video, other]}

    session.execute(text(FORGET_COPIES), {"uri": "file:///t/copies/a.mp4", "but": other})
    assert named(["copies/a.mp4", "/t/copies/a.mp4"]) == {"copies/a.mp4": [], "/t/copies/a.mp4": []}


def test_a_place_that_was_indexed_with_dots_in_its_path_is_found_without_them(named, session):
    video = make_video(session, "1", "file:///t/x/../v%20w/a.mp4", "a.mp4")

    assert named(["v w/a.mp4", "/t/v w/a.mp4", "x/a.mp4"]) == {
        "v w/a.mp4": [video],
        "/t/v w/a.mp4": [video],
        "x/a.mp4": [],
    }


def test_paths_are_looked_up_by_index_however_many_share_a_name(named, session):
    session.execute(
        text(
            "INSERT INTO videos (id, uri, sha256, filename, state, is_still, probe, tags, "
            "metadata) SELECT gen_random_uuid(), 'file:///v/' || n || '/day/0.mp4', 's' || n, "
            "'0.mp4', 'ready', true, '{}', '{}', '{}' FROM generate_series(1, 2000) AS n"
        )
    )
    session.execute(
        text(
            "INSERT INTO jobs (id, kind, state, priority, input, video_id, result) "
            "SELECT gen_random_uuid(), 'ingest', 'succeeded', 5, jsonb_build_object('uri', uri), "
            "id, jsonb_build_object('filename', filename) FROM videos"
        )
    )
    session.execute(text("ANALYZE videos, jobs"))
    scans = text(
        "SELECT sum(seq_scan) FROM pg_stat_xact_user_tables WHERE relname IN ('videos', 'jobs')"
    )
    before = session.scalar(scans)
    paths = [f"{n}/day/0.mp4" for n in range(1, 21)]

    found = named([*paths, "0.mp4", "0", "0.mov", "1/night/0.mp4", "file:///v/1/day/1.mp4"])

    assert session.scalar(scans) == before
    assert [len(found[path]) for path in paths] == [1] * 20
    assert [len(ids) >= MOST_CANDIDATES for ids in found.values()][20:] == [True] * 2 + [False] * 3
