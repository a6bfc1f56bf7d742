"""What the command itself raises on purpose; main() prints each, and the client's, as one line.

    CliError       something on this machine or in the command line
    ClientError    of clipbert_client: something between here and the service

A wrong command line exits with 2, as typer has it.
"""

from collections.abc import Collection

FAILED = 1
UNREACHABLE = 3  # no service answers at the address
INTERRUPTED = 130  # what a shell reports for a command ended by Ctrl-C


class CliError(Exception):
    """Something a person can put right: the sentence, and the cure where there is one."""

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(message)
        self.message, self.cure = message, cure


def check_one_of(option: str, value: str | None, *, allowed: Collection[str]) -> None:
    """Check the value of an option that knows a few; None is one that was not given.

    Raises:
        CliError: it is none of them.
    """
    if value is not None and value not in allowed:
        raise CliError(f"{option} is one of {', '.join(allowed)}, not {value}")
