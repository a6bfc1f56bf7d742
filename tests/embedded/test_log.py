"""The log of `up`: private, bounded, kept across starts, and never a reason to stop."""

import os
import stat
import subprocess
import sys
from io import StringIO

import pytest

from embedded.log import UnfailingOutput, change_log, open_log
from embedded.process_log import ProcessLog, read_line


def test_the_log_is_for_its_owner_only_also_one_that_was_not(tmp_path):
    log = tmp_path / "up.log"
    log.write_text("earlier\n")
    log.chmod(0o644)

    os.close(open_log(log))

    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert log.read_text() == "earlier\n"


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "up.log").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic link"):
        open_log(tmp_path / "up.log")

    assert not (tmp_path / "elsewhere").exists()


def test_a_log_that_is_large_is_changed_and_the_last_few_are_kept(tmp_path):
    """In a process of its own: a change moves stdout and stderr to the new file."""
    log = tmp_path / "up.log"
    program = (
        "import os, pathlib, subprocess, sys\n"
        "from embedded.log import UnfailingOutput, open_log\n"
        f"file = pathlib.Path({str(log)!r})\n"
        "os.dup2(open_log(file), 1)\n"
        "output = UnfailingOutput(1, file=file, max_bytes=100, num_kept=2)\n"
        "for number in range(5):\n"
        "    output.write(f'{number}' * 99 + '\\n')\n"
        "subprocess.run(['echo', 'a child writes where we do'])\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True)

    assert log.read_text() == "4" * 99 + "\na child writes where we do\n"
    assert (tmp_path / "up.log.1").read_text() == "3" * 99 + "\n"
    assert (tmp_path / "up.log.2").read_text() == "2" * 99 + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["up.log", "up.log.1", "up.log.2"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_change_that_fails_leaves_the_log_as_it_was(tmp_path):
    log = tmp_path / "missing" / "up.log"

    with pytest.raises(FileNotFoundError):
        change_log(log)


def test_lines_that_do_not_fit_are_dropped_counted_and_told_later(tmp_path):
    log = tmp_path / "log"
    descriptor, full = os.open(log, os.O_WRONLY | os.O_CREAT), os.open("/dev/full", os.O_WRONLY)
    shown = os.dup(full)
    output = UnfailingOutput(shown)
    try:
        output.write("one\n")
        output.write("two\nthree\n")
        os.dup2(descriptor, shown)  # there is room again
        output.write("four\n")
    finally:
        for each in (descriptor, full, shown):
            os.close(each)

    lines = log.read_text().split("\n")
    assert lines == ["", "*** 3 lines could not be written: No space left on device", "four", ""]
    assert output.num_dropped == 0


def test_a_process_log_outlives_a_stream_that_fails():
    class Broken(StringIO):
        def write(self, text):
            raise BrokenPipeError

    log = ProcessLog(["api"], stream=Broken())

    log.write("api", "a line")
    log.say("another")

    assert log.num_dropped == 2


def test_json_that_is_nested_too_deeply_is_text():
    line = '{"event":' + "[" * 100_000

    assert read_line(line).text == line
