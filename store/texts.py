"""Texts that come from people, as PostgreSQL can hold them."""

import re
from typing import Final

_HALF_PAIR: Final = re.compile(r"[\ud800-\udfff]")


def can_be_stored(said: str) -> bool:
    """Return whether PostgreSQL can hold a text: it holds no NUL, and UTF-8 no half of a pair."""
    return "\0" not in said and (said.isascii() or _HALF_PAIR.search(said) is None)
