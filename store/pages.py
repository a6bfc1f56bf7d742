"""Pages of a list, and the opaque tokens that lead from one to the next."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
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


def token_of_id(id_: UUID) -> str:
    """Make the token of a page that begins after the row with this id."""
    return _encode(id_.hex)


def id_of_token(token: str) -> UUID:
    """Read a token made by `token_of_id`.

    Raises:
        InvalidPageToken: it is none.
    """
    value = _decode(token)
    try:
        return UUID(hex=value if isinstance(value, str) else "")
    except ValueError as error:
        raise InvalidPageToken(token) from error


def token_of_index(index: int) -> str:
    """Make the token of a page that begins after the item with this index."""
    return _encode(index)


def index_of_token(token: str) -> int:
    """Read a token made by `token_of_index`.

    Raises:
        InvalidPageToken: it is none.
    """
    value = _decode(token)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise InvalidPageToken(token)
    return value


def _encode(value: str | int) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _decode(token: str) -> object:
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        return json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidPageToken(token) from error
