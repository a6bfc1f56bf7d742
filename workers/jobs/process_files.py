"""What Linux says of a process in /proc."""

from pathlib import Path
from typing import Final

START_FIELD: Final = 19
"""When it started, in ticks since the machine did: two processes of one number differ by it."""

DEAD: Final = ("Z", "X")
"""States, in field 0, of a process that has ended and whose parent has not taken note of it."""


def read_stat(pid: int) -> list[str]:
    """Read the fields of /proc/<pid>/stat from the state on, after the name in brackets.

    Raises:
        OSError: there is no such process.
    """
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return text.rpartition(")")[2].split()


def boot_id() -> str:
    """Read what tells one start of this machine from all others of any machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
