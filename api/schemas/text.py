"""Text and JSON that PostgreSQL can hold, and sizes that keep a row small."""

import json
import math
import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, StringConstraints

MAX_TEXT_LENGTH: Final = 1000
MAX_URI_LENGTH: Final = 4096
MAX_FILENAME_LENGTH: Final = 255
MAX_TAGS: Final = 32
MAX_METADATA_BYTES: Final = 16_384

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def check_storable(text: str) -> str:
    """Refuse what PostgreSQL cannot hold.

    Raises:
        ValueError: the text has it.
    """
    if _UNSTORABLE.search(text):
        raise ValueError("must not hold NUL characters or lone surrogates")
    return text


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
    AfterValidator(check_storable),
]
QueryText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_LENGTH),
    AfterValidator(check_storable),
]
Uri = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_URI_LENGTH), AfterValidator(check_storable)
]
FileName = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_FILENAME_LENGTH, pattern="^[^\0]*$")
]
Tags = Annotated[list[Name], Field(max_length=MAX_TAGS)]
Metadata = Annotated[dict[str, Any], AfterValidator(_small_json)]
