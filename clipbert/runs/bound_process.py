"""Run a command that dies with the process that started it.

    python -I -S bound_process.py PARENT_PID SIGNAL NICENESS COMMAND ARGUMENT...

The kernel sends this process SIGNAL (15, 9) when its parent dies, however that happens; then the
command takes this process's place (the wish survives exec), NICENESS (0 for none) added to what
the parent has. A wrapper rather than preexec_fn, because Python code between fork and exec can hang
in a process that has threads. Standard library only: it starts in 15 ms.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, death_signal, niceness = (int(number) for number in sys.argv[1:4])
    command = sys.argv[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before we could ask
        sys.exit("the parent is gone")
    os.nice(niceness)
    os.execvp(command[0], command)  # noqa: S606  (no shell is wanted)


if __name__ == "__main__":
    main()
