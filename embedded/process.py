"""What the system knows of a process, so that a number used again is not mistaken for ours."""

import sys
from pathlib import Path

import psutil


def command_of(pid: int) -> list[str]:
    """Return the command line of a process; empty if it has ended, even unwaited for."""
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []


def working_folder_of(pid: int) -> Path | None:
    """Return the folder that a process works in; None if it has ended or is not ours to see."""
    try:
        return Path(psutil.Process(pid).cwd())
    except psutil.Error:
        return None


def identity_of(pid: int) -> str | None:
    """Return what tells this process from every other that had or will have its number.

    Returns:
        The boot and the instant it was started in; None if there is no such process.
    """
    if sys.platform != "linux":
        try:
            return str(psutil.Process(pid).create_time())
        except psutil.Error:
            return None
    # psutil gives the start by the machine's clock, and moves it when the clock is set.
    try:
        # The name, in parentheses, may hold anything; the start is the 20th field after it.
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return f"{boot} {start}"
