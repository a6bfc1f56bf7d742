"""What the system knows of a process, so that a number used again is not mistaken for ours."""

import subprocess
from pathlib import Path


def command_of(pid: int) -> list[str]:
    """Return the command line of a process; empty if it has ended, even unwaited for."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return _ask_ps(pid, "command=").split() if not Path("/proc/self").exists() else []
    except OSError:
        return []
    return command.decode(errors="replace").split("\0")[:-1]


def identity_of(pid: int) -> str | None:
    """Return what tells this process from every other that had or will have its number.

    Returns:
        The boot and the instant it was started in; None if there is no such process.
    """
    try:
        # The name, in parentheses, may hold anything; the start is the 20th field after it.
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return _ask_ps(pid, "lstart=") or None if not Path("/proc/self").exists() else None
    except OSError:
        return None
    return f"{boot} {start}"


def _ask_ps(pid: int, field: str) -> str:
    # Systems with no /proc: macOS.
    asked = subprocess.run(  # noqa: S603
        ["/bin/ps", "-o", field, "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()
