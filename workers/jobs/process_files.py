"""What tells a process from all others, on this machine and any other, for longer than it lives.

Read from /proc by hand: psutil gives the start of a process by the machine's clock, and moves it
when the clock is set, so that a process that lives would be taken for another one.
"""

from pathlib import Path
from typing import Final

_START_FIELD: Final = 19


def start_ticks(pid: int) -> str:
    """Read when a process started, in ticks since the machine did.

    Raises:
        OSError: there is no such process.
    """
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return text.rpartition(")")[2].split()[_START_FIELD]


def boot_id() -> str:
    """Read what tells one start of this machine from all others of any machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
