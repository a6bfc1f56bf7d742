"""File names and arguments as text that can be sent."""

import os
import unicodedata


def as_text(name: str) -> str:
    """Return a file name or argument as text; bytes of it that are not UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def sendable_name(name: str) -> str:
    """Return a file name as a form can carry it, without quotes and control characters."""
    text = as_text(name).replace('"', "'")
    return "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)
