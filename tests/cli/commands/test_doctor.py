"""What `clipbert doctor` finds; all of it together is seen in test_up.py."""

import os

import pytest

from cli.commands.doctor import check_data_folder, check_device
from embedded.lock import hold_lock
from embedded.running_up import RunningUp, write_running


def test_a_device_that_is_not_there_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKER_DEVICE", "cuda:99")

    finding = check_device(tmp_path)

    assert finding.text.startswith("the service is to run on cuda:99: torch sees ")
    assert finding.cure == "set WORKER_DEVICE"


@pytest.mark.parametrize(("device", "is_wrong"), [("cuda:99", True), ("cpu", False)])
def test_the_device_of_what_runs_is_looked_at(tmp_path, device, is_wrong):
    with hold_lock(tmp_path):
        write_running(tmp_path, RunningUp(1, "http://h:1", True, {"WORKER_DEVICE": device}))

        assert (check_device(tmp_path).cure is not None) == is_wrong


@pytest.mark.parametrize(
    ("free_mib", "settings", "is_wrong"),
    [
        (118, {}, False),  # of a disk of 300 MiB the service needs 64
        (60, {}, True),
        (60, {"STORE_MIN_FREE_BYTES": "0"}, False),
        (118, {"STORE_MIN_FREE_PERCENT": "50"}, True),
    ],
)
def test_a_small_disk_is_a_problem_where_it_is_one_to_the_service(
    tmp_path, monkeypatch, free_mib, settings, is_wrong
):
    free = free_mib * 256  # blocks of 4 KiB
    disk = os.statvfs_result((4096, 4096, 300 * 256, free, free, 10**6, 10**6, 10**6, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    finding = check_data_folder(tmp_path)

    assert (finding.cure is not None) == is_wrong
    assert f"{free_mib} MiB free" in finding.text


def test_a_setting_that_no_service_would_take_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("STORE_MIN_FREE_BYTES", "some")

    assert check_data_folder(tmp_path).text == "STORE_MIN_FREE_BYTES must be a whole number"
