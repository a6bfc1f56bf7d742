import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from videos import cut, write_counting_video, write_sound

from clipbert.errors import DecodeFailed
from clipbert.video.probe_process import probe_in_subprocess
from policy.registration import ensure_default
from store.blobs import STAGED
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from store.videos.batches import BatchRepository
from store.videos.contents import media_key
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState
from tests.workers.library import embed_all
from tests.workers.service import SAMPLES
from tests.workers.small_models import save_recall_model
from workers.errors import CancelRequested
from workers.indexing import ingestion
from workers.indexing.ingestion import ingest_next
from workers.jobs.lease import RunningJob


def ingest_all(context):
    while ingest_next(context):
        pass


def videos(service):
    with service.sessions.begin() as session:
        return list(VideoRepository(session).list().items)


@pytest.fixture
def generation(service, tmp_path):
    ensure_default(
        service.sessions, service.blobs, mini_folder=save_recall_model(tmp_path / "recall")
    )


def test_a_new_file_becomes_a_video_with_thumbnails_and_an_embed_job(service, context, generation):
    path = SAMPLES / "cockatoo.mp4"
    job_id = service.enqueue(
        JobKind.INGEST, uri=path.as_uri(), tags=["birds"], metadata={"camera": "2"}
    )

    ingest_all(context)

    job = service.job(job_id)
    (video,) = videos(service)
    (embed,) = service.jobs(JobKind.EMBED)
    assert job.result == {
        "video_id": str(video.id),
        "filename": "cockatoo.mp4",
        "duplicate": False,
        "embed_job_id": str(embed.id),
    }
    assert job.video_id == embed.video_id == video.id
    assert video.state == VideoState.PROCESSING
    assert (video.uri, video.filename) == (path.as_uri(), "cockatoo.mp4")
    assert video.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert video.duration_seconds > 1
    assert (video.tags, video.custom_metadata) == (["birds"], {"camera": "2"})
    for name in ("poster", "strip"):
        assert service.blobs.size(f"thumbnails/{video.sha256}/{name}.jpg") > 500
    assert context.doorbell.queue_length("embed") == 1


def test_an_uploaded_blob_becomes_a_video(service, context, generation):
    service.blobs.put_file("media/ab/abcd", SAMPLES / "squirrel.mp4")
    service.enqueue(
        JobKind.INGEST, blob_key="media/ab/abcd", sha256="abcd", filename="my squirrel.mp4"
    )

    ingest_all(context)

    (video,) = videos(service)
    assert (video.blob_key, video.filename) == ("media/ab/abcd", "my squirrel.mp4")
    assert video.uri == "upload:///my%20squirrel.mp4"


def test_bad_media_fail_with_their_own_codes_and_the_others_go_on(
    service, context, generation, media_folder
):
    good = write_counting_video(media_folder / "good.mp4", 30)
    (media_folder / "text.mp4").write_text("this is not a film " * 100)
    (media_folder / "empty.mp4").touch()
    write_sound(media_folder / "sound.mp4")
    cut(good, media_folder / "cut.mp4", share=0.5)
    outside = media_folder.parent / "outside.mp4"
    shutil.copy(good, outside)
    wanted = {
        "text.mp4": "unsupported_media",
        "empty.mp4": "empty_file",
        "sound.mp4": "no_video_stream",
        "cut.mp4": "truncated_media",
        "gone.mp4": "media_not_found",
        "../outside.mp4": "outside_media_roots",
        "good.mp4": None,
    }
    jobs = {
        name: service.enqueue(JobKind.INGEST, uri=f"file://{media_folder}/{name}")
        for name in wanted
    }

    ingest_all(context)

    assert {name: service.job(job_id).error_code for name, job_id in jobs.items()} == wanted
    assert all(service.job(jobs[name]).error_message for name, code in wanted.items() if code)
    assert [video.filename for video in videos(service)] == ["good.mp4"]


def test_a_file_whose_name_is_no_utf8_becomes_a_video(service, context, generation, media_folder):
    path = media_folder / os.fsdecode(b"bad\xff.gif")
    shutil.copy(write_counting_video(media_folder / "plain.mp4", 10), path)
    broken = media_folder / os.fsdecode(b"broken\xff.mp4")
    broken.write_text("this is not a film")
    service.enqueue_ingest(path)
    failing = service.enqueue_ingest(broken)

    ingest_all(context)

    assert [video.filename for video in videos(service)] == ["bad\N{REPLACEMENT CHARACTER}.gif"]
    assert service.job(failing).error_code == "unsupported_media"
    assert "broken\N{REPLACEMENT CHARACTER}.mp4" in service.job(failing).error_message


def test_a_video_is_called_by_its_name_and_not_by_its_quoted_uri(
    service, context, generation, media_folder
):
    service.enqueue_ingest(write_counting_video(media_folder / "übung 1.mp4", 10))

    ingest_all(context)

    assert [video.filename for video in videos(service)] == ["übung 1.mp4"]


def test_what_is_wrong_with_an_upload_or_a_link_is_said_of_its_own_name(
    service, context, generation, media_folder
):
    (media_folder / "target").write_text("this is not a film")
    (media_folder / "link.mp4").symlink_to("target")
    service.blobs.put_bytes("media/ab/abcd", b"nor is this")
    jobs = {
        "link.mp4": service.enqueue_ingest(media_folder / "link.mp4"),
        "mine.mp4": service.enqueue(
            JobKind.INGEST, blob_key="media/ab/abcd", sha256="abcd", filename="mine.mp4"
        ),
    }

    ingest_all(context)

    for name, job_id in jobs.items():
        message = service.job(job_id).error_message
        assert name in message
        assert "target" not in message
        assert "abcd" not in message


def test_a_video_whose_file_was_moved_is_where_it_is_indexed_again(
    service, context, generation, media_folder
):
    path = shutil.copyfile(SAMPLES / "squirrel.mp4", media_folder / "old.mp4")
    service.enqueue_ingest(path)
    ingest_all(context)
    renamed = path.rename(media_folder / "new.mp4")
    service.enqueue_ingest(renamed)

    ingest_all(context)

    (video,) = videos(service)
    assert (video.uri, video.filename) == (renamed.as_uri(), "new.mp4")


def test_a_video_whose_file_has_other_content_now_is_where_its_own_content_is(
    service, context, generation, media_folder
):
    path = shutil.copyfile(SAMPLES / "squirrel.mp4", media_folder / "v.mp4")
    service.enqueue_ingest(path)
    ingest_all(context)
    copy = shutil.copyfile(path, media_folder / "copy.mp4")
    path.write_bytes(b"something else")
    service.enqueue_ingest(copy)

    ingest_all(context)

    (video,) = videos(service)
    assert video.filename == "copy.mp4"


def test_an_upload_takes_the_place_of_a_file_that_is_gone(
    service, context, generation, media_folder
):
    path = shutil.copyfile(SAMPLES / "squirrel.mp4", media_folder / "old.mp4")
    service.enqueue_ingest(path)
    ingest_all(context)
    service.blobs.put_file("media/ab/abcd", path)
    path.unlink()
    service.enqueue(JobKind.INGEST, blob_key="media/ab/abcd", sha256="abcd", filename="mine.mp4")

    ingest_all(context)

    (video,) = videos(service)
    assert (video.uri, video.blob_key) == ("upload:///mine.mp4", "media/ab/abcd")


def test_a_video_that_failed_for_its_moved_file_is_embedded_from_the_new_place(
    service, context, generation, media_folder
):
    path = shutil.copyfile(SAMPLES / "squirrel.mp4", media_folder / "old.mp4")
    service.enqueue_ingest(path)
    ingest_all(context)
    renamed = path.rename(media_folder / "new.mp4")
    embed_all(context)
    (video,) = videos(service)
    assert (video.state, video.error_code) == (VideoState.FAILED, "media_not_found")
    service.enqueue_ingest(renamed)

    ingest_all(context)

    (video,) = videos(service)
    assert (video.state, video.error_code) == (VideoState.PROCESSING, None)


def test_a_copy_leaves_a_video_where_it_is_and_both_names_find_it(
    service, context, generation, media_folder
):
    service.enqueue_ingest(SAMPLES / "squirrel.mp4")
    ingest_all(context)
    service.enqueue_ingest(shutil.copyfile(SAMPLES / "squirrel.mp4", media_folder / "copy.mp4"))

    ingest_all(context)

    (video,) = videos(service)
    assert video.filename == "squirrel.mp4"
    with service.sessions.begin() as session:
        repository = VideoRepository(session)
        for name in ("squirrel.mp4", "copy.mp4"):
            assert [each.id for each in repository.list(name=name).items] == [video.id]
        assert [each.id for each in repository.list(name_part="COP").items] == [video.id]
        assert list(repository.list(name="cop").items) == []
        assert list(repository.list(name_part="c%y").items) == []


def test_the_same_content_is_one_video_linked_from_both_jobs(
    service, context, generation, media_folder
):
    shutil.copy(SAMPLES / "squirrel.mp4", media_folder / "copy.mp4")
    first = service.enqueue_ingest(SAMPLES / "squirrel.mp4")
    second = service.enqueue_ingest(media_folder / "copy.mp4")

    ingest_all(context)

    (video,) = videos(service)
    assert service.job(first).result["duplicate"] is False
    assert service.job(second).result["duplicate"] is True
    assert service.job(second).video_id == video.id
    assert len(service.jobs(JobKind.EMBED)) == 1


def test_the_same_content_at_the_same_time_is_computed_once(service, generation, media_folder):
    for number in range(6):
        shutil.copy(SAMPLES / "squirrel.mp4", media_folder / f"{number}.mp4")
        service.enqueue_ingest(media_folder / f"{number}.mp4")
    contexts = [service.context() for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ingest_all, contexts))
    # Those that met another at work on the same content are due a moment later.
    with service.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET run_at = now() WHERE state = 'queued'"))
    ingest_all(contexts[0])

    jobs = service.jobs(JobKind.INGEST)
    assert len(videos(service)) == 1
    assert [job.state for job in jobs] == [JobState.SUCCEEDED] * 6
    assert [job.attempt for job in jobs] == [1] * 6
    assert sum(not job.result["duplicate"] for job in jobs) == 1
    for context in contexts:
        context.close()


def test_a_known_video_without_clips_gets_its_embed_job_back(service, context, generation):
    service.enqueue_ingest(SAMPLES / "squirrel.mp4")
    ingest_all(context)
    with service.sessions.begin() as session:
        session.execute(text("DELETE FROM jobs"))
    again = service.enqueue_ingest(SAMPLES / "squirrel.mp4")

    ingest_all(context)

    (embed,) = service.jobs(JobKind.EMBED)
    assert service.job(again).result["embed_job_id"] == str(embed.id)


def embed_is_cancelled(service):
    """Cancel the one embed job that is not over."""
    with service.sessions.begin() as session:
        return JobRepository(session).cancel_where(Job.kind == JobKind.EMBED)


def test_content_whose_embed_job_was_cancelled_can_be_indexed_again(service, context, generation):
    asked_before = [service.enqueue_ingest(SAMPLES / "squirrel.mp4") for _ in range(2)]
    ingest_next(context)
    assert embed_is_cancelled(service) == 1

    ingest_all(context)

    again = [job for job in service.jobs(JobKind.EMBED) if job.state == JobState.QUEUED]
    assert [str(job.id) for job in again] == [service.job(asked_before[1]).result["embed_job_id"]]
    assert videos(service)[0].state == VideoState.PROCESSING


def test_a_failed_video_is_tried_again_by_those_who_ask_afterwards(service, context, generation):
    first, copy = [service.enqueue_ingest(SAMPLES / "squirrel.mp4") for _ in range(2)]
    ingest_next(context)
    job = context.leases.claim([JobKind.EMBED], limit=1)[0]
    context.leases.settle(job, DecodeFailed("frame 3 is broken"))
    ingest_all(context)
    assert [service.job(job_id).state for job_id in (first, copy)] == [JobState.SUCCEEDED] * 2
    assert len(service.jobs(JobKind.EMBED)) == 1

    service.enqueue_ingest(SAMPLES / "squirrel.mp4")
    ingest_all(context)

    assert len(service.jobs(JobKind.EMBED)) == 2
    assert videos(service)[0].state == VideoState.PROCESSING


def test_a_copy_waits_until_a_cancelled_embed_job_has_ended(service, context, generation):
    service.enqueue_ingest(SAMPLES / "squirrel.mp4")
    ingest_all(context)
    (job,) = context.leases.claim([JobKind.EMBED], limit=1)
    embed_is_cancelled(service)
    copy = service.enqueue_ingest(SAMPLES / "squirrel.mp4")
    ingest_next(context)
    state_before = service.job(copy).state
    context.leases.settle(job, CancelRequested("cancelled"))
    with service.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET run_at = now() WHERE state = 'queued'"))

    ingest_all(context)

    assert state_before == JobState.QUEUED
    embed = service.job(service.job(copy).result["embed_job_id"])
    assert (embed.state, embed.id != job.claim.id) == (JobState.QUEUED, True)


def test_a_known_video_gets_the_tags_of_a_copy(service, context, generation):
    uri = (SAMPLES / "squirrel.mp4").as_uri()
    for tags in (["a", "b"], ["b", "c"]):
        service.enqueue(JobKind.INGEST, uri=uri, tags=tags)

    ingest_all(context)

    assert videos(service)[0].tags == ["a", "b", "c"]


def upload(service, content):
    """Do what the API does with an upload. Returns the blob's key."""
    key = media_key(hashlib.sha256(content).hexdigest())
    service.blobs.put_bytes(key, content)
    service.enqueue(JobKind.INGEST, blob_key=key, filename="v.mp4")
    return key


def test_an_upload_that_becomes_no_video_leaves_no_blob(service, context, generation):
    content = (SAMPLES / "squirrel.mp4").read_bytes()
    service.enqueue_ingest(SAMPLES / "squirrel.mp4")
    ingest_all(context)
    keys = [upload(service, b"this is not a film " * 100), upload(service, content)]

    ingest_all(context)

    assert [job.error_code for job in service.jobs(JobKind.INGEST)] == [
        None,
        "unsupported_media",
        None,
    ]
    assert [service.blobs.exists(key) for key in keys] == [False, False]


def test_the_blob_of_an_uploaded_video_stays(service, context, generation):
    content = (SAMPLES / "squirrel.mp4").read_bytes()
    key = upload(service, content)
    ingest_all(context)
    upload(service, content)

    ingest_all(context)

    assert videos(service)[0].blob_key == key
    assert service.blobs.exists(key)


def test_hashing_a_large_file_advances_its_job(service, context, media_folder, monkeypatch):
    path = media_folder / "large.mp4"
    path.write_bytes(bytes(8 << 20))
    service.enqueue_ingest(path)
    advances = []

    def note(job):
        advances.append(job)

    monkeypatch.setattr(RunningJob, "advance", note)

    ingest_all(context)

    assert len(advances) >= 8


def test_the_pictures_of_a_probe_wait_where_the_sweep_finds_them(
    service, context, generation, monkeypatch
):
    folders = []

    def note(path, *, poster, strip, **limits):
        folders.append(poster.parent)
        return probe_in_subprocess(path, poster=poster, strip=strip, **limits)

    monkeypatch.setattr(ingestion, "probe_in_subprocess", note)
    service.enqueue_ingest(SAMPLES / "squirrel.mp4")

    ingest_all(context)

    assert [folder.parent for folder in folders] == [service.blobs.staging_folder()]
    assert folders[0].name.startswith(STAGED)


def test_a_batchs_embed_jobs_belong_to_it_and_come_after_single_videos(
    service, context, generation, media_folder
):
    with service.sessions.begin() as session:
        batch_id = BatchRepository(session).create().id
        JobRepository(session).enqueue(
            NewJob(
                kind=JobKind.INGEST,
                input={"uri": (SAMPLES / "squirrel.mp4").as_uri()},
                batch_id=batch_id,
                batch_index=0,
            )
        )
    service.enqueue_ingest(write_counting_video(media_folder / "v.mp4", 20))

    ingest_all(context)

    single, bulk = sorted(service.jobs(JobKind.EMBED), key=lambda job: job.priority)
    assert (single.batch_id, bulk.batch_id) == (None, batch_id)
    assert single.priority < bulk.priority


def test_embed_jobs_take_their_turns_where_their_ingest_jobs_did(service, context, generation):
    key_id = uuid4()
    with service.sessions.begin() as session:
        batch_id = BatchRepository(session).create().id
        JobRepository(session).enqueue(
            NewJob(
                kind=JobKind.INGEST,
                input={"uri": (SAMPLES / "squirrel.mp4").as_uri()},
                priority=4,
                api_key_id=key_id,
                batch_id=batch_id,
            )
        )

    ingest_all(context)

    (embed,) = service.jobs(JobKind.EMBED)
    assert (embed.priority, embed.api_key_id, embed.batch_id) == (4, key_id, batch_id)


def test_without_a_generation_a_video_waits_for_one(service, context):
    job_id = service.enqueue_ingest(SAMPLES / "squirrel.mp4")

    ingest_all(context)

    assert service.job(job_id).result["embed_job_id"] is None
    assert videos(service)[0].state == VideoState.PROCESSING


def test_a_copy_that_comes_while_the_embed_job_ends_starts_no_second_one(
    service, context, generation, media_folder
):
    service.enqueue_ingest(SAMPLES / "squirrel.mp4")
    ingest_all(context)
    (video,) = videos(service)
    copy = shutil.copyfile(SAMPLES / "squirrel.mp4", media_folder / "copy.mp4")
    service.enqueue_ingest(copy)

    with ThreadPoolExecutor(1) as pool, service.sessions.begin() as ending:
        jobs = JobRepository(ending)
        (claim,) = jobs.claim([JobKind.EMBED], limit=1, owner="a", lease=timedelta(minutes=1))
        VideoRepository(ending).mark_ready(video.id)
        jobs.finish(claim, {"clips": 1})
        linking = pool.submit(ingest_all, context)
        wait([linking], timeout=1)  # it meets the lock of the transaction that has not ended
        ending.commit()
        linking.result()

    assert len(service.jobs(JobKind.EMBED)) == 1
    assert [job.result["duplicate"] for job in service.jobs(JobKind.INGEST)].count(True) == 1
