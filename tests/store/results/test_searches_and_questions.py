from uuid import uuid4

import pytest

from store.errors import QuestionNotFound, SearchNotFound
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.results.questions import QuestionRepository
from store.results.searches import SearchRepository
from store.videos.repository import VideoRepository


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


def ask(session, kind, repository, **values):
    job = JobRepository(session).enqueue(NewJob(kind, {"text": "a dog", "limit": 3}, **values))
    return repository.create(job, text="a dog").id


@pytest.mark.parametrize(
    ("kind", "repository", "not_found"),
    [
        (JobKind.SEARCH, SearchRepository, SearchNotFound),
        (JobKind.QUESTION, QuestionRepository, QuestionNotFound),
    ],
)
def test_what_was_asked_and_answered_stays_to_be_read(session, kind, repository, not_found):
    asked = repository(session)
    ids = [ask(session, kind, asked) for _ in range(3)]

    asked.complete(ids[0], {"answer": 1})

    row, job = asked.get(ids[0])
    assert (row.id, row.text, row.input) == (job.id, "a dog", {"text": "a dog", "limit": 3})
    assert row.result == {"answer": 1}
    assert row.completed_at is not None
    assert job.state == JobState.QUEUED
    page = asked.list(page_size=2)
    rest = asked.list(page_token=page.next_page_token)
    assert [row.id for row, _ in (*page.items, *rest.items)] == ids[::-1]
    for wrong in (asked.get, lambda id_: asked.complete(id_, {})):
        with pytest.raises(not_found):
            wrong(uuid4())


def test_questions_are_found_by_their_video(session):
    video, _ = VideoRepository(session).create(uri="file:///a.mp4", sha256="a")
    questions = QuestionRepository(session)
    about = ask(session, JobKind.QUESTION, questions, video_id=video.id)
    ask(session, JobKind.QUESTION, questions)

    assert [row.id for row, _ in questions.list(video_id=video.id).items] == [about]
