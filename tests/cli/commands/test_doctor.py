"""What `clipbert doctor` finds; all of it together is seen in test_up.py."""

import pytest

from cli.commands.doctor import check_device
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
