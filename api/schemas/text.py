"""Text that PostgreSQL can hold, and sizes that keep a row small."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from clipbert.datasets.equal_choices import describe_equal_choices, equal_choices
from policy.texts import Name, check_said, check_storable

MAX_TEXT_LENGTH: Final = 1000
MAX_URI_LENGTH: Final = 4096
MAX_FILENAME_LENGTH: Final = 255
MAX_TAGS: Final = 32
MAX_CHOICES: Final = 64


QueryText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_LENGTH),
    AfterValidator(check_said),
]


def refuse_boolean(value: object) -> object:
    """Keep `true` from being taken for the number 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004  pydantic's
    return value


def _choices_differ(choices: list[str]) -> list[str]:
    pair = equal_choices(choices)
    if pair is not None:
        raise ValueError(describe_equal_choices(pair))
    return choices


Choices = Annotated[
    list[QueryText],
    Field(min_length=2, max_length=MAX_CHOICES),
    AfterValidator(_choices_differ),
]
"""Of a question: at least two, which people can tell apart."""
Uri = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_URI_LENGTH), AfterValidator(check_storable)
]
FileName = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_FILENAME_LENGTH, pattern="^[^\0]*$")
]
Reference = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_URI_LENGTH, pattern="^[^\0]*$")
]
"""What may name a video: see clipbert/datasets/video_references.py."""
Tags = Annotated[list[Name], Field(max_length=MAX_TAGS)]
