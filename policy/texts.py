"""Names and JSON in requests: what PostgreSQL can hold, of sizes that keep a row small."""

import json
import math
from typing import Annotated, Any, Final

from pydantic import AfterValidator, StringConstraints

from clipbert.datasets.visible_text import has_visible_text
from store.texts import can_be_stored

MAX_METADATA_BYTES: Final = 16_384


def check_storable(text: str) -> str:
    """Refuse what PostgreSQL cannot hold.

    Raises:
        ValueError: the text has it.
    """
    if not can_be_stored(text):
        raise ValueError("must not hold NUL characters or lone surrogates")
    return text


def check_said(text: str) -> str:
    """Refuse what says nothing, or cannot be kept.

    Raises:
        ValueError: there is nothing to see in the text, or PostgreSQL cannot hold it.
    """
    if not has_visible_text(text):
        raise ValueError("must have a visible character")
    return check_storable(text)


def _small_json(value: dict[str, Any]) -> dict[str, Any]:
    _check_json(value, depth=0)
    if len(json.dumps(value)) > MAX_METADATA_BYTES:
        raise ValueError(f"must not be larger than {MAX_METADATA_BYTES} bytes of JSON")
    return value


def _check_json(value: object, *, depth: int, name: str = "") -> None:
    if depth > 8:  # noqa: PLR2004  deep enough for what people write by hand
        raise ValueError("must not be nested deeper than 8 levels")
    if isinstance(value, str):
        check_storable(value)
    elif isinstance(value, float) and not math.isfinite(value):
        where = f", as {name} does" if name else ""
        raise ValueError(f"must not hold NaN or infinities{where}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_storable(key)
            _check_json(inner, depth=depth + 1, name=key)
    elif isinstance(value, list):
        for inner in value:
            _check_json(inner, depth=depth + 1, name=name)


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(check_said),
]
Metadata = Annotated[dict[str, Any], AfterValidator(_small_json)]
