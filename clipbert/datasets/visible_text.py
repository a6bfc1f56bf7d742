"""Whether a text says anything: one of zero-width spaces looks empty, and is."""

import re
import unicodedata
from typing import Final

# Letters, marks and a symbol that are drawn as nothing: Unicode's Default_Ignorable_Code_Point
# beyond the categories below, and the Braille cell without dots.
_DRAWN_AS_NOTHING: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0000-\U000e0fff]"
)
# Controls, formats such as the zero-width space, halves of a pair; spaces and ends of lines.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})


def has_visible_text(text: str) -> bool:
    """Return whether a text has a character that a person can see.

    has_visible_text("yes")  ->  True;  of spaces, zero-width spaces and marks alone  ->  False
    """
    return any(
        unicodedata.category(letter) not in _INVISIBLE and not _DRAWN_AS_NOTHING.match(letter)
        for letter in text
    )
