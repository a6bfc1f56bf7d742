import errno
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError

from clipbert.errors import (
    ConfigError,
    DecodeFailed,
    FenceLost,
    TrainingDiverged,
    TrainingStopped,
)
from clipbert.runs.failures import code_of
from clipbert.runs.supervision import Fence, ProgressFile, RunControl, run_supervised


@pytest.fixture(autouse=True)
def own_sigterm():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(tmp_path, work, fence=None) -> int:
    return run_supervised(
        work, progress_path=tmp_path / "progress.json", error_folder=tmp_path, fence=fence
    )


def raising(error):
    def work(_control):
        raise error

    return work


def test_a_fence_holds_as_long_as_it_has_the_number(tmp_path):
    fence = Fence(tmp_path / "fence", 7)
    with pytest.raises(FenceLost, match="attempt 7 has lost its place: the fence says no fence"):
        fence.check()

    fence.path.write_text("7\n")
    fence.check()
    fence.path.write_text("8")
    with pytest.raises(FenceLost, match="the fence says 8"):
        fence.check()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConfigError("x"), 1, "invalid_recipe"),
        (TrainingDiverged(3, float("nan")), 1, "training_diverged"),
        (DecodeFailed("x"), 1, "decode_failed"),
        (OSError(errno.ENOSPC, "full"), 1, "disk_full"),
        (OSError(errno.EACCES, "no"), 1, "file_error"),
        (SafetensorError("Error while serializing: I/O error: ... (os error 28)"), 1, "disk_full"),
        (RuntimeError("[enforce fail] PytorchStreamWriter failed writing file"), 1, "disk_full"),
        (ValueError("x"), 1, "internal_error"),
        (MemoryError(), 4, "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), 4, "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 4, "out_of_memory"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed"), 1, "process_lost"),
    ],
)
def test_an_error_is_a_status_and_a_file(tmp_path, error, status, code):
    assert run(tmp_path, raising(error)) == status
    assert json.loads((tmp_path / "error.json").read_text())["code"] == code
    assert code_of(error) == code


def test_being_stopped_or_fenced_off_is_no_error(tmp_path):
    assert run(tmp_path, raising(TrainingStopped())) == 5
    assert run(tmp_path, raising(FenceLost(1, "2"))) == 3
    assert not (tmp_path / "error.json").exists()


def test_who_never_had_the_fence_writes_nothing(tmp_path):
    status = run(tmp_path / "out", raising(ValueError()), Fence(tmp_path / "fence", 1))

    assert status == 3
    assert not (tmp_path / "out").exists()


def test_an_old_error_is_removed_when_work_begins(tmp_path):
    (tmp_path / "error.json").write_text("{}")

    assert run(tmp_path, lambda control: control.progress.move(3, 9)) == 0
    assert not (tmp_path / "error.json").exists()
    told = json.loads((tmp_path / "progress.json").read_text())
    assert (told["stage"], told["step"], told["total_steps"]) == ("done", 3, 9)
    assert told["updated_at"].endswith("+00:00")


def test_the_first_of_several_errors_stays(tmp_path):
    def work(_control):
        (tmp_path / "error.json").write_text('{"code": "first"}')
        raise ValueError

    assert run(tmp_path, work) == 1
    assert json.loads((tmp_path / "error.json").read_text()) == {"code": "first"}


def test_progress_is_not_told_by_who_lost_the_fence(tmp_path):
    fence = Fence(tmp_path / "fence", 1)
    fence.path.write_text("1")
    with ProgressFile(tmp_path / "progress.json", fence) as progress:
        before = (tmp_path / "progress.json").read_text()
        fence.path.write_text("2")
        progress.enter("training")

        assert (tmp_path / "progress.json").read_text() == before


def test_sigterm_ends_work_at_once_and_later_waits_for_a_step():
    control = RunControl()
    control.stop_on_sigterm()
    with pytest.raises(TrainingStopped):
        os.kill(os.getpid(), signal.SIGTERM)

    other = RunControl()
    other.stop_on_sigterm()
    other.wait_for_step()
    assert not other.is_wanted_to_stop
    os.kill(os.getpid(), signal.SIGTERM)
    assert other.is_wanted_to_stop


def test_what_a_service_reads_of_recipes_and_annotations_loads_no_torch():
    modules = (
        "clipbert.training.recipe",
        "clipbert.training.finetune_recipes",
        "clipbert.datasets.annotation",
        "clipbert.datasets.kinds",
        "clipbert.runs.supervision",
        "clipbert.evaluation.bootstrap",
    )
    program = "\n".join(
        [
            *(f"import {module}" for module in modules),
            "import sys",
            "print(*sorted({'torch', 'transformers', 'av', 'matplotlib'} & set(sys.modules)))",
        ]
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == ""
