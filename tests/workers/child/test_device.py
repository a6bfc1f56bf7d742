"""Which child of a pool works on which GPU; the GPUs are not real ones, the pool is."""

import os
import signal
import time

import pytest
from billiard.pool import Pool

from tests.clipbert.engines.test_devices import FakeDevices
from workers.child.device import child_index, take_device
from workers.child.visible_gpus import num_model_children, visible_gpus


def take(setting, index, devices, share=0.5):
    return take_device(setting, child_index=index, finetune_share=share, devices=devices)


@pytest.mark.parametrize("setting", ["auto", "cuda"])
def test_each_child_takes_the_gpu_of_its_number(setting):
    devices = FakeDevices(True, True, True)

    taken = [take(setting, index, devices) for index in range(4)]

    assert taken == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]


def test_a_gpu_that_is_named_is_everybody_s():
    assert [take("cuda:1", index, FakeDevices(True, True)) for index in range(2)] == ["cuda:1"] * 2


@pytest.mark.parametrize(("setting", "devices"), [("auto", FakeDevices()), ("cpu", FakeDevices(1))])
def test_the_cpu_is_taken_where_there_is_no_gpu_or_none_is_wanted(setting, devices):
    assert take(setting, 1, devices) == "cpu"
    assert devices.limits == {}


@pytest.mark.parametrize(("setting", "gpus"), [("cuda", []), ("cuda:2", [True, True])])
def test_a_gpu_that_is_not_there_is_said(setting, gpus):
    with pytest.raises(ValueError, match=f"WORKER_DEVICE={setting}, .* {len(gpus)} GPUs"):
        take(setting, 0, FakeDevices(*gpus))


def test_memory_is_bounded_to_what_a_finetune_leaves():
    devices = FakeDevices(True, True)

    take("auto", 1, devices, share=0.3)
    take("auto", 0, devices, share=1.0)

    assert devices.limits == {1: pytest.approx(0.7)}


def test_a_child_that_takes_a_dead_one_s_place_takes_its_number(tmp_path):
    pool = Pool(2, initializer=note_number, initargs=(tmp_path,))
    try:
        wait_until(lambda: sorted(numbers_in(tmp_path).values()) == [0, 1])
        dead = next(pid for pid, number in numbers_in(tmp_path).items() if number == 1)
        os.kill(dead, signal.SIGKILL)

        wait_until(lambda: len(numbers_in(tmp_path)) == 3)
    finally:
        pool.terminate()
        pool.join()

    assert sorted(numbers_in(tmp_path).values()) == [0, 1, 1]


def note_number(folder):
    (folder / str(os.getpid())).write_text(str(child_index()))


def numbers_in(folder):
    return {int(file.name): int(file.read_text() or -1) for file in folder.iterdir()}


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("setting", "visible", "children"),
    [
        *(("auto", "0,1,2", 3), ("cuda", "GPU-7f,GPU-9c", 2), ("cuda:1", "0,1", 1)),
        *(("cpu", "0,1", 1), ("auto", "", 1), ("auto", "-1", 1)),
    ],
)
def test_up_starts_one_child_for_each_gpu_it_may_use(setting, visible, children):
    gpus = visible_gpus({"CUDA_VISIBLE_DEVICES": visible})

    assert num_model_children(setting, gpus) == children


def test_gpus_are_counted_by_their_files_where_no_variable_names_them(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()

    assert visible_gpus({}, tmp_path) == ["0", "1"]
