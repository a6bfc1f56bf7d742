"""A check of a data set finds what training would trip over, and counts the rest."""

import json
import shutil
from pathlib import Path

import pytest
from videos import cut, write_counting_video, write_sound

from clipbert.datasets.check import TextLimit, check_data
from clipbert.datasets.check_report import BadLine
from clipbert.errors import AnnotationError, MediaNotFound
from clipbert.model.text import TextTokenizer

FILES = Path(__file__).parents[2] / "annotations"


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_counting_video(tmp_path_factory.mktemp("video") / "good.mp4", 20, fps=10)


@pytest.fixture
def videos(tmp_path, video):
    """A folder with the good video `good`, 2 seconds long."""
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(video, folder / "good.mp4")
    return folder


def test_a_sound_data_set_has_nothing_wrong(tmp_path, videos):
    path = write(tmp_path / "a.jsonl", {"caption": "numbers", "clip_name": "good"})

    report = check_data(path, videos=videos)

    assert report.is_sound
    assert (report.kind, report.task, report.num_bad_lines) == ("retrieval", "retrieval", 0)
    assert (report.media.num_named, report.media.num_probed) == (1, 1)
    assert (report.media.broken, report.media.missing) == ((), {})


def test_missing_and_broken_videos_are_named_and_counted(tmp_path, videos, video):
    cut(video, videos / "short.mp4", share=0.5)
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("no video at all, but long enough")
    write_sound(videos / "sound.mp4")
    (videos / "more").mkdir()
    for name in ("twice.mp4", "more/twice.avi", "unused.mp4"):
        shutil.copy(video, videos / name)
    names = ["good", "short", "empty", "empty", "text", "sound", "twice", "gone", "gone"]
    lines = [{"caption": f"{i}", "clip_name": name} for i, name in enumerate(names)]
    progress = []

    report = check_data(
        write(tmp_path / "a.jsonl", *lines),
        videos=videos,
        progress=lambda done, total: progress.append((done, total)),
    )

    assert not report.is_sound
    assert report.media.missing == {"gone": 2}
    assert {one.name: (one.code, one.num_lines) for one in report.media.broken} == {
        "empty": ("empty_file", 2),
        "short": ("truncated_media", 1),
        "sound": ("no_video_stream", 1),
        "text": ("unsupported_media", 1),
        "twice": ("ambiguous_media", 1),
    }
    assert all(one.message for one in report.media.broken)
    assert report.media.num_unused_files == 1
    assert progress == [(done, 5) for done in range(1, 6)]


def test_without_probing_only_the_files_are_looked_for(tmp_path, videos):
    (videos / "empty.mp4").touch()
    lines = [{"caption": "x", "clip_name": name} for name in ("good", "empty")]
    path = write(tmp_path / "a.jsonl", *lines)

    report = check_data(path, videos=videos, probe=False)

    assert report.is_sound
    assert (report.media.num_probed, report.media.broken) == (0, ())


@pytest.mark.parametrize(
    "line",
    [
        {"video": "gone", "caption": "missing"},
        {"video": "empty", "caption": "broken"},
        {"video": "good", "caption": "late", "start_seconds": 9},
        {"video": "good", "caption": ""},
    ],
)
def test_one_fault_of_any_kind_is_enough(line, tmp_path, videos):
    (videos / "empty.mp4").touch()
    good = {"video": "good", "caption": "numbers"}

    assert check_data(write(tmp_path / "a.jsonl", good), videos=videos).is_sound
    assert not check_data(write(tmp_path / "a.jsonl", good, line), videos=videos).is_sound


def test_lines_that_cannot_be_read_are_named(tmp_path, videos):
    good = {"caption": "x", "clip_name": "good"}
    wrong = {"caption": "", "clip_name": "good"}
    path = write(tmp_path / "a.jsonl", good, wrong, *[{"caption": "x"}] * 30)

    report = check_data(path, videos=videos, probe=False)

    assert not report.is_sound
    assert report.num_bad_lines == 31
    assert report.bad_lines[:2] == (
        BadLine(2, "caption", "has an empty text"),
        BadLine(3, "clip_name", "is missing"),
    )
    assert len(report.bad_lines) == 20
    assert report.lines.num_lines == 1


def test_answers_are_counted_and_compared_with_the_vocabulary(tmp_path, videos):
    report = check_data(
        FILES / "msrvtt_qa.jsonl", videos=videos, probe=False, answers=("couch", "man")
    )

    answers = report.lines.answers
    assert answers.num_distinct == 5
    assert answers.most_common[0] == ("couch", 2)
    assert (answers.num_unknown, dict(answers.unknown)) == (3, {"two": 1, "kitchen": 1, "night": 1})
    assert report.lines.answer_types == {"what": 2, "who": 1, "how": 1, "where": 1, "when": 1}


def test_unknown_answers_stop_no_training(tmp_path, videos):
    line = {"video": "good", "question": "what?", "answer": "number"}

    report = check_data(write(tmp_path / "a.jsonl", line), videos=videos, answers=("other",))

    assert report.is_sound
    assert report.lines.answers.num_unknown == 1


def test_questions_without_an_answer_are_counted(videos):
    test = check_data(FILES / "vqa_test.jsonl", videos=videos, probe=False)
    train = check_data(FILES / "vqa.jsonl", videos=videos, probe=False)

    assert test.lines.answers.num_unanswered == 3
    assert train.lines.answers.num_unanswered == 1
    assert train.lines.answers.num_unknown is None


def test_choices_and_splits_are_counted(videos):
    choices = check_data(FILES / "labels_choices.jsonl", videos=videos, probe=False)
    captions = check_data(FILES / "labels_captions.jsonl", videos=videos, probe=False)

    assert choices.lines.choices == {3: 1, 2: 1}
    assert choices.lines.answers is None
    assert captions.lines.splits == {"train": 2, "test": 1}


def test_doubled_lines_are_those_that_say_the_same_of_the_same_video(tmp_path, videos):
    same = {"video": "good", "caption": "a dog"}
    later = same | {"start_seconds": 1.0}
    path = write(tmp_path / "a.jsonl", same, later, same, same | {"video": "other"}, later)

    report = check_data(path, videos=videos, probe=False)

    assert report.lines.num_doubled == 2
    assert report.lines.doubled == ((3, 1), (5, 2))


def test_questions_with_other_choices_are_no_doubles(tmp_path, videos):
    line = {"gif_name": "good", "question": "q?", "options": ["a", "b"], "answer": 0}
    path = write(tmp_path / "a.jsonl", line, line | {"options": ["a", "c"]}, line | {"answer": 1})

    assert check_data(path, videos=videos, probe=False).lines.doubled == ((3, 1),)


def test_a_label_about_a_part_after_the_end_is_wrong(tmp_path, videos):
    label = {"video": "good", "caption": "a dog"}
    starts = (0, 1.9, 2.0, 7.5)
    path = write(tmp_path / "a.jsonl", *({**label, "start_seconds": start} for start in starts))

    report = check_data(path, videos=videos)

    assert not report.is_sound
    assert (report.media.num_late, report.media.late) == (2, (3, 4))


def test_texts_that_a_model_would_cut_are_counted(tmp_path, videos):
    """Spelled out, with [CLS] and [SEP]: a text of n letters has n + 2 tokens."""
    limit = TextLimit(TextTokenizer.from_characters(), 8)
    captions = [{"caption": text, "clip_name": "good"} for text in ("abcdef", "abcdefg", "x" * 99)]
    question = {"gif_name": "good", "question": "abc", "options": ["def", "defg"], "answer": 0}
    retrieval = write(tmp_path / "a.jsonl", *captions)
    choice = write(tmp_path / "b.jsonl", question)

    cut_captions = check_data(retrieval, videos=videos, probe=False, text_limit=limit)
    cut_choices = check_data(choice, videos=videos, probe=False, text_limit=limit)

    assert cut_captions.lines.num_long_texts == 2
    assert cut_choices.lines.num_long_texts == 1


def test_a_report_is_json(tmp_path, videos):
    path = write(tmp_path / "a.jsonl", {"caption": "x", "clip_name": "gone"}, {"caption": "x"})

    report = json.loads(json.dumps(check_data(path, videos=videos).to_json()))

    assert report["is_sound"] is False
    assert report["media"]["missing"] == {"gone": 1}
    assert report["bad_lines"] == [{"line": 2, "field": "clip_name", "reason": "is missing"}]
    assert (report["path"], report["media"]["folder"]) == (str(path), str(videos))


def test_a_file_of_which_nothing_can_be_read_is_an_error(tmp_path, videos):
    path = write(tmp_path / "a.jsonl", {"caption": "", "clip_name": "good"})

    with pytest.raises(AnnotationError, match="caption has an empty text"):
        check_data(path, videos=videos)
    with pytest.raises(MediaNotFound, match="is not a folder"):
        check_data(FILES / "vqa.jsonl", videos=tmp_path / "none")


def test_contradictions_doubles_across_the_split_and_a_single_answer_are_named(tmp_path):
    lines = [
        {"video": "a", "question": "Is it a dog?", "answer": "yes", "split": "train"},
        {"video": "a", "question": "is it a dog? ", "answer": "no", "split": "train"},
        {"video": "b", "question": "is it a dog?", "answer": "yes", "split": "train"},
        {"video": "b", "question": "is it a dog?", "answer": "Yes", "split": "holdout"},
        {"video": "c", "question": "is it a cat?", "answer": "YES", "split": "holdout"},
    ]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "videos").mkdir()

    found = check_data(path, videos=tmp_path / "videos", probe=False).lines

    assert found.doubled == ((2, 1), (4, 3))
    assert found.contradicting == ((2, 1),)
    assert found.across_splits == ((4, 3),)
    assert found.only_answers == {"holdout": "YES"}  # of two forms used equally often, by letters
    assert (found.answers.num_distinct, found.answers.num_forms) == (2, 4)
    assert found.untrained_answers == {}


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "train", "holdout", "holdout"), {"holdout": [("blue", 1)]}),
        (("train", "holdout", "val", "train"), {"val": [("green", 1)]}),
        (("train", None, "holdout", "holdout"), {"holdout": [("blue", 1)]}),
        ((None, None, None, "holdout"), {}),  # of files of one split who knows
        (("holdout",) * 4, {}),
    ],
)
def test_answers_to_judge_by_that_are_not_trained_are_named(tmp_path, splits, expected):
    answers = ("red", "Green", "green ", "blue")
    if splits[1] == "holdout":
        answers = ("red", "RED", "green", "blue")
    lines = [
        {"video": str(n), "question": "what colour?", "answer": answer, "split": split}
        for n, (answer, split) in enumerate(zip(answers, splits, strict=True))
    ]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "videos").mkdir()

    found = check_data(path, videos=tmp_path / "videos", probe=False).lines

    assert found.untrained_answers == expected


def test_choices_that_read_the_same_make_a_bad_line(tmp_path, videos):
    line = {"video": "good", "question": "q?", "choices": ["a", "b"], "answer": 0}
    path = write(tmp_path / "a.jsonl", line, line | {"choices": ["a", " A"], "answer": 1})

    report = check_data(path, videos=videos, probe=False)

    assert [(each.line, each.reason) for each in report.bad_lines] == [
        (2, "the choices must differ: 'a' and ' A' read the same")
    ]
    assert (report.num_bad_lines, report.lines.num_lines) == (1, 1)
