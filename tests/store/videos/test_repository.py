import threading
from uuid import uuid4

import pytest
from failed_videos import fail_video
from sqlalchemy import event

from store.errors import VideoNotFound
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.models.repository import GenerationRepository, ModelRepository
from store.results.questions import QuestionRepository
from store.videos.records import NewClip
from store.videos.repository import VideoRepository
from store.videos.tables import VideoState


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def videos(session):
    return VideoRepository(session)


@pytest.fixture
def generation_id(session):
    return make_generation(session)


def make_generation(session):
    model = ModelRepository(session).register(
        name="m",
        version=str(uuid4()),
        heads=[],
        tasks=["recall"],
        folder_key="k",
        sha256="s",
        visual_sha256="v",
        config={},
    )
    generations = GenerationRepository(session)
    return generations.create(model_id=model.id, recall_model_id=model.id, plan={}).id


def create(videos, sha256="a", **values):
    return videos.create(uri=f"file:///{sha256}.mp4", sha256=sha256, **values)[0].id


def clip(index, vector=(1.0, 0.0), tokens_key="tokens/g/v.safetensors"):
    return NewClip(index, index * 2.0, index * 2.0 + 2.0, [index * 2.0 + 1.0], vector, tokens_key)


def test_a_video_keeps_what_was_found_out_about_it(videos):
    video, is_new = videos.create(
        uri="file:///a.mp4",
        sha256="a",
        size_bytes=5_000_000_000,
        duration_seconds=12.5,
        width=640,
        height=360,
        frames_per_second=29.97,
        tags=["birds"],
        metadata={"camera": 2},
        probe={"codec": "h264"},
    )

    assert is_new
    assert (video.state, video.size_bytes, video.duration_seconds) == (
        VideoState.PROCESSING,
        5_000_000_000,
        12.5,
    )
    assert (video.tags, video.custom_metadata, video.probe) == (
        ["birds"],
        {"camera": 2},
        {"codec": "h264"},
    )


def test_the_same_content_is_one_video(videos):
    first, _ = videos.create(uri="file:///a.mp4", sha256="a")

    again, is_new = videos.create(uri="file:///copy.mp4", sha256="a")

    assert not is_new
    assert (again.id, again.uri) == (first.id, "file:///a.mp4")
    assert videos.find_by_sha256("a").id == first.id
    assert videos.find_by_sha256("b") is None


def test_two_workers_that_find_the_same_content_at_once_make_one_video(sessions):
    start, found = threading.Barrier(6), []

    def work(number):
        start.wait()
        with sessions.begin() as session:
            found.append(VideoRepository(session).create(uri=f"file:///{number}", sha256="a"))

    threads = [threading.Thread(target=work, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({video.id for video, _ in found}) == 1
    assert [is_new for _, is_new in found].count(True) == 1


def test_a_video_that_is_deleted_while_its_content_is_found_again_is_made_anew(sessions):
    with sessions.begin() as session:
        to_delete = [create(VideoRepository(session))]

    def delete_before_the_look(_connection, _cursor, statement, *_):
        if to_delete and statement.startswith("SELECT videos"):
            video_id = to_delete.pop()
            with sessions.begin() as other:
                VideoRepository(other).delete(video_id)

    event.listen(sessions.kw["bind"], "before_cursor_execute", delete_before_the_look)
    with sessions.begin() as session:
        video, is_new = VideoRepository(session).create(
            uri="file:///b.mp4", sha256="a", metadata={"by": "me"}
        )

    assert is_new
    assert (video.uri, video.custom_metadata) == ("file:///b.mp4", {"by": "me"})


def test_videos_are_listed_the_newest_first_by_state_and_tag(videos):
    plain = create(videos, "a")
    tagged = create(videos, "b", tags=["birds", "zoo"])
    videos.mark_ready(tagged)

    assert [video.id for video in videos.list().items] == [tagged, plain]
    assert [video.id for video in videos.list(state=VideoState.READY).items] == [tagged]
    assert [video.id for video in videos.list(tag="zoo").items] == [tagged]
    page = videos.list(page_size=1)
    assert videos.list(page_token=page.next_page_token).items[0].id == plain
    assert videos.counts() == {VideoState.PROCESSING: 1, VideoState.READY: 1}


def test_clips_replace_those_that_were_there(videos, generation_id):
    video_id = create(videos)
    videos.replace_clips(video_id, generation_id, clips=[clip(0), clip(1), clip(2)])

    videos.replace_clips(video_id, generation_id, clips=[clip(1), clip(0, vector=None)])

    found = videos.clips(video_id, generation_id)
    assert [(c.index, c.start_seconds, c.end_seconds, c.instants) for c in found] == [
        (0, 0.0, 2.0, [1.0]),
        (1, 2.0, 4.0, [3.0]),
    ]
    assert found[0].vector is None
    assert list(found[1].vector) == [1.0, 0.0]


def test_clips_of_two_generations_live_side_by_side(videos, session):
    video_id, one, other = create(videos), make_generation(session), make_generation(session)
    videos.replace_clips(video_id, one, clips=[clip(0)])
    videos.replace_clips(
        video_id, other, clips=[clip(0, vector=(1.0, 2.0, 3.0)), clip(1, (0, 0, 1))]
    )

    assert len(videos.clips(video_id, one)) == 1
    assert len(videos.clips(video_id, other)) == 2


def test_a_deletion_leaves_the_job_of_an_upload_that_came_before(videos, session):
    jobs = JobRepository(session)
    video_id = create(videos, "a", blob_key="media/a/a")
    upload = jobs.enqueue(NewJob(JobKind.INGEST, {"blob_key": "media/a/a"}, video_id=video_id))

    videos.delete(video_id)

    job = jobs.get(upload.id)
    assert (job.state, job.video_id) == (JobState.QUEUED, None)


def test_a_video_gets_the_tags_that_it_lacks(videos):
    video_id = create(videos, tags=["birds", "zoo"])

    videos.add_tags(video_id, ["zoo", "white", "white"])

    assert videos.get(video_id).tags == ["birds", "zoo", "white"]


def test_a_deleted_video_takes_its_clips_and_jobs_and_names_its_blobs(
    videos, session, generation_id
):
    jobs = JobRepository(session)
    video_id = create(videos, "a", blob_key="media/a/a")
    videos.replace_clips(video_id, generation_id, clips=[clip(0), clip(1)])
    embed = jobs.enqueue(NewJob(JobKind.EMBED, {}, video_id=video_id))
    question = jobs.enqueue(NewJob(JobKind.QUESTION, {"text": "why?"}, video_id=video_id))
    QuestionRepository(session).create(question, text="why?")

    deleted = videos.delete(video_id)

    assert (deleted.sha256, deleted.tokens_keys) == ("a", ["tokens/g/v.safetensors"])
    assert videos.clips(video_id, generation_id) == []
    assert jobs.get(embed.id).state == JobState.CANCELLED
    assert QuestionRepository(session).get(question.id)[0].text == "why?"
    with pytest.raises(VideoNotFound):
        videos.get(video_id)


def test_a_worker_learns_that_its_video_was_deleted(videos, generation_id):
    video_id = create(videos)
    videos.delete(video_id)

    for write in (
        lambda: videos.replace_clips(video_id, generation_id, clips=[clip(0)]),
        lambda: videos.mark_ready(video_id),
        lambda: videos.delete(video_id),
    ):
        with pytest.raises(VideoNotFound):
            write()


def test_a_failed_video_says_why_until_it_is_ready(session, videos):
    video_id = create(videos)
    fail_video(session, video_id, code="decode_failed", message="frame 3 is broken")
    failed = videos.get(video_id)
    assert (failed.state, failed.error_code) == (VideoState.FAILED, "decode_failed")
    assert failed.error_message == "frame 3 is broken"

    videos.mark_ready(video_id)

    ready = videos.get(video_id)
    assert (ready.state, ready.error_code, ready.error_message) == (VideoState.READY, None, None)


def test_damage_makes_a_video_partial_and_spans_that_meet_are_one(videos):
    video_id = create(videos)
    assert not videos.get(video_id).is_partial

    videos.note_damage(video_id, [(4.0, 5.0), (1.0, 2.0)])
    videos.note_damage(video_id, [(2.0, 2.5), (4.5, 4.75)])

    video = videos.get(video_id)
    assert video.is_partial
    assert video.damaged_spans == [[1.0, 2.5], [4.0, 5.0]]


def test_many_damaged_spans_are_told_as_fewer_that_cover_them(videos):
    video_id = create(videos)
    spans = [(10.0 * i, 10.0 * i + 1) for i in range(1000)]
    spans[500] = (4998.0, 5001.0)  # the nearest to the one before

    videos.note_damage(video_id, spans)

    kept = videos.get(video_id).damaged_spans
    assert len(kept) == 256
    assert all(any(a <= start and end <= b for a, b in kept) for start, end in spans)
    assert any(a <= 4991.0 and b >= 5001.0 for a, b in kept)


@pytest.mark.parametrize("span", [(2.0, 1.0), (-1.0, 1.0), (0.0, float("inf")), (float("nan"), 1)])
def test_a_span_that_is_none_is_refused(videos, span):
    video_id = create(videos)

    with pytest.raises(ValueError, match="damaged span"):
        videos.note_damage(video_id, [span])


def test_damage_of_a_video_that_is_gone_is_refused(videos):
    with pytest.raises(VideoNotFound):
        videos.note_damage(uuid4(), [(0.0, 1.0)])
