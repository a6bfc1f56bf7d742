"""Each kind of annotation file is read, and whatever is wrong in one is named."""

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipbert.datasets.annotation_files import (
    KINDS,
    Annotation,
    read_annotations,
    scan_annotations,
)
from clipbert.errors import AnnotationError

FILES = Path(__file__).parents[2] / "annotations"
GOOD_LINES = {
    "retrieval": {"caption": "a dog", "clip_name": "v"},
    "msrvtt_mc": {"qid": 0, "clip_name": "v", "options": ["a", "b", "c"], "answer": 1},
    "tgif_choice": {"gif_name": "v", "question": "q?", "options": ["a", "b", "c"], "answer": 1},
    "tgif_frameqa": {"gif_name": "v", "question": "q?", "answer": "a", "answer_type": "object"},
    "tgif_count": {"gif_name": "v", "question": "q?", "answer": 3},
    "msrvtt_qa": {"video_id": "v", "question": "q?", "answer": "a", "answer_type": "what"},
    "vqa": {"image_id": "v", "question": "q?", "labels": {"a": 1}},
    "captions": {"caption": "a dog", "coco_id": 9},
    "labels": {"video": "v", "question": "q?", "choices": ["a", "b"], "answer": "a"},
}


def write(path, *lines):
    """Write lines: bytes as they are, objects as JSON."""
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(raw) + b"\n")
    return path


def changed(kind, **fields):
    """A good line with other fields; a field that is ... is left out."""
    line = GOOD_LINES[kind] | fields
    return {name: value for name, value in line.items() if value is not ...}


@pytest.mark.parametrize(
    ("name", "kind", "task", "num_lines"),
    [
        ("msrvtt_retrieval", "retrieval", "retrieval", 10),
        ("didemo_retrieval", "retrieval", "retrieval", 6),
        ("activitynet_retrieval", "retrieval", "retrieval", 5),
        ("msrvtt_mc", "msrvtt_mc", "multiple_choice", 5),
        ("tgif_action", "tgif_choice", "multiple_choice", 5),
        ("tgif_transition", "tgif_choice", "multiple_choice", 5),
        ("tgif_frameqa", "tgif_frameqa", "qa", 5),
        ("tgif_count", "tgif_count", "count", 5),
        ("msrvtt_qa", "msrvtt_qa", "qa", 6),
        ("vqa", "vqa", "qa", 5),
        ("vqa_test", "vqa", "qa", 3),
        ("coco_captions", "captions", "pretraining", 5),
        ("vg_captions", "captions", "pretraining", 4),
        ("labels_captions", "labels", "retrieval", 3),
        ("labels_questions", "labels", "qa", 2),
        ("labels_choices", "labels", "multiple_choice", 2),
    ],
)
def test_the_kind_and_the_task_are_told_from_the_file(name, kind, task, num_lines):
    file = read_annotations(FILES / f"{name}.jsonl")

    assert (file.kind, file.task, len(file.annotations)) == (kind, task, num_lines)
    assert file == read_annotations(FILES / f"{name}.jsonl", kind=kind)
    assert [annotation.line for annotation in file.annotations] == list(range(1, num_lines + 1))


def read(name):
    return read_annotations(FILES / f"{name}.jsonl").annotations


def test_a_retrieval_line_is_a_caption_of_a_clip():
    assert read("msrvtt_retrieval")[2] == Annotation(
        3, "video7024", "two cats play with a ball of wool"
    )
    assert read("didemo_retrieval")[2].video == "14006177@N04_5236521143_f5df6b4b1d"


def test_sentences_of_a_video_become_one_paragraph():
    first, second, third, *_ = read("activitynet_retrieval")

    assert first.text == (
        "A man kneels beside a car. He loosens the bolts of the wheel. "
        "He puts on another wheel and stands up."
    )
    assert second.text == "A girl stands on a beach. She throws a ball to her dog."
    assert third.text.startswith("Two men play table tennis. One")


def test_the_choices_of_msrvtt_mc_are_captions_without_a_question():
    assert read("msrvtt_mc")[2] == Annotation(
        3,
        "video7012",
        "",
        choices=(
            *("a car is washed", "a judge asks a question", "the sea is rough"),
            *("a baby laughs", "a trailer of a film"),
        ),
        right_choice=0,
    )


def test_tgif_choices_belong_to_a_question():
    action, transition = read("tgif_action")[0], read("tgif_transition")[1]

    assert action.video == "tumblr_nk172bbdPI1u1lr18o1_250"
    assert action.text == "What does the butterfly do 10 or more than 10 times ?"
    assert (action.choices[action.right_choice], action.answer) == ("flap wings", None)
    assert transition.choices[transition.right_choice] == "talk"


def test_open_questions_have_an_answer_and_its_type():
    assert read("tgif_frameqa")[1] == Annotation(
        2,
        "tumblr_nbje6dCrlF1rbr0cro1_400",
        "how many men are dancing on the stage ?",
        answer="four",
        answer_type="number",
    )


def test_msrvtt_qa_gives_its_videos_by_name_or_by_number():
    annotations = read("msrvtt_qa")

    videos = [annotation.video for annotation in annotations]
    assert videos == ["video6513", *["video6514"] * 2, "video6515", "video6516", "video6517"]
    assert (annotations[0].answer, annotations[0].answer_type) == ("couch", "what")


def test_counts_are_numbers_however_they_are_written():
    assert [annotation.count for annotation in read("tgif_count")] == [3, 2, 10, 2, 4]
    assert {annotation.answer for annotation in read("tgif_count")} == {None}


def test_vqa_gives_each_answer_a_score():
    named, yes, numbered, none, of_genome = read("vqa")

    assert named.answer_scores == {"down": 1, "at table": 0.3, "skateboard": 0.3, "table": 0.3}
    assert (named.video, named.answer) == ("COCO_val2014_000000262148", None)
    assert (yes.answer_type, of_genome.answer_type) == ("yes/no", None)
    assert (numbered.video, of_genome.video) == ("000000393225", "000000240301")
    assert none.answer_scores == {}


def test_vqa_test_lines_have_no_labels():
    assert [annotation.answer_scores for annotation in read("vqa_test")] == [{}, {}, {}]


def test_pictures_of_coco_have_twelve_digits_and_those_of_visual_genome_have_not():
    coco, genome = read("coco_captions"), read("vg_captions")

    assert [coco[2].video, coco[4].video] == ["000000016977", "COCO_train2014_000000106140"]
    assert [genome[0].video, genome[3].video] == ["1", "2412100"]
    assert coco[2].text == "A bathroom with a white sink."


def test_labels_say_where_in_a_video_they_hold_and_which_split_they_are_of():
    first, second, third = read("labels_captions")

    assert first == Annotation(1, "kitchen-01.mp4", "a robot arm lifts a cup", split="train")
    assert (second.video, second.start_seconds, second.end_seconds) == ("kitchen-01", 4.5, 7.0)
    assert third == Annotation(
        3, "shelf/kitchen-02.MKV", "a person opens a drawer", split="test", start_seconds=1.0
    )


def test_labels_may_be_open_questions_or_have_choices():
    questions, choices = read("labels_questions"), read("labels_choices")

    assert [annotation.answer for annotation in questions] == ["cup", "person"]
    assert [annotation.right_choice for annotation in choices] == [1, 0]
    assert choices[1].choices == ("upper", "lower")


def test_a_byte_order_mark_blank_lines_and_carriage_returns_do_no_harm(tmp_path):
    good = json.dumps(GOOD_LINES["retrieval"]).encode()
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\r\n  \n" + good)  # no line end at the end

    annotations = read_annotations(path).annotations

    assert [annotation.line for annotation in annotations] == [1, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_every_missing_field_is_named(kind, tmp_path):
    optional = {"qid", "labels", "choices"}
    if kind == "msrvtt_qa":  # its own file has none
        optional |= {"answer_type"}
    for field in GOOD_LINES[kind].keys() - optional:
        path = write(tmp_path / "a.jsonl", GOOD_LINES[kind], changed(kind, **{field: ...}))

        with pytest.raises(AnnotationError, match="is missing") as raised:
            read_annotations(path)

        error = raised.value
        named = {"labels": {"question": "caption"}}.get(kind, {}).get(field, field)
        assert (error.path, error.line, error.field) == (path, 2, named)
        assert str(error).startswith(f"{path}:2: {named} is missing")


@pytest.mark.parametrize(
    ("kind", "field", "value", "reason"),
    [
        ("retrieval", "caption", 5, "must be text, not 5"),
        ("retrieval", "caption", "", "has an empty text"),
        ("retrieval", "caption", " \n", "has an empty text"),
        ("retrieval", "caption", "a \ud800", "is not Unicode text"),
        ("retrieval", "caption", [], "is empty"),
        ("retrieval", "caption", ["a dog.", ""], "has an empty text"),
        ("retrieval", "caption", None, "is missing"),
        ("retrieval", "clip_name", True, "must be text, not true"),
        ("retrieval", "clip_name", 1.5, "must be text, not 1.5"),
        ("retrieval", "clip_name", -1, "must not be negative"),
        ("retrieval", "clip_name", "/", "names no file"),
        ("msrvtt_mc", "options", "abc", 'must be a list of texts, not "abc"'),
        ("msrvtt_mc", "options", ["a"], "has a single choice"),
        ("msrvtt_mc", "options", ["a", 2, "c"], "must be text, not 2"),
        ("msrvtt_mc", "answer", 3, "must be an index of the 3 choices, got 3"),
        ("tgif_choice", "answer", -1, "must be an index of the 3 choices, got -1"),
        ("tgif_choice", "answer", "b", 'must be a whole number, not "b"'),
        ("tgif_choice", "answer", True, "must be a whole number, not true"),
        ("tgif_frameqa", "answer", 3, "must be text, not 3"),
        ("tgif_count", "answer", 2.5, "must be a whole number, not 2.5"),
        ("tgif_count", "answer", "9" * 5000, "must be a whole number"),
        ("tgif_count", "answer", -2, "must not be negative, got -2"),
        ("msrvtt_qa", "video_id", [6513], "must be text, not [6513]"),
        ("vqa", "labels", ["yes"], 'must be an object of scores, not ["yes"]'),
        ("vqa", "labels", {"yes": 3}, 'must give "yes" a score from 0 to 1, not 3'),
        ("vqa", "labels", {"yes": "1"}, 'must give "yes" a score from 0 to 1, not "1"'),
        ("vqa", "labels", {"": 1}, "has an empty text"),
        ("captions", "coco_id", -5, "must not be negative"),
        ("labels", "answer", "c", "must be one of the choices, is none of them: c"),
        ("labels", "answer", 2, "must be an index of the 2 choices, got 2"),
        ("labels", "choices", ["a", "a"], "must be one of the choices, is several of them: a"),
        ("labels", "start_seconds", -1, "must be seconds, 0 or more, not -1"),
        ("labels", "start_seconds", "1", 'must be seconds, 0 or more, not "1"'),
        ("labels", "start_seconds", 10**400, "must be seconds, 0 or more"),
        ("labels", "end_seconds", 0, "must be after the start, got 0"),
        ("labels", "split", 3, "must be text, not 3"),
        ("labels", "source", {}, "must be text, not {}"),
        ("labels", "caption", "a dog", "is there beside caption"),
    ],
)
def test_a_wrong_field_is_named_with_its_line_and_what_is_wrong(
    kind, field, value, reason, tmp_path
):
    path = write(tmp_path / "a.jsonl", GOOD_LINES[kind], changed(kind, **{field: value}))

    with pytest.raises(AnnotationError) as raised:
        read_annotations(path, kind=kind)

    error = raised.value
    assert error.line == 2
    assert reason in str(error)
    # What contradicts another field may be told of either.
    related = {"choices": "answer", "caption": "question"} if kind == "labels" else {}
    assert error.field == related.get(field, field)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"caption": "a', "is not JSON: "),
        (b'{"caption": NaN, "clip_name": "v"}', "is not JSON: NaN is not a number"),
        (b'{"caption": "\xff", "clip_name": "v"}', "is not UTF-8"),
        (b'["a dog", "v"]', 'is not a JSON object but ["a dog", "v"]'),
        (b"[" * 100_000, "is not JSON: "),
        (b'{"clip_name": ' + b"1" * 5000 + b"}", "is not JSON: "),
    ],
)
def test_a_line_that_is_no_object_is_named(line, reason, tmp_path):
    path = write(tmp_path / "a.jsonl", line, GOOD_LINES["retrieval"])

    with pytest.raises(AnnotationError) as raised:
        read_annotations(path)

    assert (raised.value.path, raised.value.line, raised.value.field) == (path, 1, None)
    assert f"{path}:1: {reason}" in str(raised.value)


def test_the_first_few_errors_are_told_and_all_are_counted(tmp_path):
    wrong = changed("retrieval", caption="")
    path = write(tmp_path / "a.jsonl", GOOD_LINES["retrieval"], *[wrong] * 30, b"{")

    with pytest.raises(AnnotationError) as raised:
        read_annotations(path)

    lines = str(raised.value).splitlines()
    assert lines[0].startswith(f"{path}:2: caption has an empty text; 31 lines cannot be read")
    assert lines[1] == f"  {path}:3: caption has an empty text"
    assert lines[-1] == "  and 26 more"
    assert len(lines) == 6


def test_a_scan_gives_the_lines_that_can_be_read_and_the_errors_of_the_rest(tmp_path):
    wrong = changed("retrieval", caption="")
    path = write(tmp_path / "a.jsonl", wrong, GOOD_LINES["retrieval"], *[wrong] * 30)

    scan = scan_annotations(path, kind="retrieval")

    assert [annotation.line for annotation in scan.file.annotations] == [2]
    assert [error.line for error in scan.errors] == [1, *range(3, 22)]
    assert scan.num_errors == 31


def test_labels_of_several_tasks_are_no_one_file(tmp_path):
    caption = {"video": "v", "caption": "a dog"}
    question = {"video": "v", "question": "q?", "answer": "a"}
    path = write(tmp_path / "a.jsonl", {"video": "v"}, caption, question, caption)

    scan = scan_annotations(path)

    assert scan.file.task == "retrieval"
    assert [annotation.line for annotation in scan.file.annotations] == [2, 4]
    assert [error.line for error in scan.errors] == [1, 3]
    assert "is for qa, the lines before it are for retrieval" in str(scan.errors[1])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"text": "a dog", "file": "v"}, "is of no known kind (it has file, text)"),
        ({}, "is of no known kind (it has nothing)"),
        (GOOD_LINES["retrieval"] | {"video": "v"}, "may be labels or retrieval"),
    ],
)
def test_a_file_whose_kind_cannot_be_told_needs_its_name(line, reason, tmp_path):
    path = write(tmp_path / "a.jsonl", line)

    with pytest.raises(AnnotationError) as raised:
        read_annotations(path)

    assert reason in str(raised.value)
    assert raised.value.line == 1


def test_a_named_kind_settles_what_the_fields_leave_open(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD_LINES["retrieval"] | {"video": "other"})

    assert read_annotations(path, kind="retrieval").annotations == (Annotation(1, "v", "a dog"),)
    assert read_annotations(path, kind="labels").annotations == (Annotation(1, "other", "a dog"),)
    with pytest.raises(ValueError, match="no kind of annotation is named 'nonsense'"):
        read_annotations(path, kind="nonsense")


def test_a_file_without_lines_or_without_a_file_is_an_error(tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"\n\n")

    for name, reason in (("empty", "has no lines"), ("none", "cannot be read: No such file")):
        for kind in (None, "retrieval"):
            path = tmp_path / f"{name}.jsonl"
            with pytest.raises(AnnotationError, match=reason) as raised:
                read_annotations(path, kind=kind)
            assert (raised.value.path, raised.value.line) == (path, None)


def test_a_folder_is_no_annotation_file(tmp_path):
    with pytest.raises(AnnotationError, match=f"cannot be read: {os.strerror(21)}"):
        read_annotations(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_whatever_a_field_holds_is_read_or_is_an_annotation_error(tmp_path_factory, kind, data):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    fields = sorted(GOOD_LINES[kind].keys() | {"start_seconds", "split", "caption", "answer"})
    line = GOOD_LINES[kind] | data.draw(st.dictionaries(st.sampled_from(fields), JSON, max_size=3))
    write(path, line)

    with contextlib.suppress(AnnotationError):
        (annotation,) = read_annotations(path, kind=kind).annotations
        assert annotation.video
        assert annotation.text or kind == "msrvtt_mc"
        assert annotation.right_choice is None or annotation.choices[annotation.right_choice]


def test_the_names_and_answers_of_many_lines_are_held_once(tmp_path):
    """Millions of lines say the same few thousand of them."""
    line = GOOD_LINES["msrvtt_qa"]
    path = write(
        tmp_path / "a.jsonl", *({**line, "video_id": number // 50} for number in range(99))
    )

    annotations = read_annotations(path).annotations

    assert len({id(annotation.video) for annotation in annotations}) == 2
    assert len({id(annotation.answer) for annotation in annotations}) == 1
    assert not hasattr(annotations[0], "__dict__")
