"""Answer vocabularies, from a data set and from the paper's files."""

import json
from pathlib import Path

import pytest

from clipbert.datasets.annotation_files import Annotation, read_annotations
from clipbert.datasets.answers import (
    answer_vocabulary,
    answers_of,
    count_unknown_answers,
    read_answer_labels,
)
from clipbert.errors import AnnotationError

FILES = Path(__file__).parents[2] / "annotations"


def questions(*answers):
    return [
        Annotation(line, "v", "q?", answer=answer) for line, answer in enumerate(answers, start=1)
    ]


def test_a_vocabulary_is_by_frequency_then_by_the_alphabet():
    annotations = questions("dog", "cat", "ox", "cat", "dog", "ant", "cat")

    assert answer_vocabulary(annotations) == ("cat", "dog", "ant", "ox")
    assert answer_vocabulary(annotations, max_answers=3) == ("cat", "dog", "ant")
    assert answer_vocabulary(annotations, min_count=2) == ("cat", "dog")
    assert answer_vocabulary([]) == ()


def test_each_soft_label_counts_once():
    annotations = read_annotations(FILES / "vqa.jsonl").annotations

    assert list(answers_of(annotations[0])) == ["down", "at table", "skateboard", "table"]
    assert answer_vocabulary([*annotations, *annotations[1:2]], max_answers=2) == ("yes", "2")


@pytest.mark.parametrize("limits", [{"min_count": 0}, {"max_answers": 0}])
def test_a_vocabulary_of_no_answers_is_not_asked_for(limits):
    with pytest.raises(ValueError, match="need at least 1"):
        answer_vocabulary(questions("dog"), **limits)


def test_answers_outside_a_vocabulary_are_counted():
    annotations = read_annotations(FILES / "msrvtt_qa.jsonl").annotations

    unknown = count_unknown_answers([*annotations, *questions("dog", "night")], ("couch", "man"))

    assert unknown == {"night": 2, "two": 1, "kitchen": 1, "dog": 1}


def test_labels_give_the_order_of_the_answers(tmp_path):
    path = tmp_path / "ans2label.json"
    path.write_bytes(b'\xef\xbb\xbf{"no": 1, "yes": 0, "2": 2}')

    assert read_answer_labels(path) == ("yes", "no", "2")
    assert read_answer_labels(FILES / "msrvtt_qa_ans2label.json")[0] == "couch"


@pytest.mark.parametrize(
    ("content", "field", "reason"),
    [
        (b'{"a": 0, "b": 2}', "b", "b must have a label from 0 to 1, has 2"),
        (b'{"a": 1, "b": 1}', "b", "b has the label 1, and so has a"),
        (b'{"a": 0, "a": 1}', "a", "a stands there twice"),
        (b'{"a": -1}', "a", "a must have a label from 0 to 0, has -1"),
        (b'{"a": "0"}', "a", 'has "0"'),
        (b'{"a": true, "b": 0}', "a", "has true"),
        (b'{"a": 0.0}', "a", "has 0.0"),
        (b'{"a": {"b": 0}}', "a", "must have a label"),
        (b'["a", "b"]', None, "is not a JSON object with answers"),
        (b"{}", None, "is not a JSON object with answers"),
        (b'{"a": 0', None, "is not JSON in UTF-8"),
        (b'{"\xff": 0}', None, "is not JSON in UTF-8"),
    ],
)
def test_labels_with_gaps_or_doubles_are_refused(content, field, reason, tmp_path):
    path = tmp_path / "ans2label.json"
    path.write_bytes(content)

    with pytest.raises(AnnotationError) as raised:
        read_answer_labels(path)

    assert reason in str(raised.value)
    assert (raised.value.path, raised.value.field) == (path, field)


def test_a_missing_file_of_labels_is_an_error(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read: No such file"):
        read_answer_labels(tmp_path / "none.json")


def test_a_vocabulary_survives_being_written_as_labels(tmp_path):
    path = tmp_path / "ans2label.json"
    vocabulary = answer_vocabulary(questions("dog", "cat", "ox", "cat"))
    path.write_text(json.dumps({answer: label for label, answer in enumerate(vocabulary)}))

    assert read_answer_labels(path) == vocabulary
