"""Which questions are open: answered, not asked again since, and without a label.

The flag is kept by triggers, and what is not open is never suggested. So whatever happens, and
whatever happens at the same time, each question that should be suggested has it.
"""

import random
import threading
import time
from contextlib import suppress
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select, text

from store.database import make_sessions, run_in_transaction
from store.errors import LabelNotFound, QuestionNotFound
from store.identifiers import new_id
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind
from store.jobs.tables import Job
from store.labels.repository import LabelRepository, NewLabel
from store.results.questions import QuestionRepository
from store.results.suggestions import SuggestionRepository
from store.results.tables import Question
from store.videos.repository import VideoRepository
from tests.conftest import TEMPLATE, new_database

# As the flag was before there was one: from all answers and labels.
OPEN = """
SELECT newest.id
FROM (SELECT DISTINCT ON (video_id, task, text_key) * FROM questions
      WHERE uncertainty IS NOT NULL AND video_id = :video_id
      ORDER BY video_id, task, text_key, id DESC) AS newest
WHERE NOT EXISTS (SELECT FROM labels
                  WHERE video_id = newest.video_id AND task = newest.task AND deleted_at IS NULL
                    AND question_key(text) = text_key)
"""


@pytest.fixture(scope="module")
def sessions(services):
    """A database for all of this file; each test is about videos of its own."""
    with new_database(services, TEMPLATE) as url:
        sessions = make_sessions(url)
        yield sessions
        sessions.kw["bind"].dispose()


@pytest.fixture
def video_id(sessions) -> UUID:
    with sessions.begin() as session:
        return new_video(session)


def new_video(session):
    video, _ = VideoRepository(session).create(uri="file:///v.mp4", sha256=uuid4().hex)
    return video.id


def ask(session, video_id, asked="What is it?"):
    job = JobRepository(session).enqueue(NewJob(JobKind.QUESTION, {}, video_id=video_id))
    return QuestionRepository(session).create(job, text=asked).id


def answer(session, question_id, uncertainty=0.5):
    QuestionRepository(session).complete(question_id, {}, uncertainty=uncertainty)


def label(session, video_id, said="a dog", asked="what  IS it"):
    (label_id,) = LabelRepository(session).add_many([NewLabel(video_id, "qa", asked, said)]).ids
    return label_id


def forget(session, question_id):
    session.execute(delete(Job).where(Job.id == question_id))


def is_open(sessions, video_id):
    query = select(Question.id).where(Question.is_open, Question.video_id == video_id)
    with sessions() as session:
        return set(session.scalars(query))


def should_be_open(sessions, video_id):
    with sessions() as session:
        return set(session.scalars(text(OPEN), {"video_id": video_id}))


def suggested(sessions, video_id):
    with sessions() as session:
        found = SuggestionRepository(session).list("qa", limit=9999, video_id=video_id)
        return {each.question.id for each in found}


def test_what_is_open_follows_all_that_happens(sessions):
    chance = random.Random(0)  # noqa: S311 - not for secrets
    with sessions.begin() as session:
        videos = [new_video(session) for _ in range(2)]
    asked, labels = [], []

    for _ in range(60):
        spelling = chance.choice(["What is it?", " what is  IT", "Where is it?"])
        video_id, deed = chance.choice(videos), chance.randrange(8)
        with sessions.begin() as session:
            if deed < 2 or not asked:
                asked.append(ask(session, video_id, spelling))
            elif deed < 4:
                answer(session, chance.choice(asked), chance.choice([0.1, 0.9, None]))
            elif deed == 4 or not labels:
                label_id = label(session, video_id, chance.choice("ab"), spelling)
                labels += [label_id] if label_id not in labels else []
            elif deed == 5:
                LabelRepository(session).edit(labels[0], {"text": spelling, "answer": uuid4().hex})
            elif deed == 6:
                LabelRepository(session).delete(labels.pop(chance.randrange(len(labels))))
            else:
                forget(session, asked.pop(chance.randrange(len(asked))))

        for each in videos:
            assert is_open(sessions, each) == should_be_open(sessions, each)
            assert suggested(sessions, each) == should_be_open(sessions, each)


def test_many_labels_at_once_close_each_its_own_question(sessions, video_id):
    with sessions.begin() as session:
        asked = [ask(session, video_id, f"What is it? {n}") for n in range(100)]
        for question_id in asked:
            answer(session, question_id)
    before = is_open(sessions, video_id)

    with sessions.begin() as session:
        new = [NewLabel(video_id, "qa", f"What is it? {n}", "x") for n in range(99)]
        LabelRepository(session).add_many([*new, *new])

    assert before == set(asked)
    assert is_open(sessions, video_id) == {asked[99]}


class Meeting:
    """A video with three answers to one question, two more jobs that ask it, and labels.

    Attributes:
        oldest, older, newest: the questions with an answer.
        before, after: those without one yet, from before all others and after them.
        labels: ids, of as many as were wanted.
    """

    def __init__(self, session, num_labels):
        self.video_id = new_video(session)
        ids = [new_id() for _ in range(5)]
        self.before, self.oldest, self.older, self.newest, self.after = ids
        session.execute(text(_ASKED), {"ids": ids, "video_id": self.video_id})
        for question_id in ids[1:4]:
            session.execute(text(_ANSWERED), {"id": question_id})
        self.labels = [label(session, self.video_id, said) for said in "ab"[:num_labels]]


# The rows that ask() and answer() make, in fewer statements.
_ASKED = """
WITH asked AS (
    INSERT INTO jobs (id, kind, state, priority, input, video_id)
    SELECT id, 'question', 'succeeded', 5, '{}', :video_id
    FROM unnest(CAST(:ids AS uuid[])) AS id RETURNING id)
INSERT INTO questions (id, video_id, text, text_key, task, input)
SELECT id, :video_id, 'What is it?', 'what is it', 'qa', '{}' FROM asked
"""
_ANSWERED = "UPDATE questions SET uncertainty = 0.5, result = '{}' WHERE id = :id"


def delete_label(index):
    def deed(session, meeting):
        if index < len(meeting.labels):
            label_id = meeting.labels[index]
            with suppress(LabelNotFound):
                LabelRepository(session).delete(label_id)

    return deed


def edit_label(session, meeting):
    if meeting.labels:
        with suppress(LabelNotFound):
            LabelRepository(session).edit(meeting.labels[0], {"text": "Where is it?"})


def answer_if_there(session, question_id, uncertainty):
    with suppress(QuestionNotFound):
        answer(session, question_id, uncertainty)


DEEDS = {
    "an older job is answered": lambda s, m: answer(s, m.before),
    "a newer job is answered": lambda s, m: answer(s, m.after),
    "the newest is answered again": lambda s, m: answer_if_there(s, m.newest, 0.7),
    "the newest is answered without a measure": lambda s, m: answer_if_there(s, m.newest, None),
    "a label is added": lambda s, m: label(s, m.video_id, "c"),
    "a label is deleted": delete_label(0),
    "another label is deleted": delete_label(1),
    "a label is edited": edit_label,
    "the newest is removed": lambda s, m: forget(s, m.newest),
    "an older one is removed": lambda s, m: forget(s, m.older),
}
_WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


# Of all pairs, with any number of labels, those where each could miss what the other does.
MEETINGS = [
    ("an older job is answered", "the newest is removed", 0),
    ("an older job is answered", "the newest is answered without a measure", 0),
    ("a newer job is answered", "a label is deleted", 1),
    ("a newer job is answered", "a label is edited", 1),
    ("a newer job is answered", "a label is added", 0),
    ("a newer job is answered", "an older job is answered", 0),
    ("the newest is removed", "an older one is removed", 0),
    ("the newest is removed", "a label is deleted", 1),
    ("the newest is answered again", "a label is deleted", 1),
    ("a label is deleted", "another label is deleted", 2),
    ("a label is deleted", "a label is added", 1),
]


@pytest.mark.parametrize(
    ("name", "other", "num_labels"),
    MEETINGS + [(other, name, num_labels) for name, other, num_labels in MEETINGS],
)
def test_nothing_that_is_open_is_missed_whatever_happens_at_once(sessions, name, other, num_labels):
    with sessions.begin() as session:
        meeting = Meeting(session, num_labels)
    meanwhile = threading.Thread(
        target=run_in_transaction,
        args=(sessions, lambda session: DEEDS[other](session, meeting)),
    )

    with sessions.begin() as session:
        DEEDS[name](session, meeting)
        session.flush()
        meanwhile.start()
        wait_until_it_is_over_or_waits(sessions, meanwhile)
    meanwhile.join(120)

    assert not meanwhile.is_alive()
    assert is_open(sessions, meeting.video_id) >= should_be_open(sessions, meeting.video_id)
    assert suggested(sessions, meeting.video_id) == should_be_open(sessions, meeting.video_id)


@pytest.mark.parametrize("name", ["the newest is removed", "a label is deleted"])
def test_what_is_taken_back_leaves_open_what_another_transaction_opened(sessions, name):
    with sessions.begin() as session:
        meeting = Meeting(session, 1)
    meanwhile = threading.Thread(
        target=run_in_transaction,
        args=(sessions, lambda session: delete_label(0)(session, meeting)),
    )

    with sessions() as session:
        DEEDS[name](session, meeting)
        meanwhile.start()
        wait_until_it_is_over_or_waits(sessions, meanwhile)
        session.rollback()
    meanwhile.join(120)

    assert not meanwhile.is_alive()
    assert meeting.newest in suggested(sessions, meeting.video_id)
    assert suggested(sessions, meeting.video_id) == should_be_open(sessions, meeting.video_id)


def wait_until_it_is_over_or_waits(sessions, thread):
    with sessions() as session:
        for _ in range(500):
            thread.join(0.002)
            if not thread.is_alive() or session.scalar(text(_WAITS)):
                return
            session.rollback()
            time.sleep(0.002)
    pytest.fail("neither over nor waiting")


def test_questions_of_a_deleted_video_are_not_suggested(sessions, video_id):
    with sessions.begin() as session:
        answer(session, ask(session, video_id))
    assert len(suggested(sessions, video_id)) == 1

    with sessions.begin() as session:
        VideoRepository(session).delete(video_id)

    with sessions() as session:
        found = SuggestionRepository(session).list("qa", limit=9999)
    assert video_id not in {each.question.video_id for each in found}
    assert None not in {each.question.video_id for each in found}
