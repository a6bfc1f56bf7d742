import dataclasses
import time
from uuid import uuid4

from sqlalchemy import text

from store.database import make_sessions
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.videos.contents import media_key, thumbnail_key
from store.videos.repository import VideoRepository
from workers.maintenance import sweeping
from workers.maintenance.sweeping import sweep_blobs

UPLOADED, IN_PLACE, ASKED, CANCELLED, GONE = (f"{number:064x}" for number in range(5))


def test_the_sweep_leaves_only_what_a_row_needs(service, context):
    blobs = service.blobs
    for sha256 in (UPLOADED, IN_PLACE, ASKED, CANCELLED, GONE):
        blobs.put_bytes(media_key(sha256), b"x")
    for sha256 in (UPLOADED, IN_PLACE, GONE):
        blobs.put_bytes(thumbnail_key(sha256, "poster.jpg"), b"x")
    with service.sessions.begin() as session:
        videos, jobs = VideoRepository(session), JobRepository(session)
        key = media_key(UPLOADED)
        video, _ = videos.create(uri="upload:///a.mp4", sha256=UPLOADED, blob_key=key)
        videos.create(uri="file:///b.mp4", sha256=IN_PLACE)
        for sha256 in (ASKED, CANCELLED):
            job = jobs.enqueue(NewJob(JobKind.INGEST, {"blob_key": media_key(sha256)}))
        jobs.request_cancel(job.id)
    tokens = [f"tokens/{uuid4()}/{video_id}.safetensors" for video_id in (video.id, uuid4())]
    for key in (*tokens, "models/m/weights"):
        blobs.put_bytes(key, b"x")

    sweep_blobs(context)

    left = {
        key for folder in ("media", "thumbnails", "tokens", "models") for key in blobs.keys(folder)
    }
    assert left == {
        media_key(UPLOADED),
        media_key(ASKED),
        media_key(CANCELLED),  # its job may be retried
        thumbnail_key(UPLOADED, "poster.jpg"),
        thumbnail_key(IN_PLACE, "poster.jpg"),
        tokens[0],
        "models/m/weights",
    }


def test_a_sweep_may_take_long(service, context, monkeypatch):
    impatient = make_sessions(service.database_url, idle_seconds=0.2)
    swept = []

    def slowly(_context):
        time.sleep(0.6)
        with service.sessions.begin() as session:  # another process would not be let in yet
            query = text(f"SELECT pg_try_advisory_xact_lock({sweeping._SWEEP_LOCK})")
            swept.append(session.scalar(query))

    monkeypatch.setattr(sweeping, "sweep_curves", slowly)

    sweeping.sweep(dataclasses.replace(context, sessions=impatient))
    impatient.kw["bind"].dispose()

    assert swept == [False]
