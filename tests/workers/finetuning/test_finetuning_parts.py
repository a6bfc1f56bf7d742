"""The parts of a finetune that need no training."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psutil
import pytest

from store.blobs import open_blobs
from store.jobs.state import JobKind, JobState
from store.jobs.tables import Job
from store.videos.contents import curves_key
from workers.errors import JobError, JobLost
from workers.finetuning.devices import choose_device, count_processes, fit_videos_per_forward
from workers.finetuning.folder import FinetuneFolder
from workers.finetuning.mirror import Mirror
from workers.finetuning.run_sweeping import sweep_curves, sweep_runs
from workers.finetuning.subprocesses import BoundProcess, end_survivor
from workers.finetuning.work import check_disk

SLEEPERS = "import subprocess as s, time; s.Popen(['sleep', '600'], start_new_session={}); {}"


@pytest.fixture
def folder(tmp_path):
    folder = FinetuneFolder(tmp_path / "runs", "0190-id")
    folder.open(1)
    return folder


def start(folder, *argv, niceness=0):
    return BoundProcess(
        argv,
        folder=folder.path,
        log_file=folder.log,
        identity=folder.trainer,
        environment={"LETTER": "x"},
        niceness=niceness,
    )


def children(process):
    """Wait for the sleeping child of a process."""
    ends_at = time.monotonic() + 120
    while not (found := psutil.Process(process.pid).children(recursive=True)):
        assert time.monotonic() < ends_at
        time.sleep(0.05)
    return found


def assert_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=120)
    assert alive == []


def test_a_newer_claim_keeps_an_older_one_out(folder):
    folder.open(3)
    folder.open(3)

    with pytest.raises(JobLost, match="claim 3"):
        folder.open(2)
    assert folder.fence.read_text() == "3\n"


def test_the_last_checkpoint_is_the_newest_that_is_whole(folder):
    for step, is_whole in ((5, True), (10, True), (15, False)):
        checkpoint = folder.checkpoints / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        if is_whole:
            (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))

    assert folder.last_checkpoint() == (10, folder.checkpoints / "checkpoint-10")


def test_half_a_line_of_metrics_is_left_out(folder):
    folder.run.mkdir()
    folder.metrics.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')

    assert folder.read_metrics() == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize(
    ("setting", "visible", "expected"),
    [
        ("cpu", "0,1", ("cpu", 0, "")),
        ("auto", "", ("cpu", 0, "")),
        ("auto", "-1", ("cpu", 0, "")),
        ("auto", "0", ("cuda", 1, None)),
        ("auto", "2,5", ("cuda", 2, None)),
        ("cuda", "2,5", ("cuda", 2, None)),
        ("cuda:1", "2,5", ("cuda", 1, "5")),
        ("cuda:0", "GPU-3a", ("cuda", 1, "GPU-3a")),
    ],
)
def test_the_device_is_chosen_by_the_setting_and_by_what_is_visible(setting, visible, expected):
    device = choose_device(setting, environment={"CUDA_VISIBLE_DEVICES": visible})

    shown = device.environment.get("CUDA_VISIBLE_DEVICES")
    assert (device.name, device.num_gpus, shown) == expected


def test_gpus_are_counted_by_the_files_of_the_system(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()

    assert choose_device("auto", environment={}, device_files=tmp_path).num_gpus == 2


def test_processes_and_forward_passes_share_a_step_evenly():
    assert count_processes(0, videos_per_step=32) == 1
    assert count_processes(4, videos_per_step=32) == 4
    assert count_processes(4, videos_per_step=9) == 3
    assert fit_videos_per_forward(8, videos_per_step=32, num_processes=1) == 8
    assert fit_videos_per_forward(8, videos_per_step=32, num_processes=8) == 4
    assert fit_videos_per_forward(4, videos_per_step=9, num_processes=1) == 3


@pytest.mark.parametrize("own_session", [False, True])
def test_a_killed_process_takes_all_of_its_own_with_it(folder, own_session):
    process = start(folder, sys.executable, "-c", SLEEPERS.format(own_session, "time.sleep(600)"))
    family = [psutil.Process(process.pid), *children(process)]

    process.kill()

    assert_gone(family)


def test_what_a_dead_process_left_in_its_group_is_killed_too(folder):
    process = start(folder, sys.executable, "-c", SLEEPERS.format(False, "time.sleep(600)"))
    orphans = children(process)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(120) == -signal.SIGKILL

    process.kill()

    assert_gone(orphans)


def test_a_process_has_its_variables_its_niceness_its_log_and_this_code(folder):
    code = "import os, clipbert as c; "
    code += "print(os.environ['LETTER'], os.nice(0), c.__file__, os.getcwd())"

    process = start(folder, sys.executable, "-c", code, niceness=3)

    import clipbert

    assert process.wait(120) == 0
    expected = f"x {os.nice(0) + 3} {clipbert.__file__} {folder.path}\n"
    assert folder.log_tail() == expected


def test_a_process_dies_with_its_parent(folder):
    code = f"""
import os, sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from workers.finetuning.subprocesses import BoundProcess
path = Path({str(folder.path)!r})
made = BoundProcess(["sleep", "600"], folder=path, log_file=path / "log",
                    identity=path / "trainer.json", environment={{}}, niceness=0)
print(made.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        bound = psutil.Process(int(parent.stdout.readline()))
        parent.kill()

    assert_gone([bound])


def test_a_survivor_of_an_earlier_claim_is_ended_and_no_stranger(folder):
    process = start(folder, "sleep", "600")
    known = json.loads(folder.trainer.read_text())
    folder.trainer.write_text(json.dumps(known | {"start": "1"}))  # the pid is another's now

    end_survivor(folder.trainer)
    assert process.wait(0.5) is None
    folder.trainer.write_text(json.dumps(known))
    end_survivor(folder.trainer)

    assert process.wait(120) == -signal.SIGKILL


def test_too_little_room_for_checkpoints_is_refused_with_the_figures(folder, tmp_path, monkeypatch):
    weights = tmp_path / "model.safetensors"
    header = json.dumps({"w": {"shape": [1000, 1000], "dtype": "F32", "data_offsets": [0, 0]}})
    weights.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    # 3 checkpoints of 12 MB and a model of 4 MB.
    usage = type("Usage", (), {"free": 40_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    check_disk(folder, weights, checkpoints_kept=2)
    usage.free = 39_999_999
    with pytest.raises(JobError, match="free") as refused:
        check_disk(folder, weights, checkpoints_kept=2)

    assert refused.value.code == "disk_full"
    assert refused.value.detail["needed_bytes"] == 40_000_000

    folder.run.mkdir()
    (folder.run / "old").write_bytes(b"x")  # what is there already needs no room
    check_disk(folder, weights, checkpoints_kept=2)


def write_checkpoint(folder, step):
    checkpoint = folder.checkpoints / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_text(f"weights {step}")
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (folder.run / "run.json").write_text("{}")
    (folder.run / "metrics.jsonl").write_text(json.dumps({"step": step}) + "\n")


def lose_hold():
    raise JobLost("another worker has it")


def test_a_worker_elsewhere_goes_on_from_the_copy_of_the_last_checkpoint(tmp_path):
    blobs, finetune_id = open_blobs(f"memory://{uuid4()}"), uuid4()
    here = FinetuneFolder(tmp_path / "here", finetune_id)
    here.open(1)
    here.write_state(videos_per_forward=2)
    mirror = Mirror(blobs, finetune_id, here, is_on=True)
    for step in (5, 10):
        write_checkpoint(here, step)
        mirror.copy_if_new()
        mirror._copying.result()
    mirror.close(last=True)

    there = FinetuneFolder(tmp_path / "there", finetune_id)
    there.open(2)
    second = Mirror(blobs, finetune_id, there, is_on=True)
    with pytest.raises(JobLost):
        second.fetch(lose_hold)
    assert any(path.is_file() for path in there.run.rglob("*"))
    assert there.last_checkpoint() is None  # half a copy is none
    second.fetch()

    step, checkpoint = there.last_checkpoint()
    assert (step, (checkpoint / "model.safetensors").read_text()) == (10, "weights 10")
    assert (there.run / "run.json").is_file()
    assert there.read_metrics() == [{"step": 10}]
    assert there.read_state() == {"videos_per_forward": 2}
    assert {key.split("/")[2] for key in blobs.keys("runs")} == {"10", "latest.json"}
    second.remove()
    assert list(blobs.keys("runs")) == []
    second.close()


def test_an_older_copy_does_not_replace_what_is_here(tmp_path):
    blobs, finetune_id = open_blobs(f"memory://{uuid4()}"), uuid4()
    folder = FinetuneFolder(tmp_path, finetune_id)
    folder.open(1)
    write_checkpoint(folder, 5)
    mirror = Mirror(blobs, finetune_id, folder, is_on=True)
    mirror.close(last=True)
    write_checkpoint(folder, 10)

    mirror.fetch()

    assert folder.last_checkpoint()[0] == 10


def test_runs_are_kept_while_their_job_can_go_on_or_be_retried(service, context):
    ids = {}
    for name, state, age in (
        ("paused", JobState.PAUSED, None),
        ("failed", JobState.FAILED, timedelta(days=1)),
        ("forgotten", JobState.FAILED, timedelta(days=8)),
    ):
        ids[name] = service.enqueue(JobKind.FINETUNE)
        with service.sessions.begin() as session:
            job = session.get(Job, ids[name])
            job.state = state
            job.finished_at = age and datetime.now(UTC) - age
    ids["deleted"], ids["of another service"] = uuid4(), uuid4()
    for finetune_id in ids.values():
        FinetuneFolder(context.run_folder, finetune_id).open(1)
        service.blobs.put_bytes(curves_key(finetune_id, "curves.png"), b"x")
    long_ago = time.time() - timedelta(days=8).total_seconds()
    os.utime(context.run_folder / str(ids["deleted"]), (long_ago, long_ago))
    (context.run_folder / "photos").mkdir()  # the folder is shared with others
    (context.run_folder / "notes.txt").touch()
    for name in ("photos", "notes.txt"):
        os.utime(context.run_folder / name, (long_ago, long_ago))

    sweep_runs(context)
    sweep_curves(context)

    left = {path.name for path in context.run_folder.iterdir()}
    kept = {str(ids[name]) for name in ("paused", "failed", "of another service")}
    assert left == kept | {"photos", "notes.txt"}
    curves = {key.split("/")[1] for key in service.blobs.keys("finetunes")}
    assert curves == {str(ids[name]) for name in ("paused", "failed", "forgotten")}
