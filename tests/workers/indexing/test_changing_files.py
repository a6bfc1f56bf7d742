"""Files in place that are replaced, written to, moved and taken away."""

import os
import shutil
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import event, insert, select, text, update
from videos import write_counting_video

from clipbert.errors import ProbeTimeout
from policy.generations import embed_job
from policy.video_references import find_videos
from store.errors import VideoSuperseded
from store.jobs.repository import JobRepository
from store.jobs.state import JobKind, JobState
from store.jobs.tables import JobEvent
from store.labels.tables import Label
from store.models.repository import GenerationRepository, ModelRepository
from store.videos.records import NewClip
from store.videos.repository import VideoRepository
from store.videos.tables import Video, VideoState
from tests.workers.library import read_video
from tests.workers.service import wait_for
from workers.indexing import ingestion
from workers.indexing.ingestion import ingest_next, probe_limit_seconds
from workers.maintenance.location_checks import check_locations
from workers.settings import WorkerSettings


def named_ids(session, *names):
    return {
        name: [video.id for video in found] for name, found in find_videos(session, names).items()
    }


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two contents, made once."""
    folder = tmp_path_factory.mktemp("films")
    return [write_counting_video(folder / f"{n}.mp4", n) for n in (10, 20)]


@pytest.fixture
def generation_id(service):
    """A generation of a model that nothing is computed with."""
    with service.sessions.begin() as session:
        model = ModelRepository(session).register(
            name="m",
            version="1",
            heads=[],
            tasks=["recall"],
            folder_key="k",
            sha256="s",
            visual_sha256="v",
            config={},
        )
        generations = GenerationRepository(session)
        generation = generations.create(model_id=model.id, recall_model_id=model.id, plan={})
        generations.activate(generation.id)
        return generation.id


def put(film, location):
    """Put a film at a place as people do: beside it, and then renamed."""
    copy = shutil.copyfile(film, location.with_name("copying"))
    return copy.replace(location)


def index(service, context, *locations):
    jobs = [service.enqueue_ingest(location) for location in locations]
    while ingest_next(context):
        pass
    return [service.job(job_id) for job_id in jobs]


def all_videos(service):
    with service.sessions.begin() as session:
        return {video.id: video for video in session.scalars(select(Video).order_by(Video.id))}


def num_waiting_for_locks(service):
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with service.sessions.begin() as session:
        return session.scalar(text(query))


def add_clips(service, video_id, generation_id, blobs):
    key = f"tokens/{generation_id}/{video_id}.safetensors"
    blobs.put_bytes(key, b"tokens")
    with service.sessions.begin() as session:
        videos = VideoRepository(session)
        videos.replace_clips(
            video_id, generation_id, clips=[NewClip(0, 0.0, 1.0, [0.5], [1.0, 0.0], key)]
        )
        videos.mark_ready(video_id)
    return key


def found(service, generation_id):
    with service.sessions.begin() as session:
        return {
            video_id
            for video_id in all_videos(service)
            if VideoRepository(session).clips(video_id, generation_id)
        }


def test_a_path_with_other_content_supersedes_what_was_there(
    service, context, films, media_folder, generation_id
):
    location = put(films[0], media_folder / "v.mp4")
    [first] = index(service, context, location)
    key = add_clips(service, first.video_id, generation_id, service.blobs)
    put(films[1], location)

    [second] = index(service, context, location)

    old, new = all_videos(service).values()
    assert (old.id, new.id) == (first.video_id, second.video_id)
    assert (old.state, old.superseded_by_id) == (VideoState.SUPERSEDED, new.id)
    assert (new.state, new.uri) == (VideoState.PROCESSING, location.as_uri())
    assert found(service, generation_id) == set()
    assert not service.blobs.exists(key)
    embeds = [job for job in service.jobs(JobKind.EMBED) if job.video_id == old.id]
    assert [job.state for job in embeds] == [JobState.CANCELLED]
    with service.sessions.begin() as session:
        assert named_ids(session, "v.mp4", str(old.id)) == {
            "v.mp4": [new.id],
            str(old.id): [old.id],
        }
        assert [video.id for video in VideoRepository(session).list().items] == [new.id]


def test_what_was_superseded_comes_back_with_its_labels_when_its_content_does(
    service, context, films, media_folder, generation_id
):
    location = put(films[0], media_folder / "v.mp4")
    [first] = index(service, context, location)
    put(films[1], location)
    index(service, context, location)
    put(films[0], location)

    [third] = index(service, context, location)

    assert third.video_id == first.video_id
    videos = all_videos(service)
    other = next(video for video in videos.values() if video.id != first.video_id)
    assert videos[first.video_id].state == VideoState.PROCESSING
    assert videos[first.video_id].superseded_by_id is None
    assert (other.state, other.superseded_by_id) == (VideoState.SUPERSEDED, first.video_id)
    waiting = [job for job in service.jobs(JobKind.EMBED) if job.state == JobState.QUEUED]
    assert [job.video_id for job in waiting] == [first.video_id]


def test_content_that_lies_elsewhere_too_lives_on_there(service, context, films, media_folder):
    location = put(films[0], media_folder / "a.mp4")
    copy = put(films[0], media_folder / "b.mp4")
    first, second = index(service, context, location, copy)
    assert first.video_id == second.video_id
    put(films[1], location)

    [third] = index(service, context, location)

    videos = all_videos(service)
    kept = videos[first.video_id]
    assert (kept.state, kept.uri, kept.filename) == (
        VideoState.PROCESSING,
        copy.as_uri(),
        "b.mp4",
    )
    assert videos[third.video_id].uri == location.as_uri()
    with service.sessions.begin() as session:
        assert named_ids(session, "a.mp4", "b.mp4") == {
            "a.mp4": [third.video_id],
            "b.mp4": [first.video_id],
        }


def test_a_copy_that_has_other_content_by_now_does_not_keep_a_video(
    service, context, films, media_folder
):
    location = put(films[0], media_folder / "a.mp4")
    copy = put(films[0], media_folder / "b.mp4")
    first, _ = index(service, context, location, copy)
    copy.write_bytes(b"rubbish")
    put(films[1], location)

    index(service, context, location)

    assert all_videos(service)[first.video_id].state == VideoState.SUPERSEDED


def test_uploads_of_one_name_do_not_supersede_each_other(service, context, films):
    for number, film in enumerate(films):
        key = f"media/ab/{number}"
        service.blobs.put_file(key, film)
        service.enqueue(JobKind.INGEST, blob_key=key, sha256=str(number), filename="v.mp4")

    while ingest_next(context):
        pass

    states = [video.state for video in all_videos(service).values()]
    assert states == [VideoState.PROCESSING, VideoState.PROCESSING]


def test_the_newer_of_two_contents_of_one_path_stays_whichever_job_ends_last(
    service, context, films, media_folder, monkeypatch
):
    location = put(films[0], media_folder / "v.mp4")
    slow, fast = (service.enqueue_ingest(location) for _ in range(2))
    probing, may_go_on = threading.Event(), threading.Event()
    probe = ingestion.probe_in_subprocess

    def wait_when_first(path, **options):
        answer = probe(path, **options)
        if not probing.is_set():
            probing.set()
            assert may_go_on.wait(120)
        return answer

    monkeypatch.setattr(ingestion, "probe_in_subprocess", wait_when_first)
    other_context = service.context()
    thread = threading.Thread(target=ingest_next, args=(other_context,))
    thread.start()
    assert probing.wait(120)
    put(films[1], location)  # after the slow job has hashed and probed the older one

    assert ingest_next(context) == 1
    may_go_on.set()
    thread.join(120)
    other_context.close()

    (newer,) = all_videos(service).values()
    assert newer.num_frames == 20
    states = {service.job(job_id).state for job_id in (slow, fast)}
    assert states == {JobState.SUCCEEDED, JobState.QUEUED}  # the slow one looks again
    with service.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET run_at = now()"))
    while ingest_next(context):
        pass
    assert {service.job(job_id).video_id for job_id in (slow, fast)} == {newer.id}


def test_clips_that_come_after_their_video_was_superseded_are_refused(
    service, context, films, media_folder, generation_id
):
    location = put(films[0], media_folder / "v.mp4")
    [first] = index(service, context, location)
    put(films[1], location)
    clip = NewClip(0, 0.0, 1.0, [0.5], [1.0, 0.0], "tokens/g/v.safetensors")
    embedding = service.sessions()
    embedding.begin()
    VideoRepository(embedding).replace_clips(first.video_id, generation_id, clips=[clip])
    VideoRepository(embedding).mark_ready(first.video_id)
    ingesting = threading.Thread(target=index, args=(service, context, location))
    ingesting.start()
    wait_for(lambda: num_waiting_for_locks(service) == 1)  # for the row that the embedding holds

    embedding.commit()
    ingesting.join(120)

    assert all_videos(service)[first.video_id].state == VideoState.SUPERSEDED
    assert found(service, generation_id) == set()
    with pytest.raises(VideoSuperseded), service.sessions.begin() as session:
        VideoRepository(session).replace_clips(first.video_id, generation_id, clips=[clip])


def test_other_content_of_a_path_is_taken_in_while_what_was_there_is_being_deleted(
    service, context, films, media_folder
):
    location = put(films[0], media_folder / "v.mp4")
    [first] = index(service, context, location)
    put(films[1], location)
    deletion = service.sessions()
    VideoRepository(deletion).delete(first.video_id)
    job_id = service.enqueue_ingest(location)
    ingesting = threading.Thread(target=ingest_next, args=(context,))
    ingesting.start()
    wait_for(lambda: num_waiting_for_locks(service) == 1)

    deletion.commit()
    ingesting.join(120)

    (video,) = all_videos(service).values()
    job = service.job(job_id)
    assert (job.state, job.video_id) == (JobState.SUCCEEDED, video.id)


def test_a_video_that_was_deleted_while_it_was_taken_in_is_made_anew(
    service, context, films, media_folder, monkeypatch
):
    location = put(films[0], media_folder / "v.mp4")
    [first] = index(service, context, location)
    is_still_there = ingestion._is_still_there

    def delete_meanwhile(*arguments):
        with service.sessions.begin() as session:
            VideoRepository(session).delete(first.video_id)
        return is_still_there(*arguments)

    monkeypatch.setattr(ingestion, "_is_still_there", delete_meanwhile)

    [second] = index(service, context, location)

    (video,) = all_videos(service).values()
    assert video.id == second.video_id != first.video_id


def test_labels_stay_with_the_content_that_they_are_about(
    service, context, films, media_folder, generation_id
):
    location = put(films[0], media_folder / "v.mp4")
    [first] = index(service, context, location)
    with service.sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO labels (id, video_id, task, text, answer, choices, provenance, split, "
                "content_sha256, revision) VALUES (gen_random_uuid(), :id, 'qa', 'what?', 'a', "
                "'{}', '{}', 'train', 'x', 1)"
            ),
            {"id": first.video_id},
        )
    put(films[1], location)

    index(service, context, location)

    with service.sessions.begin() as session:
        assert list(session.scalars(select(Label.video_id))) == [first.video_id]


def test_a_file_that_was_written_to_a_moment_ago_is_looked_at_again_later(
    service, films, media_folder
):
    context = service.context(settle_seconds=2)
    location = put(films[0], media_folder / "v.mp4")
    job_id = service.enqueue_ingest(location)

    assert ingest_next(context) == 1

    job = service.job(job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    with service.sessions.begin() as session:
        events = session.execute(
            select(JobEvent.type, JobEvent.data).where(JobEvent.job_id == job_id)
        ).all()
        assert ("growing", {"size_bytes": location.stat().st_size}) in [tuple(e) for e in events]
        wait = (job.run_at - job.updated_at).total_seconds()
        session.execute(text("UPDATE jobs SET run_at = now()"))
    assert 1.5 <= wait <= 2.5
    os.utime(location)
    settled_at = time.monotonic() + 2.1
    while time.monotonic() < settled_at:
        time.sleep(0.1)
    assert ingest_next(context) == 1
    assert service.job(job_id).state == JobState.SUCCEEDED
    context.close()


def test_a_file_that_grows_while_it_is_read_is_tried_again_and_then_taken_whole(
    service, context, films, media_folder, monkeypatch
):
    whole = films[1].read_bytes()
    location = media_folder / "v.mp4"
    location.write_bytes(whole[: len(whole) // 2])
    job_id = service.enqueue_ingest(location)
    probe = ingestion.probe_in_subprocess

    def grow_meanwhile(path, **options):
        with location.open("ab") as file:
            file.write(whole[file.tell() :])
        return probe(path, **options)

    monkeypatch.setattr(ingestion, "probe_in_subprocess", grow_meanwhile)
    assert ingest_next(context) == 1
    assert (service.job(job_id).state, service.job(job_id).attempt) == (JobState.QUEUED, 0)

    monkeypatch.undo()
    with service.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET run_at = now()"))
    assert ingest_next(context) == 1

    (video,) = all_videos(service).values()
    assert (video.num_frames, video.size_bytes) == (20, len(whole))


def test_a_file_that_grows_for_too_long_fails_with_a_code_of_its_own(service, films, media_folder):
    context = service.context(settle_seconds=30, growing_seconds=60)
    location = put(films[0], media_folder / "v.mp4")
    job_id = service.enqueue_ingest(location)
    assert ingest_next(context) == 1
    with service.sessions.begin() as session:
        session.execute(
            update(JobEvent)
            .where(JobEvent.type == "growing")
            .values(created_at=JobEvent.created_at - timedelta(seconds=61))
        )
        session.execute(text("UPDATE jobs SET run_at = now()"))

    assert ingest_next(context) == 1

    job = service.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "media_growing")
    assert "v.mp4" in job.error_message
    # Whoever asks again gets all of the time again.
    with service.sessions.begin() as session:
        JobRepository(session).retry(job_id)
    assert ingest_next(context) == 1
    assert service.job(job_id).state == JobState.QUEUED
    context.close()


def test_a_file_that_vanishes_is_missing_until_it_returns(
    service, context, films, media_folder, generation_id
):
    location = put(films[0], media_folder / "v.mp4")
    [job] = index(service, context, location)
    add_clips(service, job.video_id, generation_id, service.blobs)
    hidden = location.rename(media_folder / "hidden")

    check_locations(context)

    video = all_videos(service)[job.video_id]
    assert video.missing_since is not None
    assert video.state == VideoState.READY
    assert found(service, generation_id) == {job.video_id}
    hidden.rename(location)
    check_locations(context)
    assert all_videos(service)[job.video_id].missing_since is None


def test_each_place_is_looked_at_once_however_few_there_are(service, context, media_folder):
    rows = [
        {"uri": (media_folder / f"{n}.mp4").as_uri(), "sha256": str(n), "state": VideoState.READY}
        for n in range(600)
    ]
    with service.sessions.begin() as session:
        session.execute(insert(Video), rows)
    looks = []

    def note(_connection, _cursor, statement, *_):
        looks.extend([1] * (statement.startswith("SELECT") and "place_checked_at" in statement))

    event.listen(context.sessions.kw["bind"], "after_cursor_execute", note)
    check_locations(context)

    assert len(looks) == 2
    assert all(video.missing_since for video in all_videos(service).values())


def test_a_place_with_a_file_of_another_length_misses_its_video(
    service, context, films, media_folder
):
    location = put(films[0], media_folder / "v.mp4")
    [job] = index(service, context, location)
    put(films[1], location)

    check_locations(context)

    assert all_videos(service)[job.video_id].missing_since is not None


def test_a_file_that_is_indexed_where_it_was_moved_is_there_again(
    service, context, films, media_folder
):
    location = put(films[0], media_folder / "old.mp4")
    [job] = index(service, context, location)
    moved = location.rename(media_folder / "new.mp4")
    check_locations(context)
    assert all_videos(service)[job.video_id].missing_since is not None

    [again] = index(service, context, moved)

    (video,) = all_videos(service).values()
    assert again.video_id == job.video_id
    assert (video.uri, video.missing_since) == (moved.as_uri(), None)


def test_a_path_that_cannot_be_read_says_so_at_once_and_its_video_is_missing(
    service, context, films, media_folder
):
    location = put(films[0], media_folder / "v.mp4")
    [job] = index(service, context, location)
    location.unlink()
    location.symlink_to("v.mp4")

    [again] = index(service, context, location)

    assert (again.state, again.attempt) == (JobState.FAILED, 1)
    assert again.error_code == "media_not_found"
    assert "circle" in again.error_message
    assert str(location) in again.error_message
    assert all_videos(service)[job.video_id].missing_since is not None


def test_a_probe_that_timed_out_is_tried_once_more(
    service, context, films, media_folder, monkeypatch
):
    location = put(films[0], media_folder / "v.mp4")
    probe = ingestion.probe_in_subprocess
    limits = []

    def time_out_first(path, **options):
        limits.append(options["timeout_seconds"])
        if len(limits) == 1:
            raise ProbeTimeout("v.mp4 took more than 60 s")
        return probe(path, **options)

    monkeypatch.setattr(ingestion, "probe_in_subprocess", time_out_first)

    [job] = index(service, context, location)

    assert job.state == JobState.SUCCEEDED
    assert len(limits) == 2

    monkeypatch.setattr(
        ingestion,
        "probe_in_subprocess",
        lambda path, **options: (_ for _ in ()).throw(ProbeTimeout("too slow")),
    )
    other = put(films[1], media_folder / "w.mp4")
    [job] = index(service, context, other)
    assert (job.state, job.error_code, job.attempt) == (JobState.FAILED, "probe_timeout", 1)


def test_a_probes_limit_grows_with_the_file():
    settings = WorkerSettings(probe_timeout_seconds=60, probe_bytes_per_second=20e6)

    assert probe_limit_seconds(settings, 0) == 60
    assert probe_limit_seconds(settings, 100 * 10**9) == 60 + 5000


def test_what_a_strict_job_asks_for_is_asked_of_its_embed_job(
    service, context, films, media_folder, generation_id
):
    location = put(films[0], media_folder / "v.mp4")
    service.enqueue(JobKind.INGEST, uri=location.as_uri(), strict=True)
    while ingest_next(context):
        pass

    (job,) = service.jobs(JobKind.EMBED)

    assert job.input["strict"] is True
    assert read_video(service, job.video_id).is_strict
    assert "strict" not in embed_job(job.video_id, generation_id).input


def test_recordings_that_are_not_read_make_a_video_partial_and_fail_a_strict_job(
    service, context, films, media_folder
):
    joined = media_folder / "joined.mp4"
    joined.write_bytes(films[0].read_bytes() + films[1].read_bytes())

    jobs = []
    for strict in (True, False, True):
        job_id = service.enqueue(JobKind.INGEST, uri=joined.as_uri(), strict=strict)
        while ingest_next(context):
            pass
        jobs.append(service.job(job_id))

    states = [JobState.FAILED, JobState.SUCCEEDED, JobState.FAILED]
    assert [job.state for job in jobs] == states
    assert {jobs[0].error_code, jobs[2].error_code} == {"decode_failed"}
    assert all("joined" in job.error_message for job in (jobs[0], jobs[2]))
    assert read_video(service, jobs[1].video_id).is_partial
