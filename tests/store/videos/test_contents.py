import time
from datetime import timedelta

import pytest

from store.database import make_sessions
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.videos.contents import hold_content, media_key, remove_unneeded_content, thumbnail_key
from store.videos.repository import VideoRepository

SHA256 = "ab" * 32
UPLOAD, POSTER = media_key(SHA256), thumbnail_key(SHA256, "poster.jpg")


@pytest.fixture
def left(sessions, blobs):
    """Store an upload and its poster; gives what is left of them when the unneeded is removed."""
    for key in (UPLOAD, POSTER):
        blobs.put_bytes(key, b"x")

    def look(**options):
        remove_unneeded_content(sessions, blobs, sha256=SHA256, **options)
        return [key for key in (UPLOAD, POSTER) if blobs.exists(key)]

    return look


def add_job(sessions):
    with sessions.begin() as session:
        job = JobRepository(session).enqueue(NewJob(JobKind.INGEST, {"blob_key": UPLOAD}))
    return job.id


def add_video(sessions, blob_key):
    with sessions.begin() as session:
        VideoRepository(session).create(uri="file:///a.mp4", sha256=SHA256, blob_key=blob_key)


def test_what_nobody_needs_is_removed(left):
    assert left() == []


def test_the_content_of_a_video_is_kept(sessions, left):
    add_video(sessions, UPLOAD)

    assert left() == [UPLOAD, POSTER]


def test_a_video_that_lies_elsewhere_needs_no_upload(sessions, left):
    add_video(sessions, None)

    assert left() == [POSTER]


def test_an_upload_is_kept_while_its_job_may_run(sessions, left):
    job_id = add_job(sessions)
    before = left()
    with sessions.begin() as session:
        JobRepository(session).request_cancel(job_id)

    assert before == [UPLOAD]
    assert left(retryable_for=timedelta(hours=1)) == [UPLOAD]
    assert left() == []


def test_content_that_somebody_is_adding_is_kept(sessions, left):
    with sessions.begin() as adding:
        hold_content(adding, SHA256)

        assert left() == [UPLOAD, POSTER]


def test_a_store_that_takes_its_time_is_waited_for(database_url, blobs, left, monkeypatch):
    impatient = make_sessions(database_url, idle_seconds=0.2)
    delete = blobs.delete

    def slowly(key):
        time.sleep(0.5)
        delete(key)

    monkeypatch.setattr(blobs, "delete", slowly)

    remove_unneeded_content(impatient, blobs, sha256=SHA256)
    impatient.kw["bind"].dispose()

    assert not blobs.exists(POSTER)
    assert not blobs.exists(UPLOAD)
