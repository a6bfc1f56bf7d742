"""Pages of a list, and the opaque tokens that lead from one to the next."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from store.errors import InvalidPageToken

MAX_PAGE_SIZE = 500

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some rows of a list.

    Attributes:
        items: the rows, in the order of the list.
        next_page_token: what to ask the next page with; None on the last page.
    """

    items: Sequence[T]
    next_page_token: str | None


def clamp_page_size(page_size: int) -> int:
    """Bring a wanted page size to what the store gives at once.

    Raises:
        ValueError: page_size is below 1.
    """
    if page_size < 1:
        raise ValueError(f"page_size must be at least 1, got {page_size}")
    return min(page_size, MAX_PAGE_SIZE)


class PageTokens:
    """The page tokens of one list with its filters; those of any other are refused.

        tokens = PageTokens("jobs", state="failed")
        tokens.id_of(tokens.of_id(job.id))  ->  job.id

    Args:
        name: of the list.
        filters: by name; what cannot be JSON stands as its text.
    """

    def __init__(self, name: str, /, **filters: object) -> None:
        asked = json.dumps([name, filters], sort_keys=True, default=str)
        self._list = hashlib.sha256(asked.encode()).hexdigest()[:8]

    def of_id(self, id_: UUID) -> str:
        """Make the token of a page that begins after the row with this id."""
        return self._encode(id_.hex)

    def id_of(self, token: str) -> UUID:
        """Read a token made by `of_id`.

        Raises:
            InvalidPageToken: it is none.
        """
        value = self._decode(token)
        try:
            return UUID(hex=value if isinstance(value, str) else "")
        except ValueError as error:
            raise InvalidPageToken(token) from error

    def of_index(self, index: int) -> str:
        """Make the token of a page that begins after the item with this index."""
        return self._encode(index)

    def index_of(self, token: str) -> int:
        """Read a token made by `of_index`.

        Raises:
            InvalidPageToken: it is none.
        """
        value = self._decode(token)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
            raise InvalidPageToken(token)
        return value

    def of_instant(self, instant: datetime) -> str:
        """Make the token of a page that begins after the row of this instant."""
        return self._encode(instant.isoformat())

    def instant_of(self, token: str) -> datetime:
        """Read a token made by `of_instant`.

        Raises:
            InvalidPageToken: it is none.
        """
        value = self._decode(token)
        try:
            instant = datetime.fromisoformat(value if isinstance(value, str) else "")
        except ValueError as error:
            raise InvalidPageToken(token) from error
        if instant.tzinfo is None:
            raise InvalidPageToken(token)
        return instant

    def _encode(self, value: str | int) -> str:
        content = json.dumps([self._list, value]).encode()
        return base64.urlsafe_b64encode(content).decode().rstrip("=")

    def _decode(self, token: str) -> object:
        try:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            content = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError) as error:
            raise InvalidPageToken(token) from error
        match content:
            case [self._list, value]:
                return value
            case _:
                raise InvalidPageToken(token)
