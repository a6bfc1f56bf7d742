import pytest

from clipbert.datasets.line_fields import LineFields
from clipbert.datasets.visible_text import has_visible_text
from clipbert.errors import AnnotationError

# Each is drawn as nothing: spaces, formats, fillers of Hangul and Braille, marks on nothing.
INVISIBLE = [
    "\u200b",
    "\u2060 \ufeff",
    "\u00ad",
    "\u3164",
    "\u2800",
    "\ufe0f",
    "\u202e",
    "\t\u3000",
    "",
]


@pytest.mark.parametrize("text", INVISIBLE, ids=ascii)
def test_a_text_of_which_nothing_is_drawn_has_no_visible_text(text):
    assert not has_visible_text(text)


# Joiners and selectors within what people write; signs newer than Python's tables; a font's own.
@pytest.mark.parametrize(
    "text", ["a\u200bb", "👩\u200d🚀", "✈\ufe0f", "?", "犬", "\U0001fae9", "\ue000"]
)
def test_a_text_of_which_something_is_drawn_has_visible_text(text):
    assert has_visible_text(text)


def test_a_line_of_an_annotation_file_must_say_something_visible(tmp_path):
    line = LineFields(tmp_path, 3, {"answer": "\u200b", "choices": ["a", "\u3164"]})

    with pytest.raises(AnnotationError, match="answer has a text without a visible character"):
        line.text("answer")
    with pytest.raises(AnnotationError, match="choices has a text without a visible character"):
        line.choices("choices")
