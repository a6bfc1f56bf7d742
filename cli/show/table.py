"""Tables of text: as wide as they are where no terminal is, folded to its width where one is.

Without rich, whose import takes longer than most commands.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

GAP = "  "
LEAST_COLUMN_WIDTH = 8  # of a column that is folded
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
_COLOURS = {"red": "\x1b[31m", "green": "\x1b[32m", "yellow": "\x1b[33m", "cyan": "\x1b[36m"}


def table_lines(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    width: int | None = None,
    colours: Mapping[str, str] | None = None,
) -> list[str]:
    """Write a table as lines.

    Args:
        columns: their names; one that ends in `#` is set to the right, `id` is never folded.
        rows: one text a column; what is not printable in it becomes a space.
        width: of the terminal; None: a row is one line, however long.
        colours: what cells with just this text are coloured in; None: no colours at all.

    Returns:
        The lines, without spaces at their ends.
    """
    names = [column.removesuffix("#") for column in columns]
    to_the_right = [column.endswith("#") for column in columns]
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [
        max([display_width(name), *(display_width(row[i]) for row in cells)])
        for i, name in enumerate(names)
    ]
    if width is not None:
        widths = _fitted(widths, names, width - len(GAP) * (len(names) - 1))
    lines = []
    for number, row in enumerate([names, *cells]):
        folded = [_fold(cell, widths[i]) for i, cell in enumerate(row)]
        for parts in zip_longest(*folded, fillvalue=""):
            texts = []
            for i, part in enumerate(parts):
                padding = " " * (widths[i] - display_width(part))
                colour = "" if colours is None else _code(row[i], is_head=number == 0, of=colours)
                shown = f"{colour}{part}{_PLAIN}" if colour and part else part
                texts.append(f"{padding}{shown}" if to_the_right[i] else f"{shown}{padding}")
            lines.append(GAP.join(texts).rstrip())
    return lines


def one_line(text: str) -> str:
    """Replace control characters, which could move the cursor or end the line, by spaces."""
    if text.isprintable():
        return text
    return "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in text)


def display_width(text: str) -> int:
    """Count the columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum(_letter_width(letter) for letter in text)


def _letter_width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _fitted(widths: Sequence[int], names: Sequence[str], room: int) -> list[int]:
    """Narrow the widest columns until all fit, but none below what can be read."""
    fitted = [*widths]
    while sum(fitted) > room:
        foldable = [
            i
            for i, name in enumerate(names)
            if name != "id" and fitted[i] > max(LEAST_COLUMN_WIDTH, display_width(name))
        ]
        if not foldable:
            break
        fitted[max(foldable, key=lambda i: fitted[i])] -= 1
    return fitted


def _fold(text: str, width: int) -> list[str]:
    """Break a text into lines of a width, between words where that is possible."""
    lines = []
    while display_width(text) > width:
        taken = used = 0
        for letter in text:
            used += _letter_width(letter)
            if used > width and taken:
                break
            taken += 1
        space = text.rfind(" ", 1, taken + 1)
        cut = space if space > 0 else taken
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return [*lines, text]


def _code(cell: str, *, is_head: bool, of: Mapping[str, str]) -> str:
    if is_head:
        return _BOLD
    return _COLOURS.get(of.get(cell, ""), "")
