"""Choices that nobody can tell apart, so that none of them can be right."""

import unicodedata
from collections.abc import Sequence

from clipbert.datasets.annotation import Annotation
from clipbert.datasets.kinds import AnnotationKind
from clipbert.datasets.same_answers import fold


def equal_choices(choices: Sequence[str], *, to: int | None = None) -> tuple[str, str] | None:
    """Find two choices that read the same, to people and to the tokenizer of the model.

        equal_choices(["a dog", "no", "A  Dog"])  ->  ("a dog", "A  Dog")

    Args:
        choices: of a question.
        to: the index of one that all others are compared with; None: all with each other.
    """
    asked = None if to is None else _read(choices[to])
    first: dict[str, str] = {}
    for choice in choices:
        key = _read(choice)
        if key in first and asked in (None, key):
            return first[key], choice
        first[key] = choice
    return None


def describe_equal_choices(pair: tuple[str, str]) -> str:
    """Say which two choices read the same."""
    one, other = pair
    return "the choices must differ" + (
        "" if one == other else f": {one!r} and {other!r} read the same"
    )


def equal_choices_of(annotation: Annotation, kind: AnnotationKind) -> str | None:
    """Return why a line's choices leave in doubt which one is right; None: they do not.

    The distractors of the paper's data sets are as they are, and may repeat; the right one not. Of
    the project's own labels all must differ.
    """
    to = None if kind == "labels" else annotation.right_choice
    pair = equal_choices(annotation.choices, to=to)
    return None if pair is None else describe_equal_choices(pair)


def _read(choice: str) -> str:
    """Reduce a choice to what is read of it: no case, no runs of spaces, no invisible letters."""
    return fold("".join(each for each in choice if unicodedata.category(each) != "Cf"))
