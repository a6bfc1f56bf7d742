import unicodedata

import pytest

from clipbert.datasets.same_answers import Vocabulary, fold, merge_counts

COMPOSED = "café"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.mark.parametrize(
    ("typed", "also"),
    [
        ("yes", "Yes"),
        ("a dog", "  A\u00a0 DOG\n"),
        (COMPOSED, DECOMPOSED),
        ("straße", "STRASSE"),
        (DECOMPOSED.upper(), COMPOSED),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ],
)
def test_case_spaces_and_unicode_form_make_no_other_answer(typed, also):
    assert typed != also
    assert fold(typed) == fold(also)


@pytest.mark.parametrize(("one", "other"), [("m2", "m²"), ("resume", "résumé"), ("no", "no.")])
def test_other_signs_make_another_answer(one, other):
    assert fold(one) != fold(other)


def test_the_form_most_used_is_shown_with_all_counts():
    counts = [("No", 2), ("yes", 3), ("no", 4), ("Yes", 2), ("YES", 2)]

    assert merge_counts(counts) == [("yes", 7), ("no", 6)]
    assert merge_counts(counts, same="exact") == [
        ("no", 4),
        ("yes", 3),
        ("No", 2),
        ("YES", 2),
        ("Yes", 2),
    ]


def test_a_text_that_stands_in_the_list_means_itself():
    vocabulary = Vocabulary(["Polish", "polish", "Yes"])

    assert [vocabulary.find(text) for text in ("polish", "Polish", "POLISH", "yes", "no")] == [
        "polish",
        "Polish",
        "Polish",
        "Yes",
        None,
    ]
    assert vocabulary.in_its_words("no") == "no"


def test_of_soft_labels_that_mean_one_answer_the_best_counts():
    vocabulary = Vocabulary(["yes", "no"])

    assert vocabulary.scores_in_its_words({"Yes": 0.3, "yes ": 0.9, "maybe": 0.1}) == {
        "yes": 0.9,
        "maybe": 0.1,
    }


def test_exact_answers_are_compared_by_their_characters():
    vocabulary = Vocabulary(["yes"], same="exact")

    assert vocabulary.find("Yes") is None
