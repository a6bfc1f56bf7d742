"""Trials and suggestions in one process, with small real models and a real database."""

import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from celery import Celery
from sqlalchemy import func, select
from videos import write_counting_video

from clipbert.inference.clipbert import ClipBert
from clipbert.inference.requests import QuestionRequest
from policy.registration import ensure_default, promote, register_model
from store.jobs.repository import JobRepository, NewJob
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from store.labels.repository import LabelRepository, NewLabel
from store.models.repository import ModelRepository
from store.results.questions import QuestionRepository
from store.results.suggestions import SuggestionRepository
from store.results.tables import Question
from store.results.trials import AskedText, TrialSource, UnlabelledVideo
from store.table_base import Task
from store.videos.repository import VideoRepository
from tests.workers.library import add_video, embed_all, read_clips
from tests.workers.service import wait_for
from tests.workers.small_models import save_recall_model, save_tiny
from tests.workers.snapshots import snapshot_of
from workers.answering.interactive import serve_people_or_trials
from workers.answering.uncertainty import measure_uncertainty
from workers.dispatch import KEY_PREFIX, MAINTENANCE, TRIALS_TASK, celery_queues
from workers.maintenance.reconciler import switch_generation
from workers.maintenance.trials import pair_trials, put_trials
from workers.models.loaded_models import LoadedModels

COLOUR, SHAPE = "What colour is it?", "which shape?"


def index_four_videos(service, context, media_folder):
    """Index four videos; recall serves, open-ended questions are answered by nobody."""
    with tempfile.TemporaryDirectory() as folder:
        ensure_default(
            service.sessions, service.blobs, mini_folder=save_recall_model(Path(folder) / "recall")
        )
    videos = {
        name: add_video(
            service, write_counting_video(media_folder / f"{name}.mp4", frames, fps=10)
        )[0]
        for name, frames in {"a": 30, "b": 60, "c": 100, "d": 400}.items()
    }
    embed_all(context)
    return videos


def promote_tiny(service, context, folder, *, seed=1):
    save_tiny(folder, seed=seed)
    model_id = register_model(
        service.sessions, service.blobs, folder, name="tiny", version=str(seed)
    )
    promote(service.sessions, model_id)
    embed_all(context)
    switch_generation(context)
    return model_id


@pytest.fixture(scope="module")
def indexed(services):
    with snapshot_of(services, index_four_videos) as snapshot:
        yield snapshot


@pytest.fixture(scope="module")
def answered(services, indexed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")

    def build(service, context, _media_folder):
        return promote_tiny(service, context, folder), folder

    with snapshot_of(services, build, after=indexed) as snapshot:
        yield snapshot


@pytest.fixture
def begins_at(request):
    for name, snapshot in {"tiny_id": "answered", "library": "indexed"}.items():
        if name in request.fixturenames:
            return request.getfixturevalue(snapshot)
    return None


@pytest.fixture
def library(indexed):
    """The ids of four indexed videos; recall serves, nobody answers open-ended questions."""
    return indexed.value


@pytest.fixture
def tiny_id(answered):
    """A model with a trained QA head serves, on its own generation."""
    return answered.value[0]


@pytest.fixture
def tiny_folder(answered):
    return answered.value[1]


def ask(service, video_id, text=COLOUR, **wanted):
    with service.sessions.begin() as session:
        job = JobRepository(session).enqueue(
            NewJob(
                JobKind.QUESTION,
                {"video_id": str(video_id), "text": text, **wanted},
                video_id=video_id,
            )
        )
        QuestionRepository(session).create(job, text=text)
        return job.id


def label(service, video_id, text=COLOUR, *, answer="red"):
    with service.sessions.begin() as session:
        added = LabelRepository(session).add_many([NewLabel(video_id, "qa", text, answer=answer)])
    (label_id,) = added.ids
    return label_id


def serve_all(context):
    while serve_people_or_trials(context):
        pass


def suggest(service, task="qa", *, limit=50, **wanted):
    with service.sessions.begin() as session:
        return SuggestionRepository(session).list(task, limit=limit, **wanted)


def trials(service):
    with service.sessions.begin() as session:
        return list(
            session.scalars(select(Question).where(Question.trial_source.is_not(None))).all()
        )


def test_an_answer_says_how_unsure_it_is_over_the_whole_vocabulary(
    service, context, library, tiny_id, tiny_folder
):
    job_id = ask(service, library["d"], top_k=2)

    serve_all(context)

    measured = service.job(job_id).result["uncertainty"]
    clips = read_clips(service, library["d"])
    model = ClipBert.for_serving(tiny_folder)
    tokens = context.own(LoadedModels).tokens.get(clips[0].tokens_key)
    (answer,) = model.answer_all([QuestionRequest(tokens=tokens, question=COLOUR)], top_k=1)
    expected = measure_uncertainty(answer.clip_logits, aggregation=model.config.aggregation)
    assert measured["score"] == pytest.approx(expected.score, abs=1e-3)
    assert measured["entropy"] == pytest.approx(expected.entropy, abs=1e-3)
    assert measured["disagreement"] == pytest.approx(expected.disagreement, abs=1e-3)
    moment = expected.doubtful_clips
    assert measured["start_seconds"] == clips[moment[0]].start_seconds
    assert measured["end_seconds"] == clips[moment[-1]].end_seconds
    (suggestion,) = suggest(service)
    assert suggestion.question.uncertainty == measured["score"]
    assert suggestion.question.model_id == tiny_id


def test_a_choice_by_vectors_is_rated_at_the_temperature_it_is_made_with(service, context, library):
    job_id = ask(service, library["a"], choices=["a dog", "a parrot", "a city"])

    serve_all(context)

    result = service.job(job_id).result
    probabilities = torch.tensor([a["probability"] for a in result["answers"]])
    entropy = float(torch.special.entr(probabilities).sum()) / torch.tensor(3.0).log()
    assert result["uncertainty"]["entropy"] == pytest.approx(float(entropy), abs=1e-3)
    (suggestion,) = suggest(service, "multiple_choice")
    assert suggestion.question.result["zero_shot"] is True
    assert suggest(service, "qa") == []


def test_the_least_sure_answers_come_first_each_question_once_and_none_with_a_label(
    service, context, library, tiny_id
):
    old = ask(service, library["a"], " what  COLOUR is it ")
    serve_all(context)
    asked = [ask(service, video_id) for video_id in library.values()]
    other = ask(service, library["a"], SHAPE)
    serve_all(context)

    found = suggest(service)

    assert {each.question.id for each in found} == {*asked, other}
    assert old not in {each.question.id for each in found}
    ratings = [each.question.uncertainty for each in found]
    assert ratings == sorted(ratings, reverse=True)
    assert [each.question.id for each in suggest(service, limit=2)] == [
        each.question.id for each in found[:2]
    ]
    only_a = suggest(service, video_id=library["a"])
    assert {each.question.id for each in only_a} == {asked[0], other}

    label_id = label(service, library["a"], "what colour is it")
    assert {each.question.id for each in suggest(service)} == {*asked[1:], other}
    with service.sessions.begin() as session:
        LabelRepository(session).delete(label_id)
    assert {each.question.id for each in suggest(service)} == {*asked, other}


def test_unlabelled_videos_are_asked_what_is_labelled_and_asked_elsewhere(
    service, context, library, tiny_id
):
    label(service, library["a"])
    ask(service, library["b"], SHAPE)
    serve_all(context)

    assert put_trials(context) == 3
    serve_all(context)
    assert put_trials(context) == 2  # both questions on c and d, the other one on b
    serve_all(context)
    assert put_trials(context) == 0

    pairs = {(trial.video_id, trial.text) for trial in trials(service)}
    assert pairs == {
        (library["b"], COLOUR),
        *((library[name], text) for name in "cd" for text in (COLOUR, SHAPE)),
    }
    found = suggest(service, source=TrialSource.UNLABELLED)
    assert {(each.video.id, each.question.text) for each in found} == pairs
    asked = suggest(service, source=TrialSource.ASKED)
    assert [(each.video.id, each.question.text) for each in asked] == [(library["b"], SHAPE)]
    assert len(suggest(service)) == 6


def test_trials_stand_in_no_list_unless_they_are_asked_for(service, context, library, tiny_id):
    label(service, library["a"])
    put_trials(context)
    serve_all(context)

    with service.sessions.begin() as session:
        questions, jobs = QuestionRepository(session), JobRepository(session)
        assert questions.list().items == []
        assert len(questions.list(with_trials=True).items) == 3
        assert {job.kind for job in jobs.list().items} == {JobKind.EMBED}
        assert len(jobs.list(kind=JobKind.TRIAL).items) == 3
        assert jobs.counts()[JobKind.TRIAL] == {JobState.SUCCEEDED: 3}
        assert JobKind.QUESTION not in jobs.counts()


def test_people_never_wait_for_more_than_a_few_trials(service, context, library, tiny_id):
    for text in "pqrst":
        label(service, library["a"], text)
    for _ in range(3):
        put_trials(context)
    assert len(trials(service)) == 9
    question = ask(service, library["a"])

    assert serve_people_or_trials(context) == 1  # the question alone
    assert service.job(question).state == JobState.SUCCEEDED
    assert service.job(question).result["served_together"] == 1
    assert serve_people_or_trials(context) == 4
    later = ask(service, library["b"])
    assert serve_people_or_trials(context) == 1
    assert service.job(later).state == JobState.SUCCEEDED


def test_trials_wait_while_videos_wait_to_be_embedded(
    service, context, library, tiny_id, media_folder
):
    label(service, library["a"])
    put_trials(context)
    add_video(service, write_counting_video(media_folder / "new.mp4", 20, fps=10))

    assert serve_people_or_trials(context) == 0
    assert put_trials(context) == 0
    embed_all(context)
    assert serve_people_or_trials(context) == 3


@pytest.mark.parametrize(
    ("settings", "num_trials"),
    [({"trials_waiting": 2}, 2), ({"trials_per_model": 1}, 1), ({"trials_waiting": 0}, 0)],
)
def test_the_number_of_trials_is_bounded(service, library, tiny_id, settings, num_trials):
    label(service, library["a"])
    label(service, library["a"], SHAPE)
    with closing(service.context(**settings)) as context:
        for _ in range(4):
            put_trials(context)

        assert len(trials(service)) == num_trials


def test_a_label_makes_room_for_another_trial(service, library, tiny_id):
    label(service, library["a"])
    with closing(service.context(trials_per_model=1)) as context:
        put_trials(context)
        serve_all(context)
        (before,) = trials(service)
        label(service, before.video_id)
        put_trials(context)

        (after,) = trials(service)
    assert after.video_id not in {before.video_id, library["a"]}


def test_without_a_model_for_open_questions_nothing_is_tried(service, context, library):
    label(service, library["a"])

    assert put_trials(context) == 0
    assert trials(service) == []


def test_without_labels_and_questions_there_is_nothing_to_try(service, context, library, tiny_id):
    assert put_trials(context) == 0


def test_a_promotion_replaces_trials_and_tries_what_people_asked_again(
    service, context, library, tiny_id, tmp_path
):
    asked = ask(service, library["a"])
    put_trials(context)
    serve_all(context)
    old = {trial.id for trial in trials(service)}
    assert len(old) == 3

    new_id = promote_tiny(service, context, tmp_path / "other", seed=3)
    stale = suggest(service, source=TrialSource.ASKED)
    assert [each.question.model_id for each in stale] == [tiny_id]
    put_trials(context)
    serve_all(context)

    new = trials(service)
    assert old.isdisjoint(trial.id for trial in new)
    assert {trial.model_id for trial in new} == {new_id}
    (again,) = [trial for trial in new if trial.trial_source == TrialSource.ASKED]
    (current,) = suggest(service, source=TrialSource.ASKED)
    assert current.question.id == again.id
    assert (current.video.id, current.question.text) == (library["a"], COLOUR)
    assert service.job(asked).state == JobState.SUCCEEDED  # what people asked stays
    with service.sessions.begin() as session:
        jobs = session.scalar(select(func.count()).where(Job.kind == JobKind.TRIAL))
    assert jobs == len(new)


def test_a_rollback_to_nothing_and_a_deleted_video_remove_their_trials(
    service, context, library, tiny_id
):
    label(service, library["a"])
    put_trials(context)
    serve_all(context)
    with service.sessions.begin() as session:
        VideoRepository(session).delete(library["b"])
    put_trials(context)
    assert {trial.video_id for trial in trials(service)} == {library["c"], library["d"]}

    with service.sessions.begin() as session:
        ModelRepository(session).rollback(tiny_id)
        assert ModelRepository(session).serving(Task.QA) is None
    put_trials(context)
    assert trials(service) == []


def test_a_trial_in_a_workers_hands_is_not_removed(service, context, library, tiny_id):
    label(service, library["a"])
    put_trials(context)
    with service.sessions.begin() as session:
        (claim,) = JobRepository(session).claim(
            [JobKind.TRIAL], limit=1, owner="test", lease=timedelta(seconds=60)
        )
    label(service, claim.video_id)
    put_trials(context)
    assert claim.id in {trial.id for trial in trials(service)}

    with service.sessions.begin() as session:
        JobRepository(session).finish(claim, {})
    put_trials(context)
    assert claim.id not in {trial.id for trial in trials(service)}


def test_two_at_once_put_no_trial_twice(service, context, library, tiny_id):
    label(service, library["a"])
    with service.sessions.begin() as session:
        assert session.scalar(select(func.pg_try_advisory_xact_lock(0x747269616C73)))
        assert put_trials(context) == 0

    assert put_trials(context) == 3


def test_each_video_is_asked_once_and_each_question_equally_often():
    texts = [AskedText("p", "P?", 0), AskedText("q", "Q?", 1), AskedText("r", "R?", 0)]
    videos = [UnlabelledVideo(n, frozenset()) for n in range(4)]
    videos += [UnlabelledVideo(4, frozenset("pr")), UnlabelledVideo(5, frozenset("pqr"))]

    pairs = pair_trials(videos, texts)

    assert pairs == [(0, "P?"), (1, "R?"), (2, "P?"), (3, "Q?"), (4, "Q?")]


def test_real_workers_put_and_answer_trials(service, context, library, tiny_id):
    label(service, library["a"])
    service.start_worker("interactive,maintenance")
    with Celery("test", broker=service.redis_url, set_as_current=False) as beat:
        beat.conf.update(
            task_queues=celery_queues(), broker_transport_options={"global_keyprefix": KEY_PREFIX}
        )
        beat.send_task(TRIALS_TASK, queue=MAINTENANCE, ignore_result=True)

        found = wait_for(lambda: service.jobs(JobKind.TRIAL))
        for job in found:
            service.wait_for_state(job.id, JobState.SUCCEEDED)

    assert {each.video.id for each in suggest(service)} == {library[name] for name in "bcd"}
