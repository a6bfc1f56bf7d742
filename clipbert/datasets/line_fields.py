"""Lines of an annotation file and their fields: what is wrong is an error that names it."""

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn, TypeGuard

from clipbert.datasets.shipped import HEAD_BYTES, NotShipped, is_lines, read_shipped
from clipbert.datasets.video_references import split_ending
from clipbert.datasets.visible_text import has_visible_text
from clipbert.errors import AnnotationError

_MOST_CHARACTERS_SHOWN = 40
_MOST_DIGITS = 18
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LARGEST_NUMBER = 1e9  # of seconds or a score: also keeps out 1e999, which JSON reads as infinity


class LineFields:
    """One line of an annotation file: a JSON object, of which null counts as absent.

    Every method that gives a value raises AnnotationError with the path, the line and the field.
    """

    def __init__(self, path: Path, number: int, values: Mapping[str, object]) -> None:
        self.path, self.number = path, number
        self._values = {name: value for name, value in values.items() if value is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    @property
    def names(self) -> frozenset[str]:
        """The fields that the line has."""
        return frozenset(self._values)

    def error(self, name: str, reason: str) -> AnnotationError:
        """Make the error for a field."""
        return AnnotationError(self.path, reason, line=self.number, field=name)

    def value(self, name: str) -> object:
        """Return a field, whatever it holds."""
        if name not in self._values:
            raise self.error(name, "is missing")
        return self._values[name]

    def text(self, name: str) -> str:
        """Return a text that is not empty, as it is written."""
        return self._checked_text(name, self.value(name))

    def optional_text(self, name: str) -> str | None:
        """Return a text that is not empty, or None where there is no such field."""
        return self.text(name) if name in self else None

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, at least one, none of them empty."""
        values = self.value(name)
        if not isinstance(values, list):
            raise self.error(name, f"must be a list of texts, not {_shown(values)}")
        if not values:
            raise self.error(name, "is empty")
        return tuple(self._checked_text(name, value) for value in values)

    def paragraph(self, name: str) -> str:
        """Return a text, or a list of sentences as one text."""
        if isinstance(self.value(name), list):
            return " ".join(sentence.strip() for sentence in self.texts(name))
        return self.text(name)

    def choices(self, name: str) -> tuple[str, ...]:
        """Return a list of at least two texts."""
        choices = self.texts(name)
        if len(choices) == 1:
            raise self.error(name, "has a single choice")
        return choices

    def whole_number(self, name: str) -> int:
        """Return a whole number, which may be written as text."""
        value = self.value(name)
        if isinstance(value, str) and _is_digits(value):
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(name, f"must be a whole number, not {_shown(value)}")
        return value

    def count(self, name: str) -> int:
        """Return a whole number that is not negative."""
        value = self.whole_number(name)
        if value < 0:
            raise self.error(name, f"must not be negative, got {value}")
        return value

    def index(self, name: str, *, of: int) -> int:
        """Return the index of one of so many choices."""
        value = self.whole_number(name)
        if not 0 <= value < of:
            raise self.error(name, f"must be an index of the {of} choices, got {value}")
        return value

    def optional_seconds(self, name: str) -> float | None:
        """Return an instant, in seconds, or None where there is no such field."""
        if name not in self:
            return None
        value = self.value(name)
        if not _is_number(value) or value < 0:
            raise self.error(name, f"must be seconds, 0 or more, not {_shown(value)}")
        return float(value)

    def scores(self, name: str) -> dict[str, float]:
        """Return how right each answer is: an object of numbers from 0 to 1, possibly empty."""
        values = self.value(name)
        if not isinstance(values, dict):
            raise self.error(name, f"must be an object of scores, not {_shown(values)}")
        for answer, score in values.items():
            self._checked_text(name, answer)
            if not _is_number(score) or not 0 <= score <= 1:
                raise self.error(
                    name, f"must give {_shown(answer)} a score from 0 to 1, not {_shown(score)}"
                )
        return {answer: float(score) for answer, score in values.items()}

    def media(self, name: str, *, number_form: str = "") -> str:
        """Return what names a video or picture, as it is written: see video_references.py.

        Args:
            name: of the field; its value is a text or a number.
            number_form: how a number, also one written as text, becomes a name; as it is written
                where this is empty.
        """
        value = self.value(name)
        if isinstance(value, int) and not isinstance(value, bool):
            written = str(self.count(name))
        else:
            written = self.text(name)
        if written.endswith("/"):
            raise self.error(name, f"names no file: {_shown(value)}")
        stem, ending = split_ending(written)
        if number_form and _is_digits(stem):
            return number_form.format(int(stem)) + ending
        return written

    def _checked_text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(name, f"must be text, not {_shown(value)}")
        if not value.strip():
            raise self.error(name, "has an empty text")
        if not has_visible_text(value):
            raise self.error(name, "has a text without a visible character")
        try:
            value.encode()
        except UnicodeEncodeError as error:  # half a surrogate pair, which no tokenizer takes
            raise self.error(name, f"is not Unicode text: {_shown(value)}") from error
        return value


def read_lines(path: Path) -> Iterator[LineFields | AnnotationError]:
    """Read a file line by line; a line that is not a JSON object in UTF-8 comes as its error.

    Blank lines and a byte order mark are skipped. A file in the form in which its data set is
    shipped comes as the lines that it means, see clipbert.datasets.shipped; a line's number is then
    that of its record.

    Raises:
        AnnotationError: the file cannot be read at all.
    """
    try:
        with io.BufferedReader(path.open("rb", buffering=0), HEAD_BYTES) as file:
            if not is_lines(file.peek(HEAD_BYTES).removeprefix(_BYTE_ORDER_MARK)):
                yield from _shipped_lines(path)
                return
            for number, line in enumerate(file, start=1):
                text = (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).strip()
                if text:
                    yield _parse(path, number, text)
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror}") from error


def _shipped_lines(path: Path) -> Iterator[LineFields]:
    with path.open(encoding="utf-8-sig") as file:
        try:
            for number, record in enumerate(read_shipped(file), start=1):
                yield LineFields(path, number, record)
        except NotShipped as error:
            raise AnnotationError(path, str(error)) from error


def _parse(path: Path, number: int, line: bytes) -> LineFields | AnnotationError:
    try:
        values = _JSON.decode(line.decode())
    except UnicodeDecodeError:
        return AnnotationError(path, "is not UTF-8", line=number)
    except (ValueError, RecursionError) as error:
        return AnnotationError(path, f"is not JSON: {error}", line=number)
    if not isinstance(values, dict):
        return AnnotationError(path, f"is not a JSON object but {_shown(values)}", line=number)
    return LineFields(path, number, values)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST_NUMBER


def _shown(value: object) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= _MOST_CHARACTERS_SHOWN else shown[:_MOST_CHARACTERS_SHOWN] + "..."


# Made once: json.loads would make one for each line.
_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
