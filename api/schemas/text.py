"""Text that PostgreSQL can hold, and sizes that keep a row small."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from policy.texts import Name, check_said, check_storable

MAX_TEXT_LENGTH: Final = 1000
MAX_URI_LENGTH: Final = 4096
MAX_FILENAME_LENGTH: Final = 255
MAX_TAGS: Final = 32


QueryText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_LENGTH),
    AfterValidator(check_said),
]
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
