"""Everything that the client raises on purpose.

    ClientError
    ├── UnusableAddress      the service's address, a header or the proxy cannot be used
    ├── ServiceUnreachable   nothing answers at the address
    ├── UnexpectedAnswer     what answers there does not speak the API's JSON
    ├── ApiProblem           the API answered with a problem
    ├── JobFailed            what was asked ended without a result
    └── JobUnfinished        what was asked did not end in time

A file that cannot be read while it is sent raises an OSError, as open() does.
"""

from collections.abc import Mapping
from http import HTTPStatus


class ClientError(Exception):
    """Something a person can put right.

    Attributes:
        message: what is wrong, as a sentence.
        cure: what to do about it, where that is known.
    """

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(message)
        self.message, self.cure = message, cure


class UnusableAddress(ClientError):
    """The service's address, a header or the environment's proxy cannot be used."""


class ServiceUnreachable(ClientError):
    """Nothing answers at the address."""


class UnexpectedAnswer(ClientError):
    """What answers at the address does not speak the API's JSON."""


class ApiProblem(ClientError):
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


class JobFailed(ClientError):
    """What was asked failed, or was cancelled."""


class JobUnfinished(ClientError):
    """What was asked did not end in time; it goes on."""


def may_come_back(error: ClientError) -> bool:
    """Whether asking again may help: the service, or the database behind it, is away."""
    if isinstance(error, ServiceUnreachable):
        return True
    return isinstance(error, ApiProblem) and error.status == HTTPStatus.SERVICE_UNAVAILABLE
