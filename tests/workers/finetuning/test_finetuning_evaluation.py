"""What a finetuned model is compared with, for each task and each way to see the videos."""

import pytest
from videos import write_counting_video

from policy.finetunes.request import FinetuneGate
from policy.registration import ensure_default, promote, register_model
from store.jobs.state import JobState
from store.labels.datasets import DatasetRepository
from store.labels.repository import LabelFilter, LabelRepository, NewLabel
from store.models.repository import GenerationRepository
from store.models.tables import GenerationState
from store.videos.repository import VideoRepository
from tests.workers.finetunes import (
    COLOURS,
    add_library,
    ask_for_finetune,
    read_finetune,
    serving_model,
)
from tests.workers.library import add_video, embed_all
from tests.workers.small_models import save_recall_model, save_tiny
from workers.finetuning.finetuning import finetune_next

pytestmark = pytest.mark.slow

BRIEF = {"steps": 4, "checkpoint_steps": 2, "log_steps": 1}


def label_videos(service, task):
    """Add a label of another task to every video of the library."""
    with service.sessions.begin() as session:
        videos = VideoRepository(session).list(page_size=100).items
        new = []
        for video in videos:
            colour = COLOURS[int(video.sha256, 16) % len(COLOURS)]
            if task == "retrieval":
                new.append(NewLabel(video.id, task, f"a {colour} thing"))
            else:
                text = "What colour is it?"
                new.append(NewLabel(video.id, task, text, choices=COLOURS, answer=colour))
        assert LabelRepository(session).add_many(new).num_inserted == len(new)


@pytest.mark.parametrize(("task", "metric"), [("retrieval", "r1"), ("multiple_choice", "accuracy")])
def test_other_tasks_are_compared_with_the_recall_vectors(service, context, tmp_path, task, metric):
    add_library(service, tmp_path)
    label_videos(service, task)
    finetune_id = ask_for_finetune(service, task=task, gate=FinetuneGate(promote=False), **BRIEF)

    finetune_next(context)

    finetune, job = read_finetune(service, finetune_id)
    assert (job.state, job.error_message) == (JobState.SUCCEEDED, None)
    assert finetune.report["candidate"]["metric"] == metric
    assert finetune.report["reference"]["name"].endswith("without training")
    assert finetune.report["reference"]["model_id"] is None
    assert finetune.report["decision"]["holdout"]["num_examples"] == 8
    assert serving_model(service, task) is None


def test_nothing_may_get_worse_on_the_regression_data_set(service, context, tmp_path):
    add_library(service, tmp_path)
    with service.sessions.begin() as session:
        regression = DatasetRepository(session).freeze("qa", LabelFilter(split="train")).id
        fixed = DatasetRepository(session).freeze("qa", LabelFilter(split="holdout")).id
    kept = ask_for_finetune(
        service, gate=FinetuneGate(min_holdout=4, regression_dataset_id=regression)
    )
    taken = ask_for_finetune(service, gate=FinetuneGate(min_holdout=4, regression_dataset_id=fixed))

    finetune_next(context)
    finetune_next(context)

    decision = read_finetune(service, kept)[0].report["decision"]
    assert (decision["code"], decision["regression"]) == ("regression", None)
    report = read_finetune(service, taken)[0].report
    assert report["decision"]["code"] == "promoted"
    assert report["decision"]["regression"]["num_examples"] == 8
    assert set(report["regression"]) == {"candidate", "reference"}


@pytest.fixture
def seen_library(service, context, media_folder, tmp_path):
    """Videos that are files, indexed for the default model, with labels."""
    ensure_default(
        service.sessions, service.blobs, mini_folder=save_recall_model(tmp_path / "recall")
    )
    ids = [
        add_video(service, write_counting_video(media_folder / f"{index}.mp4", 20 + index, fps=10))[
            0
        ]
        for index in range(6)
    ]
    embed_all(context)
    with service.sessions.begin() as session:
        LabelRepository(session).add_many(
            [
                NewLabel(
                    video_id,
                    "qa",
                    "Is it long?",
                    answer="yes" if index % 2 else "no",
                    split="train" if index < 4 else "holdout",
                )
                for index, video_id in enumerate(ids)
            ]
        )
    return ids


def test_a_model_whose_eyes_are_trained_too_learns_from_the_videos(service, context, seen_library):
    finetune_id = ask_for_finetune(
        service,
        gate=FinetuneGate(min_holdout=1),
        visual="trained",
        frames_per_clip=1,
        videos_per_step=4,
        **BRIEF,
    )

    finetune_next(context)

    finetune, job = read_finetune(service, finetune_id)
    assert (job.state, job.error_message) == (JobState.SUCCEEDED, None)
    assert finetune.report["training"]["visual"] == "trained"
    assert finetune.report["decision"]["holdout"]["num_examples"] == 2
    if finetune.report["decision"]["promoted"]:
        with service.sessions.begin() as session:
            newest = GenerationRepository(session).list()[0]
        assert (newest.model_id, newest.state) == (finetune.model_id, GenerationState.BUILDING)


def test_a_serving_model_that_sees_otherwise_is_measured_on_the_videos(
    service, context, seen_library, tmp_path
):
    tiny = register_model(
        service.sessions, service.blobs, save_tiny(tmp_path / "tiny"), name="tiny", version="1"
    )
    promote(service.sessions, tiny, ["qa"])
    finetune_id = ask_for_finetune(
        service, gate=FinetuneGate(min_holdout=1, promote=False), videos_per_step=4, **BRIEF
    )

    finetune_next(context)

    finetune, job = read_finetune(service, finetune_id)
    assert (job.state, job.error_message) == (JobState.SUCCEEDED, None)
    assert finetune.report["reference"]["model_id"] == str(tiny)
    assert finetune.report["reference"]["num_unusable"] == 0
    assert finetune.report["decision"]["holdout"]["num_examples"] == 2
