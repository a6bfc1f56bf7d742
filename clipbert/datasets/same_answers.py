"""Which answers are one answer: three people type "Yes", "yes " and "YES" for the same."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

SameAnswers = Literal["folded", "exact"]
"""`folded`: answers that differ only in case, spaces or Unicode form are one; `exact`: none are."""


def fold(text: str) -> str:
    """Reduce an answer to what is compared: case folded, runs of spaces one space, NFC.

        fold("  A  Dog ")  ->  "a dog"

    Canonical forms only: "m²" and "m2" stay two answers.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split())


def merge_counts(
    counts: Iterable[tuple[str, int]], *, same: SameAnswers = "folded"
) -> list[tuple[str, int]]:
    """Add up the counts of answers that are one.

        merge_counts([("yes", 3), ("no", 4), ("Yes", 2)])  ->  [("yes", 5), ("no", 4)]

    Args:
        counts: answers as they were typed, each once, and how often.
        same: which are one.

    Returns:
        Each answer in the form most used (of equally many the first by its characters) with its
        count, by falling count, those of one count in the order of their characters.
    """
    key_of = _key(same)
    forms: dict[str, list[tuple[int, str]]] = {}
    for answer, count in counts:
        forms.setdefault(key_of(answer), []).append((-count, answer))
    merged = [(min(of)[1], -sum(count for count, _ in of)) for of in forms.values()]
    return sorted(merged, key=lambda each: (-each[1], each[0]))


def untrained_answers(
    counts: Iterable[tuple[str, int]], trained: Iterable[str]
) -> list[tuple[str, int]]:
    """Find the answers to be judged by that none to train from is: no model can give them.

        untrained_answers([("blue", 2), ("Red", 1)], ["red"])  ->  [("blue", 2)]

    Args:
        counts: answers to be judged by, and how often each comes.
        trained: answers to train from.

    Returns:
        The others with their counts, merged and in the order of `merge_counts`.
    """
    known = set(map(fold, trained))
    return [each for each in merge_counts(counts) if fold(each[0]) not in known]


class Vocabulary:
    """Finds the answer of a list that a text means.

    Args:
        answers: the list, in its order.
        same: which texts mean one answer. A text that is in the list always means itself, so that
            a list may have answers that differ in case alone.
    """

    def __init__(self, answers: Sequence[str], *, same: SameAnswers = "folded") -> None:
        self._known = frozenset(answers)
        self._key = _key(same)
        self._of_key: dict[str, str] = {}
        for answer in answers:
            self._of_key.setdefault(self._key(answer), answer)

    def find(self, text: str) -> str | None:
        """Return the answer of the list that a text means, or None."""
        return text if text in self._known else self._of_key.get(self._key(text))

    def in_its_words(self, text: str) -> str:
        """Return the answer of the list that a text means, or the text itself."""
        return self.find(text) or text

    def scores_in_its_words(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Put soft labels into the list's words; of several for one answer the best counts."""
        found: dict[str, float] = {}
        for text, score in scores.items():
            answer = self.in_its_words(text)
            found[answer] = max(score, found.get(answer, 0.0))
        return found


def _key(same: SameAnswers) -> Callable[[str], str]:
    return fold if same == "folded" else str
