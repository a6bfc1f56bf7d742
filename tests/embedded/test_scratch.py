"""Temporary files of processes that are gone."""

import os
import subprocess
import sys
import time
from pathlib import Path

from embedded.scratch import scratch_folder
from embedded.supervisor import ProcessSpec, Supervisor


def test_what_a_killed_up_left_goes_with_the_next_and_a_living_one_s_stays(tmp_path):
    program = (
        "import pathlib, sys, time\n"
        "from embedded.scratch import scratch_folder\n"
        f"with scratch_folder(pathlib.Path({str(tmp_path)!r})) as folder:\n"
        "    (folder / 'model.bin').write_bytes(b'x' * 1000)\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    others = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    killed, living = (other.stdout.readline().strip() for other in others)
    others[0].kill()
    others[0].wait()
    try:
        with scratch_folder(tmp_path) as folder:
            assert not Path(killed).exists()
            assert (Path(living) / "model.bin").exists()
            assert folder.stat().st_mode & 0o077 == 0
        assert not folder.exists()
    finally:
        others[1].kill()
        for other in others:
            other.communicate()


def test_a_process_that_starts_again_finds_its_temporary_folder_empty(tmp_path):
    code = (
        "import os, tempfile\n"
        "print(sorted(os.listdir(tempfile.gettempdir())), flush=True)\n"
        "tempfile.mkdtemp(prefix='torch-')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    lines = []
    supervisor = Supervisor(
        [ProcessSpec("a", (sys.executable, "-c", code), first_backoff_seconds=0.1)],
        environment=os.environ,
        folder=tmp_path,
        on_line=lambda _, line: lines.append(line),
        scratch=tmp_path,
    )
    supervisor.start()
    try:
        deadline = time.monotonic() + 120
        while len(lines) < 2 and time.monotonic() < deadline:
            supervisor.restart_dead()
            time.sleep(0.05)
    finally:
        supervisor.stop(term_seconds=0.2)

    assert lines[:2] == ["[]\n", "[]\n"]
