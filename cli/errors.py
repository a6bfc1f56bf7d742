"""All that the command raises on purpose; main() prints each as one line.

    CliError
    ├── ServiceUnreachable   no API answers at the address
    └── ApiProblem           the API answered with a problem

Each has its exit code; a wrong command line exits with 2.
"""

from collections.abc import Collection, Mapping
from http import HTTPStatus

INTERRUPTED = 130  # what a shell reports for a command ended by Ctrl-C


class CliError(Exception):
    """Something a person can put right: the sentence, and the cure where there is one."""

    exit_code = 1

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(message)
        self.message, self.cure = message, cure


class ServiceUnreachable(CliError):
    """No API answers at the address."""

    exit_code = 3


class ApiProblem(CliError):
    """The API refused, with a status, a code, (for lists) one error an item, and further facts."""

    def __init__(
        self,
        *,
        status: int,
        code: str,
        detail: str,
        errors: tuple[dict[str, object], ...] = (),
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(f"{detail} ({code})" if code else detail)
        self.status, self.code, self.detail, self.errors = status, code, detail, errors
        self.facts = dict(facts or {})


def may_come_back(error: CliError) -> bool:
    """Tell whether asking again may help: the service, or the database behind it, is away."""
    if isinstance(error, ServiceUnreachable):
        return True
    return isinstance(error, ApiProblem) and error.status == HTTPStatus.SERVICE_UNAVAILABLE


def check_one_of(option: str, value: str | None, allowed: Collection[str]) -> None:
    """Check the value of an option that knows a few; None is one that was not given.

    Raises:
        CliError: it is none of them.
    """
    if value is not None and value not in allowed:
        raise CliError(f"{option} is one of {', '.join(allowed)}, not {value}")
