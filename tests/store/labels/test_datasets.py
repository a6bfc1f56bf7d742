import threading
from uuid import uuid4

import pytest
from failed_videos import fail_video
from sqlalchemy import func, select

from store.errors import DatasetNotFound, VocabularyNotFound
from store.labels.datasets import DatasetRepository, VocabularyRepository
from store.labels.repository import LabelFilter, LabelRepository, NewLabel
from store.labels.tables import Dataset, DatasetLabel
from store.videos.repository import VideoRepository


@pytest.fixture
def session(sessions):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def labels(session):
    return LabelRepository(session)


@pytest.fixture
def datasets(session):
    return DatasetRepository(session)


def make_video(session, name, state="ready"):
    videos = VideoRepository(session)
    video_id = videos.create(uri=f"file:///{name}.mp4", sha256=f"sha-{name}")[0].id
    if state == "ready":
        videos.mark_ready(video_id)
    if state == "failed":
        fail_video(session, video_id)
    return video_id


def add_qa(labels, video_id, answers, split="train"):
    new = [
        NewLabel(video_id, "qa", f"Question {n}?", answer=answer, split=split)
        for n, answer in enumerate(answers)
    ]
    return labels.add_many(new).ids


def test_a_data_set_holds_the_labels_as_they_were(labels, datasets, session):
    first, second = make_video(session, "a"), make_video(session, "b")
    ids = add_qa(labels, first, ["red", "blue"]) + add_qa(labels, second, ["red"], "holdout")
    labels.add_many([NewLabel(first, "retrieval", "a red ball")])

    dataset = datasets.freeze("qa")
    labels.edit(ids[0], {"answer": "green"})
    labels.delete(ids[1])

    assert (dataset.task, dataset.num_train, dataset.num_holdout) == ("qa", 2, 1)
    assert (dataset.num_videos, dataset.filter) == (2, {"task": "qa"})
    copied = list(datasets.labels(dataset.id))
    assert [label.label_id for label in copied] == ids
    assert [label.position for label in copied] == [0, 1, 2]
    assert [label.content["answer"] for label in copied] == ["red", "blue", "red"]
    assert copied[0].content == {
        "text": "Question 0?",
        "answer": "red",
        "choices": [],
        "right_choice": None,
        "start_seconds": None,
        "end_seconds": None,
        "source": None,
    }
    assert (copied[2].video_id, copied[2].video_sha256) == (second, "sha-b")
    assert [label.position for label in datasets.labels(dataset.id, "holdout")] == [2]


def test_the_same_content_is_the_same_data_set(labels, datasets, session):
    video_id = make_video(session, "a")
    ids = add_qa(labels, video_id, ["red", "blue"])

    first = datasets.freeze("qa")
    again = datasets.freeze("qa", LabelFilter(video_ids=[video_id]))
    labels.edit(ids[0], {"answer": "green"})
    changed = datasets.freeze("qa")
    labels.edit(ids[0], {"answer": "red"})
    back = datasets.freeze("qa")

    assert again.id == back.id == first.id
    assert changed.id != first.id
    assert session.scalar(select(func.count()).select_from(Dataset)) == 2
    assert session.scalar(select(func.count()).select_from(DatasetLabel)) == 4


def test_the_hash_does_not_depend_on_ids(sessions):
    hashes = []
    for _ in range(2):
        session = sessions()
        session.begin()
        add_qa(LabelRepository(session), make_video(session, "a"), ["red", "blue"])
        hashes.append(DatasetRepository(session).freeze("qa").sha256)
        session.rollback()
        session.close()

    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 64


def test_a_filter_chooses_what_is_frozen(labels, datasets, session):
    first, second = make_video(session, "a"), make_video(session, "b")
    add_qa(labels, first, ["red", "blue"])
    add_qa(labels, second, ["red"])

    chosen = datasets.freeze("qa", LabelFilter(video_ids=[second], task="retrieval"))

    assert chosen.num_train == 1
    assert LabelFilter.from_json(chosen.filter) == LabelFilter(task="qa", video_ids=[second])


def test_nothing_to_freeze_is_an_empty_data_set(datasets):
    dataset = datasets.freeze("retrieval")

    assert (dataset.num_train, dataset.num_holdout, dataset.answers) == (0, 0, [])
    assert dataset.vocabulary_id is None
    assert datasets.freeze("qa").id != dataset.id


def test_labels_of_videos_that_failed_are_left_out(labels, datasets, session):
    add_qa(labels, make_video(session, "a", "failed"), ["red"])
    add_qa(labels, make_video(session, "b"), ["red"])

    assert datasets.freeze("qa").num_train == 1
    assert datasets.count_new(None, "qa") == 1


def test_the_answers_are_those_learnt_the_most_frequent_first(labels, datasets, session):
    add_qa(labels, make_video(session, "a"), ["blue", "red", "red", "Zoo", "apple", "ä"])
    add_qa(labels, make_video(session, "b"), ["only held out", "blue", "blue"], "holdout")

    dataset = datasets.freeze("qa")

    assert dataset.answers == ["red", "Zoo", "apple", "blue", "ä"]


def test_each_new_list_of_answers_is_the_next_vocabulary(labels, datasets, session):
    video_id = make_video(session, "a")
    add_qa(labels, video_id, ["red", "blue"])
    first = datasets.freeze("qa")
    labels.add_many([NewLabel(video_id, "qa", "Another?", answer="green")])
    second = datasets.freeze("qa")
    labels.add_many([NewLabel(video_id, "qa", "One more?", answer="blue", source="x")])
    labels.add_many([NewLabel(video_id, "qa", "And more?", answer="green", source="x")])
    labels.add_many([NewLabel(video_id, "qa", "Any more?", answer="red", source="x")])
    same = datasets.freeze("qa")

    vocabularies = VocabularyRepository(session)
    assert [known.version for known in vocabularies.list()] == [2, 1]
    assert vocabularies.get(first.vocabulary_id).answers == ["blue", "red"]
    assert same.id != second.id
    assert same.vocabulary_id == second.vocabulary_id
    with pytest.raises(VocabularyNotFound):
        vocabularies.get(uuid4())


def test_missing_videos_are_those_deleted_or_not_to_be_searched(labels, datasets, session):
    kept, gone, failing, waiting = (make_video(session, name) for name in "abcd")
    for video_id in (kept, gone, failing):
        add_qa(labels, video_id, ["red"])
    dataset = datasets.freeze("qa")
    assert datasets.missing_videos(dataset.id) == []

    VideoRepository(session).delete(gone)
    fail_video(session, failing)

    assert datasets.missing_videos(dataset.id) == [gone, failing]
    assert len(list(datasets.labels(dataset.id))) == 3
    assert waiting not in datasets.missing_videos(dataset.id)


def test_a_video_that_comes_again_is_found_by_the_data_set_of_before(labels, datasets, session):
    gone = make_video(session, "a")
    add_qa(labels, gone, ["red", "blue"])
    first = datasets.freeze("qa")
    VideoRepository(session).delete(gone)
    back = make_video(session, "a")
    ids = add_qa(labels, back, ["red", "blue"])

    again = datasets.freeze("qa")

    assert again.id == first.id
    session.expire_all()
    assert [label.label_id for label in datasets.labels(first.id)] == ids
    assert datasets.missing_videos(first.id) == []


def test_new_labels_are_those_a_data_set_does_not_have(labels, datasets, session):
    ids = add_qa(labels, make_video(session, "a"), ["red", "blue", "red"])
    dataset = datasets.freeze("qa")
    none = datasets.count_new(dataset.id, "qa")
    labels.edit(ids[0], {"answer": "green"})
    labels.delete(ids[1])
    add_qa(labels, make_video(session, "b"), ["red", "red"])

    assert none == 0
    assert datasets.count_new(dataset.id, "qa") == 3
    assert datasets.count_new(dataset.id, "retrieval") == 0
    assert datasets.count_new(dataset.id, "qa", filter=LabelFilter(text="question 1")) == 1
    assert datasets.count_new(None, "qa") == 4


def test_data_sets_are_listed_the_newest_first(labels, datasets, session):
    video_id, made = make_video(session, "a"), []
    for n in range(3):
        labels.add_many([NewLabel(video_id, "retrieval", f"caption {n}")])
        made.append(datasets.freeze("retrieval").id)

    first = datasets.list(page_size=2)
    rest = datasets.list(page_size=2, page_token=first.next_page_token)

    assert [dataset.id for dataset in [*first.items, *rest.items]] == made[::-1]
    assert datasets.list(task="qa").items == []
    assert datasets.get(made[0]).num_videos == 1
    with pytest.raises(DatasetNotFound):
        datasets.get(uuid4())
    with pytest.raises(DatasetNotFound):
        next(datasets.labels(uuid4()))


def test_freezing_at_once_makes_one_data_set(sessions):
    with sessions.begin() as session:
        add_qa(LabelRepository(session), make_video(session, "a"), ["red", "blue"])
    ids = []

    def freeze():
        with sessions.begin() as session:
            ids.append(DatasetRepository(session).freeze("qa").id)

    threads = [threading.Thread(target=freeze) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ids) == 4
    assert len(set(ids)) == 1
