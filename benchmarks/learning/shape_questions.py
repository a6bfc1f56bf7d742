"""What is asked about the moving shapes, and how much of it can be answered without the video.

Two baselines are computed from what the generator knows, so that they bound every model: the best
guess from the question alone, and the best guess from the question and a perfect look at the
single frame in the middle.
"""

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.learning.moving_shapes import (
    COLOURS,
    DURATION_SECONDS,
    SHAPES,
    Picture,
    Script,
    Shape,
    absent_pairs,
)

Kind = Literal["is there", "what colour", "how many"]
KINDS: tuple[Kind, ...] = ("is there", "what colour", "how many")
COUNT_QUESTION = "how many shapes appear together?"

_PAIRS_ASKED = 2  # that are there, and as many that are not


@dataclass(frozen=True)
class Question:
    """One question about one video.

    Attributes:
        script: of the video.
        kind: of the question.
        text: the question.
        answer: the right one.
        seen_in_middle: what a perfect look at the middle frame says to it; None: nothing.
    """

    script: Script
    kind: Kind
    text: str
    answer: str
    seen_in_middle: str | None


def ask(script: Script, *, seed: int) -> list[Question]:
    """Make the questions of one video."""
    draw = random.Random(f"{seed}/{script.number}/questions")
    visible = [each.shape for each in script.visible_at(DURATION_SECONDS / 2)]
    absent = absent_pairs(script.shapes)
    num_pairs = min(_PAIRS_ASKED, len(absent))
    questions = []
    for answer, shapes in (("yes", list(script.shapes)), ("no", absent)):
        for shape in draw.sample(shapes, num_pairs):
            seen = "yes" if shape in visible else None
            questions.append(Question(script, "is there", _is_there(shape), answer, seen))
    for shape in _single_forms(script.shapes):
        seen = shape.colour if shape in visible else None
        questions.append(Question(script, "what colour", _what_colour(shape), shape.colour, seen))
    seen = str(len(visible)) if visible else None
    most = str(script.most_together)
    questions.append(Question(script, "how many", COUNT_QUESTION, most, seen))
    return questions


def ask_picture(picture: Picture, *, seed: int) -> list[Question]:
    """Make the questions of one picture; in a "no" its colour or its form is there."""
    draw = random.Random(f"{seed}/{picture.script.number}/picture/questions")
    shapes = picture.shapes
    near = [
        Shape(colour, form)
        for colour, form in itertools.product(COLOURS, SHAPES)
        if Shape(colour, form) not in shapes
        and any(colour == shape.colour or form == shape.form for shape in shapes)
    ]
    asked: list[tuple[Kind, str, str]] = [
        ("is there", _is_there(draw.choice(shapes)), "yes"),
        ("is there", _is_there(draw.choice(near)), "no"),
        ("how many", COUNT_QUESTION, str(len(shapes))),
    ]
    for shape in _single_forms(shapes):
        asked.append(("what colour", _what_colour(shape), shape.colour))
    return [Question(picture.script, kind, text, answer, answer) for kind, text, answer in asked]


def question_only_accuracy(train: Sequence[Question], test: Sequence[Question]) -> dict[str, float]:
    """Answer each question of test as it is most often answered in train: accuracy by kind."""
    return _best_guesses(train, test, lambda question: (question.kind, question.text))


def middle_frame_accuracy(train: Sequence[Question], test: Sequence[Question]) -> dict[str, float]:
    """As question_only_accuracy, but knowing what is to be seen in the middle of the video."""
    return _best_guesses(
        train,
        test,
        # Whether shapes are seen tells more than which: there would be too few of each.
        lambda question: (question.kind, question.seen_in_middle or question.text),
    )


def _is_there(shape: Shape) -> str:
    return f"is there a {shape}?"


def _what_colour(shape: Shape) -> str:
    return f"what colour is the {shape.form} that appears?"


def _single_forms(shapes: Sequence[Shape]) -> list[Shape]:
    forms = Counter(shape.form for shape in shapes)
    return [shape for shape in shapes if forms[shape.form] == 1]


def _best_guesses(
    train: Sequence[Question],
    test: Sequence[Question],
    known: Callable[[Question], Hashable],
) -> dict[str, float]:
    """Answer by the most frequent answer among the training questions of which as much is known."""
    answers: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
    for question in train:
        answers[known(question)][question.answer] += 1
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for question in test:
        seen = answers[known(question)].most_common(1)
        is_right = bool(seen) and seen[0][0] == question.answer
        right[question.kind].append(is_right)
        right["all"].append(is_right)
    return {kind: sum(each) / len(each) for kind, each in right.items()}
