"""Finetunes with the real trainer, in this process and in real worker processes."""

import json
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from policy.finetunes.request import FinetuneGate
from store.jobs.repository import JobRepository
from store.jobs.state import JobState
from store.models.repository import ModelRepository
from store.videos.contents import curves_key
from tests.workers.finetunes import (
    add_library,
    ask_for_finetune,
    events_of,
    read_finetune,
    run_folder,
    serving_model,
)
from tests.workers.service import PATIENCE_SECONDS, wait_for
from workers.finetuning import training
from workers.finetuning.devices import TrainerDevice
from workers.finetuning.finetuning import finetune_next
from workers.finetuning.subprocesses import BoundProcess

pytestmark = pytest.mark.slow

SLOW = {"steps": 4000, "checkpoint_steps": 100}  # minutes, if nobody stops it


def work_in_thread(context):
    """Run the finetune that is due beside the test."""
    thread = threading.Thread(target=finetune_next, args=(context,), daemon=True)
    thread.start()
    return thread


def trainers(service, finetune_id):
    """List the processes that train this finetune."""
    folder = str(run_folder(service, finetune_id))
    return [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == folder]


def test_a_finetune_is_trained_compared_registered_and_promoted(service, context, tmp_path):
    add_library(service, tmp_path)
    finetune_id = ask_for_finetune(service)

    assert finetune_next(context) == 1

    # A run takes long: one is looked at from all sides.
    finetune, job = read_finetune(service, finetune_id)
    assert (job.state, job.error_message) == (JobState.SUCCEEDED, None)
    assert (job.progress_done, job.attempt) == (job.progress_total, 1)
    assert_serves(service, finetune)
    assert_told_how_far_it_was(service, finetune_id)
    assert_left_nothing_behind(service, finetune)

    second_id = ask_for_finetune(service, steps=45)
    finetune_next(context)
    assert_was_compared_with(service, second_id, finetune.model_id)


def assert_serves(service, finetune):
    model = serving_model(service)
    assert model is not None
    assert (model.id, model.name, model.tasks) == (finetune.model_id, "clipbert-qa", ["qa"])
    assert model.parent_id == finetune.base_model_id
    assert finetune.completed_at is not None
    decision = finetune.report["decision"]
    assert (decision["promoted"], decision["code"]) == (True, "promoted")
    assert decision["holdout"]["num_examples"] == 8
    assert decision["holdout"]["candidate"] >= decision["holdout"]["reference"]
    assert finetune.report["reference"]["name"] == "the commonest answer"
    assert finetune.report["training"]["step"] == 40
    with service.sessions.begin() as session:
        (promotion,) = ModelRepository(session).promotions(task="qa")
    assert (promotion.finetune_id, promotion.reason) == (finetune.id, decision["reason"])


def assert_told_how_far_it_was(service, finetune_id):
    metrics = [event.data for event in events_of(service, finetune_id, "metrics")]
    assert [line["step"] for line in metrics] == [1, *range(5, 45, 5)]
    assert {"loss", "seconds_left", "clips_per_second"} <= metrics[0].keys()
    stages = [event.data["stage"] for event in events_of(service, finetune_id, "stage")]
    assert stages[0] == "preparing"
    assert "training" in stages
    assert stages[-1] == "evaluating"
    assert [event.data["code"] for event in events_of(service, finetune_id, "decision")] == [
        "promoted"
    ]
    with service.blobs.open_read(curves_key(finetune_id, "curves.png")) as file:
        assert file.read(4) == b"\x89PNG"
    with service.blobs.open_read(curves_key(finetune_id, "curves.json")) as file:
        assert json.loads(file.read())["points"]


def assert_was_compared_with(service, finetune_id, model_id):
    finetune, job = read_finetune(service, finetune_id)
    assert job.state == JobState.SUCCEEDED
    assert serving_model(service).id == model_id != finetune.model_id
    assert finetune.report["decision"]["code"] in ("no_gain", "not_significant")
    assert finetune.report["reference"]["model_id"] == str(model_id)


def assert_left_nothing_behind(service, finetune):
    left = {path.name for path in run_folder(service, finetune.id).iterdir() if path.is_dir()}
    assert left == set()
    assert trainers(service, finetune.id) == []
    with service.sessions.begin() as session:
        model = ModelRepository(session).get(finetune.model_id)
        base = ModelRepository(session).get(finetune.base_model_id)
    names = {Path(key).name for key in service.blobs.keys(model.folder_key)}
    assert {"config.json", "model.safetensors", "README.md", "manifest.json"} <= names
    assert not names & {"metrics.jsonl", "run.json", "progress.json", "curves.png"}
    assert model.visual_sha256 == base.visual_sha256  # the stored tokens still fit it


def test_too_few_held_out_examples_keep_a_model_as_a_candidate(service, context, tmp_path):
    add_library(service, tmp_path)
    finetune_id = ask_for_finetune(service, gate=FinetuneGate())

    finetune_next(context)

    finetune, _ = read_finetune(service, finetune_id)
    assert finetune.model_id is not None
    assert finetune.report["decision"]["code"] == "too_few_examples"
    assert serving_model(service) is None


def test_a_cancelled_finetune_frees_its_device_within_seconds(service, context, tmp_path):
    add_library(service, tmp_path, num_holdout=0)
    finetune_id = ask_for_finetune(service, **SLOW)
    thread = work_in_thread(context)
    wait_for(lambda: events_of(service, finetune_id, "metrics"))

    asked_at = time.monotonic()
    with service.sessions.begin() as session:
        JobRepository(session).request_cancel(finetune_id)
    service.wait_for_state(finetune_id, JobState.CANCELLED)

    assert time.monotonic() - asked_at < 10
    assert trainers(service, finetune_id) == []
    thread.join(120)
    assert run_folder(service, finetune_id).is_dir()  # for a retry


def test_a_paused_finetune_goes_on_where_it_stood(service, context, tmp_path):
    add_library(service, tmp_path, num_holdout=0)
    finetune_id = ask_for_finetune(service, steps=250, checkpoint_steps=1000)
    thread = work_in_thread(context)
    wait_for(lambda: events_of(service, finetune_id, "metrics"))

    with service.sessions.begin() as session:
        JobRepository(session).request_pause(finetune_id)
    paused = service.wait_for_state(finetune_id, JobState.PAUSED)
    thread.join(120)
    assert trainers(service, finetune_id) == []
    (checkpoint,) = (run_folder(service, finetune_id) / "run" / "checkpoints").iterdir()
    stood_at = int(checkpoint.name.rpartition("-")[2])
    assert (paused.attempt, paused.worker_losses) == (0, 0)
    assert 0 < stood_at < 250
    assert finetune_next(context) == 0

    with service.sessions.begin() as session:
        JobRepository(session).resume(finetune_id)
    finetune_next(context)

    assert service.job(finetune_id).state == JobState.SUCCEEDED
    steps = [event.data["step"] for event in events_of(service, finetune_id, "metrics")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 250


def test_a_trainer_that_dies_again_and_again_fails_its_job(service, context, tmp_path):
    add_library(service, tmp_path, num_holdout=0)
    finetune_id = ask_for_finetune(service)
    with standing_in("echo its last words; kill -9 $$"):
        finetune_next(context)

    job = service.job(finetune_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "trainer_lost")
    assert job.error_detail["log"].count("its last words") == 4
    assert len(events_of(service, finetune_id, "trainer_lost")) == 4


def test_out_of_memory_takes_half_as_many_videos_until_there_is_one(service, context, tmp_path):
    add_library(service, tmp_path, num_holdout=0)
    finetune_id = ask_for_finetune(service)
    with standing_in("exit 4"):
        finetune_next(context)

    job = service.job(finetune_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "out_of_memory")
    halved = [
        event.data["videos_per_forward"]
        for event in events_of(service, finetune_id, "out_of_memory")
    ]
    assert halved == [2, 1]


def test_less_memory_gives_the_same_effective_batch(service, context, tmp_path):
    add_library(service, tmp_path, num_holdout=0)
    finetune_id = ask_for_finetune(service)
    with standing_in('grep -q "videos_per_forward = 4" recipe.toml && exit 4; exec "$@"'):
        finetune_next(context)

    finetune, job = read_finetune(service, finetune_id)
    assert job.state == JobState.SUCCEEDED
    assert finetune.report["training"]["step"] == 40
    (event,) = events_of(service, finetune_id, "out_of_memory")
    assert event.data == {"videos_per_forward": 2}


def test_an_error_of_the_trainer_is_the_jobs(service, context, tmp_path):
    add_library(service, tmp_path, num_holdout=0)
    finetune_id = ask_for_finetune(service, learning_rate=1e30)

    finetune_next(context)

    job = service.job(finetune_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "training_diverged")
    assert job.error_detail["log"]


def test_a_video_deleted_before_the_start_is_named(service, context, tmp_path):
    add_library(service, tmp_path)
    finetune_id = ask_for_finetune(service)
    with service.sessions.begin() as session:
        from store.videos.repository import VideoRepository

        videos = VideoRepository(session)
        (video, *_) = videos.list(page_size=1).items
        videos.delete(video.id)

    finetune_next(context)

    job = service.job(finetune_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "video_deleted")
    assert str(video.id) in job.error_message


def test_a_full_disk_is_found_before_the_start(service, context, tmp_path):
    add_library(service, tmp_path)
    finetune_id = ask_for_finetune(service, checkpoints_kept=10**9)

    finetune_next(context)

    job = service.job(finetune_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "disk_full")
    assert job.error_detail["needed_bytes"] > job.error_detail["free_bytes"]


def test_a_stopped_worker_saves_a_checkpoint_and_the_next_one_goes_on(service, context, tmp_path):
    add_library(service, tmp_path, num_holdout=0)
    finetune_id = ask_for_finetune(service, steps=250, checkpoint_steps=1000)
    worker = service.start_worker("finetune")
    wait_for(lambda: events_of(service, finetune_id, "metrics"))

    assert service.stop(worker) == 0

    job = service.job(finetune_id)
    assert (job.state, job.attempt, job.worker_losses) == (JobState.QUEUED, 0, 0)
    assert trainers(service, finetune_id) == []
    assert list((run_folder(service, finetune_id) / "run" / "checkpoints").iterdir())
    finetune_next(context)
    assert service.job(finetune_id).state == JobState.SUCCEEDED


@contextmanager
def standing_in(script):
    """Let a shell script take the trainer's place; it may run the trainer by exec "$@"."""

    def start(context, folder, *, module, arguments, device, num_processes=1):
        trainer = (sys.executable, "-m", module, *arguments)
        return BoundProcess(
            ("/bin/sh", "-c", script, "sh", *trainer),
            folder=folder.path,
            log_file=folder.log,
            identity=folder.trainer,
            environment=device.environment,
            niceness=0,
        )

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "start_subprocess", start)
        yield


@pytest.fixture
def two_processes(monkeypatch):
    """Train as on two GPUs, on the CPU."""
    device = TrainerDevice("cpu", num_gpus=2, environment={"CUDA_VISIBLE_DEVICES": ""})
    monkeypatch.setattr("workers.finetuning.training.choose_device", lambda _: device)


@pytest.mark.usefixtures("two_processes")
def test_several_processes_train_one_model_and_are_lost_and_found_together(
    service, context, tmp_path
):
    add_library(service, tmp_path, num_holdout=0)
    finetune_id = ask_for_finetune(service, steps=100)
    thread = work_in_thread(context)
    wait_for(lambda: events_of(service, finetune_id, "metrics"))
    first = trainers(service, finetune_id)
    ranks = [process for process in first if "torch.distributed.run" not in process.cmdline()]
    assert len(ranks) == 2

    ranks[1].kill()
    thread.join(PATIENCE_SECONDS)

    finetune, job = read_finetune(service, finetune_id)
    assert (job.state, job.error_message) == (JobState.SUCCEEDED, None)
    assert finetune.report["training"]["step"] == 100
    assert len(events_of(service, finetune_id, "trainer_lost")) == 1
    assert trainers(service, finetune_id) == []


@pytest.mark.usefixtures("two_processes")
def test_several_processes_are_cancelled_together(service, context, tmp_path):
    add_library(service, tmp_path, num_holdout=0)
    finetune_id = ask_for_finetune(service, **SLOW)
    thread = work_in_thread(context)
    wait_for(lambda: events_of(service, finetune_id, "metrics"))
    assert len(trainers(service, finetune_id)) == 3  # with the one that started the two

    with service.sessions.begin() as session:
        JobRepository(session).request_cancel(finetune_id)
    thread.join(120)

    assert service.job(finetune_id).state == JobState.CANCELLED
    assert trainers(service, finetune_id) == []
