import os
import subprocess
import sys

import pytest

from workers.jobs.owners import is_gone, own_name

NAMED = "from workers.jobs.owners import own_name; print(own_name(), flush=True); input()"


@pytest.fixture
def other():
    """Another process, which ends when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def test_a_process_is_gone_once_it_has_ended_though_nobody_took_note(other):
    name = other.stdout.readline().strip()
    assert name != own_name()
    assert not is_gone(name)

    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(name)  # a zombie

    other.wait()
    assert is_gone(name)


def test_a_later_process_with_its_number_is_another():
    here, number, start = own_name().split(":")

    assert not is_gone(own_name())
    assert is_gone(f"{here}:{number}:{int(start) - 1}")


@pytest.mark.parametrize("start", ["other-host", "", "host/0/1"])
def test_nothing_is_said_of_other_machines_and_of_names_of_another_kind(start):
    here, _ = own_name().split(":", maxsplit=1)
    host, boot, numbering = here.split("/")

    for there in (start, f"{start}/{boot}/{numbering}", f"{host}/00000000/{numbering}"):
        assert not is_gone(f"{there}:999999999:1")
    assert not is_gone(f"{here}:none:1")
    assert not is_gone("p1")
