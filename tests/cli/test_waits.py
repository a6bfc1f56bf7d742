"""Nothing takes long without saying what it does."""

import re
import threading
from pathlib import Path

import pytest

from cli import running_service
from cli.running_service import StopRequested
from embedded.process_log import ProcessLog
from embedded.supervisor import Supervisor

MAKEFILE = (Path(__file__).resolve().parents[2] / "Makefile").read_text()


@pytest.fixture
def supervisor(tmp_path):
    return Supervisor([], environment={}, folder=tmp_path, on_line=lambda _name, _line: None)


def wait_for_model(supervisor, *, is_loaded, stop=None):
    running_service._wait_for_model(
        supervisor, ProcessLog(["model"]), stop or threading.Event(), is_loaded=is_loaded
    )


def test_the_wait_for_the_model_is_said_and_ends_when_it_is_loaded(supervisor, capsys):
    is_loaded = threading.Event()
    threading.Timer(0.3, is_loaded.set).start()

    wait_for_model(supervisor, is_loaded=is_loaded)

    assert is_loaded.is_set()
    assert "the model is being loaded" in capsys.readouterr().out


def test_a_model_that_is_loaded_already_is_not_spoken_of(supervisor, capsys):
    is_loaded = threading.Event()
    is_loaded.set()

    wait_for_model(supervisor, is_loaded=is_loaded)

    assert capsys.readouterr().out == ""


def test_a_model_that_cannot_be_loaded_keeps_the_service_not_from_being_ready(
    supervisor, monkeypatch
):
    monkeypatch.setattr(running_service, "MODEL_SECONDS", 0.2)

    wait_for_model(supervisor, is_loaded=threading.Event())


def test_the_wait_for_the_model_can_be_broken_off(supervisor):
    stop = threading.Event()
    stop.set()

    with pytest.raises(StopRequested):
        wait_for_model(supervisor, is_loaded=threading.Event(), stop=stop)


def test_the_set_up_says_each_of_its_steps():
    steps = re.findall(r'@echo "== set-up, step (\d) of (\d): ', MAKEFILE)

    assert steps == [(str(i), "4") for i in range(1, 5)]


def test_pip_shows_its_own_progress():
    (install,) = re.findall(r"^.*pip install.*requirements\.lock$", MAKEFILE, re.MULTILINE)

    assert "--quiet" not in install
    assert "--progress-bar off" not in install


def test_the_demo_counts_its_steps():
    demo = (Path(__file__).resolve().parents[2] / "cli" / "commands" / "demo.py").read_text()

    assert [int(each) for each in re.findall(r"_step\((\d),", demo)] == [1, 5, 2, 3, 4]
    assert "NUM_STEPS = 5" in demo
