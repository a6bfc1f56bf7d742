import subprocess
import sys
from uuid import uuid4

import pytest
from sqlalchemy import select

from policy.finetunes.admission import (
    FinetuneGate,
    FinetuneRefused,
    FinetuneRequest,
    check_finetune,
    check_settings,
    request_finetune,
)
from policy.registration import ensure_default, register_model
from store.errors import IdempotencyConflict
from store.jobs.state import JobKind, JobState
from store.labels.datasets import DatasetRepository
from store.labels.repository import LabelRepository, NewLabel
from store.labels.tables import Dataset
from store.models.finetunes import FinetuneRepository
from store.models.repository import GenerationRepository, ModelRepository
from store.videos.repository import VideoRepository
from store.videos.tables import Clip, VideoState
from tests.workers.labelled import add_indexed_video, add_questions
from tests.workers.small_models import save_recall_model, save_tiny

QA = FinetuneRequest.from_json({"task": "qa"})


@pytest.fixture
def base_id(sessions, blobs, tmp_path):
    return ensure_default(sessions, blobs, mini_folder=save_recall_model(tmp_path / "recall"))


@pytest.fixture
def session(sessions, base_id):
    with sessions.begin() as session:
        yield session


@pytest.fixture
def labelled(session):
    """Labels of ten videos to train from and of two to judge by."""
    train = add_questions(session, [f"t{index}" for index in range(10)], split="train")
    return train, add_questions(session, ["h0", "h1"], split="holdout")


def refusal(session, body):
    with pytest.raises(FinetuneRefused) as refused:
        check_finetune(session, FinetuneRequest.from_json(body))
    return refused.value


def test_a_finetune_is_a_queued_job_with_its_labels_frozen(session, labelled, base_id):
    finetune = request_finetune(session, QA)

    _, job = FinetuneRepository(session).get(finetune.id)
    dataset = DatasetRepository(session).get(finetune.dataset_id)
    assert (job.kind, job.state, job.id) == (JobKind.FINETUNE, JobState.QUEUED, finetune.id)
    assert (finetune.name, finetune.base_model_id) == ("clipbert-qa", base_id)
    assert (dataset.num_train, dataset.num_holdout) == (10, 2)
    assert dataset.answers == ["blue", "red"]
    assert finetune.recipe["visual"] == "frozen"
    assert finetune.gate["min_holdout"] == 50


def test_overrides_change_single_fields_of_the_recipe(session, labelled):
    request = FinetuneRequest.from_json({"task": "qa", "recipe": {"epochs": 3, "seed": 7}})

    finetune = request_finetune(session, request)

    assert (finetune.recipe["epochs"], finetune.recipe["seed"]) == (3.0, 7)
    assert finetune.recipe["visual"] == "frozen"


def test_a_request_survives_being_kept_as_json(base_id):
    body = {
        "task": "qa",
        "base_model_id": str(base_id),
        "name": "nightly",
        "recipe": {"epochs": 2},
        "labels": {"sources": ["people"], "video_ids": [str(uuid4())]},
        "gate": {"min_gain": 0.01, "regression_dataset_id": str(uuid4())},
    }
    request = FinetuneRequest.from_json(body)

    assert FinetuneRequest.from_json(request.to_json()) == request


def test_the_same_idempotency_key_gives_the_same_finetune(session, labelled):
    first = request_finetune(session, QA, idempotency_key="k")
    add_questions(session, ["new"], split="train")

    assert request_finetune(session, QA, idempotency_key="k").id == first.id
    with pytest.raises(IdempotencyConflict):
        request_finetune(
            session, FinetuneRequest.from_json({"task": "retrieval"}), idempotency_key="k"
        )


def test_a_small_holdout_is_allowed_and_said_to_keep_it_from_promotion(session, labelled):
    admission = check_finetune(session, QA)
    relaxed = check_finetune(
        session, FinetuneRequest(task=QA.task, gate=FinetuneGate(min_holdout=2))
    )

    assert len(admission.warnings) == 1
    assert "2 labels" in admission.warnings[0]
    assert "at least 50" in admission.warnings[0]
    assert relaxed.warnings == []


def test_no_labels_are_refused(session):
    refused = refusal(session, {"task": "qa"})

    assert refused.code == "no_labels"
    assert "clipbert label import" in str(refused)


def test_a_filter_that_leaves_no_label_is_named(session, labelled):
    refused = refusal(session, {"task": "qa", "labels": {"sources": ["nobody"]}})

    assert refused.code == "no_labels"
    assert "none of the 12 labels" in str(refused)


def test_one_answer_only_is_refused(session):
    add_questions(session, ["a", "b"], answers=("red",), split="train")
    add_questions(session, ["c"], answers=("blue",), split="holdout")

    refused = refusal(session, {"task": "qa"})

    assert refused.code == "one_answer"
    assert "'red'" in str(refused)


def test_answers_that_differ_in_case_alone_are_one_answer(session):
    add_questions(session, [f"t{n}" for n in range(4)], answers=("yes", "Yes"), split="train")
    add_questions(session, ["h0", "h1"], answers=("no", "yes"), split="holdout")

    refused = refusal(session, {"task": "qa"})

    assert refused.code == "one_answer"
    assert "'Yes'" in str(refused)  # of two forms used equally often, by letters


def test_the_vocabulary_has_each_answer_in_the_form_most_used(session):
    answers = ("Red", "red", "red", "BLUE", "blue", "blue")
    add_questions(session, [f"t{n}" for n in range(6)], answers=answers, split="train")
    add_questions(session, ["h0", "h1"], answers=("RED", "blue"), split="holdout")

    admission = check_finetune(session, QA)

    assert admission.dataset.answers == ["blue", "red"]


def test_contradictions_and_a_holdout_of_one_answer_are_said(session):
    (video_id, *_) = add_questions(session, ["t0", "t1"], split="train")
    add_questions(session, ["h0", "h1"], answers=("red", "RED"), split="holdout")
    other = NewLabel(video_id, "qa", "what colour is it?", answer="green")
    LabelRepository(session).add_many([other])

    warnings = "; ".join(check_finetune(session, QA).warnings)

    assert f"of video {video_id}: 'green', 'red'" in warnings
    assert "all 2 labels of the holdout have the answer 'RED'" in warnings


def test_held_out_answers_that_nobody_trains_are_named(session):
    add_questions(session, ["t0", "t1", "t2"], answers=("no", "yes", "red"), split="train")
    held_out = ("blue", "YES", "Blue", "green")
    add_questions(session, ["h0", "h1", "h2", "h3"], answers=held_out, split="holdout")

    warnings = "; ".join(check_finetune(session, QA).warnings)

    assert (
        "3 of 4 labels of the holdout have an answer that no label to train from has: "
        "'Blue' (2), 'green' (1)"
    ) in warnings
    assert "YES" not in warnings


def test_an_empty_holdout_is_refused_with_what_would_fill_it(session):
    add_questions(session, [f"t{index}" for index in range(40)], split="train")

    refused = refusal(session, {"task": "qa"})

    assert refused.code == "holdout_empty"
    assert "none of the 40 labels is in the holdout" in str(refused)
    assert "40 videos" in str(refused)
    assert refused.fields["num_train"] == 40


def test_an_empty_training_side_is_refused(session):
    add_questions(session, ["a", "b"], split="holdout")

    assert refusal(session, {"task": "qa"}).code == "train_empty"


def test_captions_of_one_video_teach_nothing(session):
    video_id = add_indexed_video(session, "a")
    LabelRepository(session).add_many(
        [NewLabel(video_id, "retrieval", text, split="train") for text in ("a dog", "a cat")]
    )

    assert refusal(session, {"task": "retrieval"}).code == "one_video"


def test_questions_with_unequal_numbers_of_choices_are_refused(session):
    video_id = add_indexed_video(session, "a")
    LabelRepository(session).add_many(
        [
            NewLabel(video_id, "multiple_choice", text, choices=choices, answer="a", split="train")
            for text, choices in (("which?", ("a", "b")), ("and which?", ("a", "b", "c")))
        ]
    )

    refused = refusal(session, {"task": "multiple_choice"})

    assert refused.code == "choices_differ"
    assert "have 2, 3 choices" in str(refused)


@pytest.mark.parametrize("instant", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00"])
def test_the_ends_of_the_calendar_are_instants_too(session, labelled, instant):
    body = {"task": "qa", "labels": {"created_before": instant}}

    if instant.startswith("9999"):
        assert check_finetune(session, FinetuneRequest.from_json(body)).dataset.num_train
    else:
        assert refusal(session, body).code == "no_labels"


def test_numbers_beyond_all_floats_are_refused(session, labelled):
    refused = refusal(session, {"task": "qa", "recipe": {"epochs": 10**400}})

    assert (refused.code, str(refused)) == (
        "invalid_recipe",
        "recipe: epochs is too large a number",
    )


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"seed": 2**32}, "seed is 4294967296: must be below 4294967296"),
        ({"max_text_tokens": 100_000}, "max_text_tokens is 100000: the base model has"),
        ({"max_side_px": 64}, "max_side_px is 64: with visual 'frozen' it is the base model's"),
    ],
)
def test_what_no_run_can_do_with_this_base_is_refused(session, labelled, recipe, said):
    refused = refusal(session, {"task": "qa", "recipe": recipe})

    assert refused.code == "invalid_recipe"
    assert said in str(refused)


def test_a_base_for_another_task_is_refused(session, sessions, blobs, tmp_path, labelled):
    tiny = register_model(sessions, blobs, save_tiny(tmp_path / "tiny"), name="t", version="1")

    refused = refusal(session, {"task": "multiple_choice", "base_model_id": str(tiny)})

    assert refused.code == "base_model_wrong_task"
    assert "trained for qa, retrieval, not for multiple_choice" in str(refused)


def test_an_unknown_base_is_refused(session, labelled):
    assert refusal(session, {"task": "qa", "base_model_id": str(uuid4())}).code == "model_not_found"


def test_frozen_training_needs_a_base_that_sees_as_the_index_does(
    session, sessions, blobs, tmp_path, labelled
):
    tiny = register_model(sessions, blobs, save_tiny(tmp_path / "tiny"), name="t", version="1")
    body = {"task": "qa", "base_model_id": str(tiny)}

    refused = refusal(session, body)
    trained = check_finetune(
        session, FinetuneRequest.from_json(body | {"recipe": {"visual": "trained"}})
    )

    assert refused.code == "visual_side_differs"
    assert trained.recipe.visual == "trained"


@pytest.mark.parametrize(
    ("recipe", "code", "sentence"),
    [
        ({"lerning_rate": 1e-4}, "unknown_recipe_field", "learning_rate"),
        ({"epochs": "many"}, "invalid_recipe", "epochs is 'many': must be a number"),
        ({"epochs": -1}, "invalid_recipe", "epochs is -1.0: must be above 0"),
        ({"task": "retrieval"}, "invalid_recipe", "leave it out"),
    ],
)
def test_a_wrong_recipe_is_refused_before_any_label_is_looked_at(recipe, code, sentence):
    with pytest.raises(FinetuneRefused, match=sentence) as refused:
        check_settings(FinetuneRequest.from_json({"task": "qa", "recipe": recipe}))

    assert refused.value.code == code


def test_an_unknown_recipe_field_is_refused_with_the_nearest(session, labelled):
    refused = refusal(session, {"task": "qa", "recipe": {"clps": 4}})

    assert refused.code == "unknown_recipe_field"
    assert refused.fields["field"] == "recipe.clps"
    assert "clips" in refused.fields["nearest"]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"task": "recall"}, "unknown_task", "task"),
        ({}, "unknown_task", "task"),
        ({"task": "qa", "gates": {}}, "invalid_request", "gates"),
        ({"task": "qa", "labels": {"colour": 1}}, "invalid_request", "labels"),
        ({"task": "qa", "labels": []}, "invalid_request", "labels"),
        ({"task": "qa", "base_model_id": "mini"}, "invalid_request", "base_model_id"),
        ({"task": "qa", "name": " "}, "invalid_request", "name"),
        ({"task": "qa", "name": "shop@2"}, "invalid_request", "name"),
        ({"task": "qa", "name": "--check"}, "invalid_request", "name"),
        ({"task": "qa", "name": "x" * 101}, "invalid_request", "name"),
        (
            {"task": "qa", "dataset_id": str(uuid4()), "labels": {"sources": ["me"]}},
            "invalid_request",
            "labels",
        ),
        ({"task": "qa", "gate": {"min_holdout": 0}}, "invalid_gate", "gate.min_holdout"),
        ({"task": "qa", "gate": {"min_gain": True}}, "invalid_gate", "gate.min_gain"),
        ({"task": "qa", "gate": {"colour": 1}}, "invalid_gate", "gate.colour"),
    ],
)
def test_a_malformed_request_is_refused_with_its_field(body, code, field):
    with pytest.raises(FinetuneRefused) as refused:
        FinetuneRequest.from_json(body)

    assert (refused.value.code, refused.value.fields["field"]) == (code, field)


def test_a_data_set_can_be_used_again(session, labelled):
    first = request_finetune(session, QA)
    add_questions(session, ["new"], split="train")
    body = {"task": "qa", "dataset_id": str(first.dataset_id)}

    again = request_finetune(session, FinetuneRequest.from_json(body))

    assert again.dataset_id == first.dataset_id
    assert again.id != first.id
    assert refusal(session, body | {"task": "retrieval"}).code == "dataset_wrong_task"
    assert refusal(session, body | {"dataset_id": str(uuid4())}).code == "dataset_not_found"


def test_a_deleted_video_of_a_data_set_is_named(session, labelled):
    dataset_id = request_finetune(session, QA).dataset_id
    VideoRepository(session).delete(labelled[0][0])

    refused = refusal(session, {"task": "qa", "dataset_id": str(dataset_id)})

    assert refused.code == "video_deleted"
    assert refused.fields["video_ids"] == [str(labelled[0][0])]


def test_frozen_training_needs_the_tokens_of_every_video(session, labelled):
    dataset_id = request_finetune(session, QA).dataset_id
    missing = labelled[0][0]
    _take_back(session, missing)
    again = {"task": "qa", "dataset_id": str(dataset_id)}

    refused = refusal(session, again)

    assert refused.code == "tokens_missing"
    assert refused.fields["video_ids"] == [str(missing)]
    trained = again | {"recipe": {"visual": "trained"}}
    assert refusal(session, trained).code == "video_not_ready"


def test_labels_whose_videos_are_not_indexed_yet_wait_for_the_next_finetune(session, labelled):
    all_labels = check_finetune(session, QA).dataset
    _take_back(session, labelled[0][0])

    admission = check_finetune(session, QA)

    num_labels = admission.dataset.num_train + admission.dataset.num_holdout
    left_out = all_labels.num_train + all_labels.num_holdout - num_labels
    assert left_out > 0
    assert any(f"{left_out} label" in warning for warning in admission.warnings)


def _take_back(session, video_id):
    VideoRepository(session).get(video_id).state = VideoState.PROCESSING
    for clip in session.scalars(select(Clip).where(Clip.video_id == video_id)):
        session.delete(clip)
    session.flush()


def test_nothing_can_be_trained_before_there_is_an_index(sessions):
    with sessions.begin() as session:
        assert refusal(session, {"task": "qa"}).code == "no_active_generation"


def test_a_check_that_is_rolled_back_leaves_nothing(sessions, base_id):
    with sessions.begin() as session:
        add_questions(session, ["a", "b"], split="train")
        add_questions(session, ["c"], split="holdout")
    with sessions() as session:
        check_finetune(session, QA)
        session.rollback()

    with sessions.begin() as session:
        assert session.scalars(select(Dataset)).all() == []


def test_the_active_generations_model_is_a_base_whatever_it_was_trained_for(
    session, sessions, blobs, tmp_path, labelled
):
    tiny = register_model(sessions, blobs, save_tiny(tmp_path / "tiny"), name="t", version="1")
    active = GenerationRepository(session).active()
    active.model_id = tiny
    session.flush()
    body = {"task": "qa", "recipe": {"visual": "trained"}}

    assert check_finetune(session, FinetuneRequest.from_json(body)).base.id == tiny
    assert ModelRepository(session).get(tiny).heads == ["retrieval", "qa"]


def test_admission_needs_no_torch():
    code = (
        "import sys, policy.finetunes.admission, policy.schedules, policy.registration\n"
        "print({'torch', 'transformers', 'av'} & set(sys.modules) or 'light')"
    )

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "light"
