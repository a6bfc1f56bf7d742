"""Names of the processes that hold jobs, by which those of them that are gone are noticed.

A lease ends long after its process: it has to outlast a database that is away for a while. Whoever
looks on the same machine need not wait for that. If it errs, no work is done twice for all that:
what the job's first holder writes is refused by its token.
"""

import os
import socket
from pathlib import Path
from typing import Final

import psutil

from workers.jobs.process_files import boot_id, start_ticks

_ENDED: Final = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
"""Of a process that has ended and whose parent has not taken note of it."""


def own_name() -> str:
    """Return the name of this process, which no other has or had, on no machine."""
    return f"{_here()}:{os.getpid()}:{start_ticks(os.getpid())}"


def is_gone(owner: str) -> bool:
    """Whether the process of a name has ended; False where that cannot be seen from here."""
    here, _, process = owner.partition(":")
    number, _, start = process.partition(":")
    if here != _here() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
        is_another = start_ticks(int(number)) != start
        return is_another or psutil.Process(int(number)).status() in _ENDED
    except (ProcessLookupError, FileNotFoundError, psutil.NoSuchProcess):
        return True
    except (OSError, psutil.AccessDenied):  # of another user
        return False


def _here() -> str:
    """Name what numbers processes: this container, until this machine is started anew."""
    numbering = Path("/proc/self/ns/pid").stat().st_ino
    return f"{socket.gethostname()}/{boot_id()[:8]}/{numbering}"
