import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta

import pytest
from sqlalchemy import text
from videos import cut, write_counting_video, write_sound

from store.job_state import JobKind, JobState
from store.jobs import JobRepository, NewJob
from store.tables import VideoState
from store.videos import VideoRepository
from tests.workers.models import save_recall_model
from tests.workers.service import SAMPLES
from workers.deployment import ensure_default
from workers.ingestion import ingest_next


def ingest_all(workplace):
    while ingest_next(workplace):
        pass


def videos(service):
    with service.sessions.begin() as session:
        return list(VideoRepository(session).list().items)


@pytest.fixture
def generation(service, tmp_path):
    ensure_default(service.sessions, service.blobs, save_recall_model(tmp_path / "recall"))


def test_a_new_file_becomes_a_video_with_thumbnails_and_an_embed_job(
    service, workplace, generation
):
    path = SAMPLES / "cockatoo.mp4"
    job_id = service.enqueue(
        JobKind.INGEST, uri=path.as_uri(), tags=["birds"], metadata={"camera": "2"}
    )

    ingest_all(workplace)

    job = service.job(job_id)
    (video,) = videos(service)
    (embed,) = service.jobs(JobKind.EMBED)
    assert job.result == {
        "video_id": str(video.id),
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
    assert workplace.doorbell.queue_length("embed") == 1


def test_an_uploaded_blob_becomes_a_video(service, workplace, generation):
    service.blobs.put_file("media/ab/abcd", SAMPLES / "squirrel.mp4")
    service.enqueue(
        JobKind.INGEST, blob_key="media/ab/abcd", sha256="abcd", filename="my squirrel.mp4"
    )

    ingest_all(workplace)

    (video,) = videos(service)
    assert (video.blob_key, video.filename) == ("media/ab/abcd", "my squirrel.mp4")
    assert video.uri == "upload:///my%20squirrel.mp4"


def test_bad_media_fail_with_their_own_codes_and_the_others_go_on(
    service, workplace, generation, media_folder
):
    good = write_counting_video(media_folder / "good.mp4", 30)
    (media_folder / "text.mp4").write_text("this is no film " * 100)
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

    ingest_all(workplace)

    assert {name: service.job(job_id).error_code for name, job_id in jobs.items()} == wanted
    assert all(service.job(jobs[name]).error_message for name, code in wanted.items() if code)
    assert [video.filename for video in videos(service)] == ["good.mp4"]


def test_the_same_content_is_one_video_linked_from_both_jobs(
    service, workplace, generation, media_folder
):
    shutil.copy(SAMPLES / "squirrel.mp4", media_folder / "copy.mp4")
    first = service.enqueue_ingest(SAMPLES / "squirrel.mp4")
    second = service.enqueue_ingest(media_folder / "copy.mp4")

    ingest_all(workplace)

    (video,) = videos(service)
    assert service.job(first).result["duplicate"] is False
    assert service.job(second).result["duplicate"] is True
    assert service.job(second).video_id == video.id
    assert len(service.jobs(JobKind.EMBED)) == 1


def test_the_same_content_at_the_same_time_is_computed_once(service, generation, media_folder):
    for number in range(6):
        shutil.copy(SAMPLES / "squirrel.mp4", media_folder / f"{number}.mp4")
        service.enqueue_ingest(media_folder / f"{number}.mp4")
    workplaces = [service.workplace() for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ingest_all, workplaces))
    # Those that met another at work on the same content are due a moment later.
    with service.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET run_at = now() WHERE state = 'queued'"))
    ingest_all(workplaces[0])

    jobs = service.jobs(JobKind.INGEST)
    assert len(videos(service)) == 1
    assert [job.state for job in jobs] == [JobState.SUCCEEDED] * 6
    assert [job.attempt for job in jobs] == [1] * 6
    assert sum(not job.result["duplicate"] for job in jobs) == 1
    for workplace in workplaces:
        workplace.close()


def test_a_known_video_without_clips_gets_its_embed_job_back(service, workplace, generation):
    service.enqueue_ingest(SAMPLES / "squirrel.mp4")
    ingest_all(workplace)
    with service.sessions.begin() as session:
        session.execute(text("DELETE FROM jobs"))
    again = service.enqueue_ingest(SAMPLES / "squirrel.mp4")

    ingest_all(workplace)

    (embed,) = service.jobs(JobKind.EMBED)
    assert service.job(again).result["embed_job_id"] == str(embed.id)


def test_a_batchs_embed_jobs_belong_to_it_and_come_after_single_videos(
    service, workplace, generation, media_folder
):
    from store.batches import BatchRepository

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

    ingest_all(workplace)

    single, bulk = sorted(service.jobs(JobKind.EMBED), key=lambda job: job.priority)
    assert (single.batch_id, bulk.batch_id) == (None, batch_id)
    assert single.priority < bulk.priority


def test_without_a_generation_a_video_waits_for_one(service, workplace):
    job_id = service.enqueue_ingest(SAMPLES / "squirrel.mp4")

    ingest_all(workplace)

    assert service.job(job_id).result["embed_job_id"] is None
    assert videos(service)[0].state == VideoState.PROCESSING


def test_a_copy_that_comes_while_the_embed_job_ends_starts_no_second_one(
    service, workplace, generation, media_folder
):
    service.enqueue_ingest(SAMPLES / "squirrel.mp4")
    ingest_all(workplace)
    (video,) = videos(service)
    copy = shutil.copyfile(SAMPLES / "squirrel.mp4", media_folder / "copy.mp4")
    service.enqueue_ingest(copy)

    with ThreadPoolExecutor(1) as pool, service.sessions.begin() as ending:
        jobs = JobRepository(ending)
        (claim,) = jobs.claim([JobKind.EMBED], limit=1, owner="a", lease=timedelta(minutes=1))
        VideoRepository(ending).mark_ready(video.id)
        jobs.finish(claim, {"clips": 1})
        linking = pool.submit(ingest_all, workplace)
        wait([linking], timeout=1)  # it meets the lock of the transaction that has not ended
        ending.commit()
        linking.result()

    assert len(service.jobs(JobKind.EMBED)) == 1
    assert [job.result["duplicate"] for job in service.jobs(JobKind.INGEST)].count(True) == 1
