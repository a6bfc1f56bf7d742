"""Forks of a process that has loaded what they need: what they are, and when they end."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from clipbert.runs.fork_client import ForkClient

TELL = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv[1:], "folder": os.getcwd(), "letter": os.environ.get("LETTER"),
    "niceness": os.nice(0), "leads": os.getsid(0) == os.getpid(), "parent": os.getppid(),
    "loaded": "heavy" in sys.modules, "input": sys.stdin.read(),
    "files": len(os.listdir("/proc/self/fd")),
}))
sys.exit(int(sys.argv[1]))
"""
SLEEP = "import time; time.sleep(600)"
HEAVY = "import pathlib; pathlib.Path(__file__).with_name('loads').open('a').write('x')"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, code in (("tell", TELL), ("sleeps", SLEEP), ("heavy", HEAVY)):
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def client(folder):
    client = ForkClient(["heavy"], idle_seconds=60)
    yield client
    client.close()


def fork(client, folder, module, *arguments, niceness=0, **environment):
    return client.fork(
        module,
        arguments,
        folder=folder,
        log_file=folder / "log",
        environment=environment,
        niceness=niceness,
    )


def end_of(fork):
    ends_at = time.monotonic() + 120
    while (status := fork.wait(0.5)) is None:
        assert time.monotonic() < ends_at
    return status


def begun(fork):
    ends_at = time.monotonic() + 120
    while not fork.has_begun:
        assert fork.wait(0.5) is None
        assert time.monotonic() < ends_at
    return psutil.Process(fork.pid)


def said(folder):
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def test_a_fork_is_a_process_as_a_started_one_would_be(client, folder):
    before = os.nice(0)
    assert end_of(fork(client, folder, "tell", "3", "ä", niceness=2, LETTER="x")) == 3

    (told,) = said(folder)
    parent, files = told.pop("parent"), told.pop("files")
    assert told == {
        "argv": ["3", "ä"],
        "folder": str(folder),
        "letter": "x",
        "niceness": min(19, before + 2),
        "leads": True,
        "loaded": True,
        "input": "",
    }
    assert parent != os.getpid()
    assert files == 4  # three, and the folder that is being listed


def test_what_is_heavy_is_loaded_once_for_all(client, folder):
    sleeping = fork(client, folder, "sleeps")
    assert end_of(fork(client, folder, "tell", "0", LETTER="x")) == 0
    assert end_of(fork(client, folder, "tell", "1")) == 1

    first, second = said(folder)
    assert (first["letter"], second["letter"]) == ("x", None)
    assert first["files"] == second["files"] == 4
    assert (folder / "loads").read_text() == "x"
    assert sleeping.wait(0) is None


def test_a_signal_ends_a_fork_and_no_other(client, folder):
    first, second = fork(client, folder, "sleeps"), fork(client, folder, "sleeps")
    begun(first).terminate()

    assert end_of(first) == -signal.SIGTERM
    assert begun(second).is_running()
    assert second.wait(0) is None


def test_forks_die_with_what_they_were_forked_from_and_the_next_gets_another(client, folder):
    first = fork(client, folder, "sleeps")
    process = begun(first)
    process.parent().kill()

    assert end_of(first) == -signal.SIGKILL
    psutil.wait_procs([process], timeout=120)
    assert not process.is_running()
    assert end_of(fork(client, folder, "tell", "0")) == 0


def test_forks_die_with_whoever_asked_for_them(folder):
    code = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from clipbert.runs.fork_client import ForkClient
path = Path({str(folder)!r})
client = ForkClient(["heavy"], idle_seconds=60)
fork = client.fork("sleeps", [], folder=path, log_file=path / "log", environment={{}}, niceness=0)
while not fork.has_begun:
    fork.wait(1)
print(fork.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        forked = psutil.Process(int(parent.stdout.readline()))
        server = forked.parent()
        parent.kill()

    _, alive = psutil.wait_procs([forked, server], timeout=120)
    assert alive == []


def test_one_that_nobody_needs_any_more_ends_and_the_next_request_starts_another(folder):
    client = ForkClient(["heavy"], idle_seconds=0.2)
    try:
        first = fork(client, folder, "tell", "0")
        assert end_of(first) == 0
        time.sleep(1)
        assert end_of(fork(client, folder, "tell", "0")) == 0
    finally:
        client.close()

    first, second = said(folder)
    assert first["parent"] != second["parent"]
    assert (folder / "loads").read_text() == "xx"


def test_what_cannot_be_loaded_is_said_in_the_log_and_ends_with_an_error(folder):
    client = ForkClient(["no_such_module"], idle_seconds=60)
    try:
        assert end_of(fork(client, folder, "tell", "0")) == 1
    finally:
        client.close()

    assert "No module named 'no_such_module'" in (folder / "log").read_text()


def test_a_process_with_thousands_of_files_can_wait_for_its_forks(client, folder):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert end_of(fork(client, folder, "tell", "3")) == 3
    finally:
        for file in held:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_nobody_waits_for_any_more_never_begins(client, folder):
    abandoned = fork(client, folder, "tell", "0")  # the server has yet to load
    abandoned.close()

    assert end_of(fork(client, folder, "tell", "0", LETTER="b")) == 0
    assert [each["letter"] for each in said(folder)] == ["b"]


def test_one_of_a_bare_server_knows_nothing_of_this_process(folder, monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    code = "import os, sys; os.write(9, os.read(8, 9)); print(sorted(os.environ), file=sys.stderr)"
    (folder / "bare.py").write_text(code)
    environment = {"LETTER": "a", "PYTHONPATH": str(folder)}
    server = ForkClient([], idle_seconds=60, environment=environment, inherits=False)
    names = ("read", "written", "said")
    (folder / "read").write_text("words")
    files = [os.open(folder / name, os.O_RDWR | os.O_CREAT) for name in names]
    try:
        begun = server.fork_bare(
            "bare",
            [],
            folder=folder,
            files=dict(zip((8, 9, 2), files, strict=True)),
            environment={"PYTHONPATH": str(folder), "LETTER": "b"},
        )
        status = end_of(begun)
        environ = Path(f"/proc/{begun._server.pid}/environ").read_bytes()
    finally:
        server.close()
        for file in files:
            os.close(file)

    assert status == 0, (folder / "said").read_text()
    assert (folder / "written").read_text() == "words"
    assert (folder / "said").read_text() == "['LETTER', 'PYTHONPATH']\n"
    assert b"SECRET" not in environ
    assert b"LETTER=a" in environ


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("raise ValueError('its reason')", 1, "ValueError: its reason"),
        ("import sys; sys.exit('its reason')", 1, "its reason"),
        ("import atexit; atexit.register(print, 'its reason')", 0, "its reason"),
    ],
)
def test_a_module_ends_as_one_that_was_started_does(client, folder, code, status, words):
    (folder / "ends.py").write_text(code)

    assert end_of(fork(client, folder, "ends")) == status
    assert words in (folder / "log").read_text()
