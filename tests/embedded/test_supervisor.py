"""The supervisor with real processes."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from embedded.supervisor import ProcessSpec, Supervisor

SLEEPER = "import time\nprint('up', flush=True)\ntime.sleep(600)"
STUBBORN = (
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "signal.signal(signal.SIGQUIT, signal.SIG_IGN)\n"
    "print('up', flush=True)\ntime.sleep(600)"
)


@pytest.fixture
def started(tmp_path):
    """Start supervisors that are stopped when the test ends."""
    supervisors = []

    def start(*specs, lines=None):
        lines = [] if lines is None else lines
        supervisor = Supervisor(
            specs,
            environment=os.environ,
            folder=tmp_path,
            on_line=lambda name, line: lines.append((name, line)),
        )
        supervisors.append(supervisor)
        supervisor.start()
        wait_until(lambda: len(lines) >= len(specs))
        return supervisor

    yield start
    for supervisor in supervisors:
        supervisor.stop(term_seconds=0.2)


def python(name, code, **options):
    return ProcessSpec(name, (sys.executable, "-c", code), **options)


def wait_until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_lines_of_all_processes_arrive_with_their_names(started):
    lines = []

    started(python("a", SLEEPER), python("b", SLEEPER), lines=lines)

    assert sorted(lines) == [("a", "up\n"), ("b", "up\n")]


def test_a_process_that_dies_is_started_again_and_its_exit_is_told_once(started):
    lines = []
    supervisor = started(python("a", SLEEPER), lines=lines)
    first = supervisor.pids()["a"]
    os.kill(first, signal.SIGKILL)
    exits = []

    def is_back():
        exits.extend(supervisor.restart_dead())
        return supervisor.pids().get("a") not in (None, first)

    wait_until(is_back)

    assert [(ended.name, ended.return_code) for ended in exits] == [("a", -signal.SIGKILL)]


def test_a_process_that_keeps_dying_is_started_less_and_less_often(started):
    supervisor = started(python("a", "print('no', flush=True); raise SystemExit(3)"))
    backoffs = []

    def died_three_times():
        backoffs.extend(ended.restart_in_seconds for ended in supervisor.restart_dead())
        return len(backoffs) >= 3

    wait_until(died_three_times)

    assert backoffs[:3] == [1.0, 2.0, 4.0]


def test_stages_stop_one_after_the_other(started, tmp_path):
    record = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    time.sleep({pause})\n"
        "    open({record!r}, 'a').write({name!r})\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('up', flush=True)\n"
        "time.sleep(600)"
    )
    slow_first = code.format(record=str(record), name="1", pause=0.5)
    quick_second = code.format(record=str(record), name="2", pause=0.0)
    supervisor = started(
        python("second", quick_second, stop_stage=1), python("first", slow_first, stop_stage=0)
    )

    supervisor.stop()

    assert record.read_text() == "12"
    assert supervisor.pids() == {}


def test_a_process_that_ignores_signals_is_killed_with_its_children(started):
    with_child = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n" + STUBBORN
    )
    lines = []
    supervisor = started(python("a", with_child), lines=lines)
    wait_until(lambda: len(lines) == 2)
    grandchild = int(lines[0][1])

    supervisor.stop(term_seconds=0.3)

    assert supervisor.pids() == {}
    wait_until(lambda: not psutil.pid_exists(grandchild) or is_zombie(grandchild))


def test_processes_die_with_a_supervisor_that_is_killed():
    """SIGKILL leaves no time to clean up: the kernel has to do it."""
    program = (
        "import os, sys, time\n"
        "from embedded.supervisor import ProcessSpec, Supervisor\n"
        f"code = {SLEEPER!r}\n"
        "supervisor = Supervisor([ProcessSpec('a', (sys.executable, '-c', code))],\n"
        "    environment=os.environ, folder='/', on_line=lambda *_: None)\n"
        "supervisor.start()\n"
        "print(supervisor.pids()['a'], flush=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with parent:
        child = int(parent.stdout.readline())
        wait_until(lambda: psutil.Process(child).cmdline()[1:2] == ["-c"])  # past the wrapper
        parent.kill()

    wait_until(lambda: not psutil.pid_exists(child) or is_zombie(child))


def is_zombie(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
