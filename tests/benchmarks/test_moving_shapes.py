"""The corpus asks for what it says: several clips, and hard "no"s; and it is always the same."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.learning.moving_shapes import (
    COLOURS,
    DURATION_SECONDS,
    FRAMES_PER_SECOND,
    SIDE_PX,
    absent_pairs,
    render_video,
    take_picture,
    write_script,
    write_video,
)
from benchmarks.learning.shape_corpus import make_corpus, plan_corpus
from benchmarks.learning.shape_questions import (
    KINDS,
    ask,
    ask_picture,
    middle_frame_accuracy,
    question_only_accuracy,
)
from clipbert.datasets.annotation_files import read_annotations
from clipbert.inference.clips import decode_clips
from clipbert.sampling.plan import SamplingPlan
from clipbert.sampling.plan_clips import plan_clips
from clipbert.video.decode import probe_video

SCRIPTS = [write_script(number, seed=7) for number in range(1200)]
QUESTIONS = [question for script in SCRIPTS for question in ask(script, seed=7)]
TRAIN, HOLDOUT = QUESTIONS[:-1500], QUESTIONS[-1500:]


def test_neither_the_question_nor_a_perfect_look_at_the_middle_frame_is_enough():
    for baseline in (question_only_accuracy, middle_frame_accuracy):
        by_kind = baseline(TRAIN, HOLDOUT)
        assert set(by_kind) == {"all", *KINDS}
        assert by_kind["all"] < 0.6
        assert max(by_kind.values()) < 0.65
    assert question_only_accuracy(TRAIN, HOLDOUT)["all"] < 0.5


def test_answers_are_balanced():
    answers = Counter(question.answer for question in QUESTIONS)
    assert answers["yes"] == answers["no"]
    counts = [answers[str(count)] for count in (1, 2, 3)]
    assert min(counts) > 0.9 * max(counts)
    colours = [answers[colour] for colour in COLOURS]
    assert min(colours) > 0.75 * max(colours)


def test_where_the_answer_is_no_the_colour_and_the_form_are_there():
    for script in SCRIPTS:
        for question in ask(script, seed=7):
            if question.answer != "no":
                continue
            *_, colour, form = question.text.removesuffix("?").split()
            assert colour in {shape.colour for shape in script.shapes}
            assert form in {shape.form for shape in script.shapes}
            assert not any((s.colour, s.form) == (colour, form) for s in script.shapes)
    assert all(absent_pairs(script.shapes) for script in SCRIPTS)


def test_eight_clips_see_every_event_and_one_clip_never_sees_all():
    for script in SCRIPTS:
        middles = [(index + 0.5) * DURATION_SECONDS / 8 for index in range(8)]
        seen = {each.shape for middle in middles for each in script.visible_at(middle)}
        assert seen == set(script.shapes)
        assert max(len(script.visible_at(m)) for m in middles) == script.most_together
        assert all(len(script.visible_at(m)) < len(script.shapes) for m in middles)


def test_the_same_seed_and_number_draw_the_same_video_and_others_another():
    first = np.stack(list(render_video(write_script(3, seed=1), seed=1, side_px=32)))
    again = np.stack(list(render_video(write_script(3, seed=1), seed=1, side_px=32)))
    other = np.stack(list(render_video(write_script(3, seed=2), seed=2, side_px=32)))
    assert first.shape == (round(DURATION_SECONDS * FRAMES_PER_SECOND), 32, 32, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first[0] != first[-1]).any()  # the background moves


def test_a_picture_shows_what_is_asked_about_it():
    answers = Counter()
    for number in range(300):
        picture = take_picture(number, seed=7)
        visible = {str(each.shape) for each in picture.script.visible_at(picture.seconds)}
        assert visible == {str(shape) for shape in picture.shapes}
        colours, forms = zip(*(shape.split() for shape in visible), strict=True)
        for question in ask_picture(picture, seed=7):
            answers[question.answer] += 1
            *_, colour, form = question.text.removesuffix("?").split()
            if question.answer == "yes":
                assert f"{colour} {form}" in visible
            elif question.answer == "no":
                assert f"{colour} {form}" not in visible
                assert colour in colours or form in forms
            elif question.kind == "how many":
                assert question.answer == str(len(visible))
            else:
                form = question.text.split()[4]
                assert f"{question.answer} {form}" in visible
                assert forms.count(form) == 1
    assert answers["yes"] == answers["no"] == 300
    assert min(answers[colour] for colour in COLOURS) > 50


def test_a_written_video_shows_the_shapes_in_their_colours(tmp_path):
    script = SCRIPTS[1]
    path = tmp_path / "v.mp4"
    write_video(script, path, seed=7)
    probe = probe_video(path)
    assert (probe.width, probe.height, probe.codec) == (SIDE_PX, SIDE_PX, "h264")
    assert probe.duration_seconds == pytest.approx(DURATION_SECONDS)
    plan = SamplingPlan("segments", num_clips=8, frames_per_clip=1)
    for clip in plan_clips(probe, plan):
        (frames,) = decode_clips(path, [clip])
        for each in script.visible_at(clip.instants[0]):
            passed = clip.instants[0] - each.start_seconds
            half = each.half_width
            x = np.clip(each.x + each.x_per_second * passed, half, 1 - half) * SIDE_PX
            y = np.clip(each.y + each.y_per_second * passed, half, 1 - half) * SIDE_PX
            wanted = np.array(COLOURS[each.shape.colour])
            assert np.abs(frames[0, int(y), int(x)].astype(int) - wanted).max() < 45


def test_a_corpus_has_labels_of_both_splits_and_held_out_captions_of_their_own(tmp_path):
    corpus = plan_corpus(tmp_path / "corpus", num_pictures=2, num_train=4, num_holdout=3)
    make_corpus(corpus)
    questions = read_annotations(corpus.questions_path)
    captions = read_annotations(corpus.captions_path)
    assert (questions.task, captions.task) == ("qa", "retrieval")
    videos = {path.stem for path in corpus.videos.iterdir()}
    assert {each.video for each in questions.annotations} == videos
    assert Counter(each.split for each in captions.annotations) == {"train": 4, "holdout": 3}
    of_split = {
        split: {each.video for each in questions.annotations if each.split == split}
        for split in ("train", "holdout")
    }
    assert of_split["train"].isdisjoint(of_split["holdout"])
    stills = read_annotations(corpus.picture_questions_path).annotations
    assert {each.video for each in stills} == {path.stem for path in corpus.stills.iterdir()}
    assert {each.split for each in stills} == {"train"}
    large = plan_corpus(tmp_path, num_pictures=0, num_train=1, num_holdout=200)
    assert len({script.caption for script in large.holdout}) == 200
    before = {path: path.stat().st_mtime_ns for path in corpus.videos.iterdir()}
    make_corpus(corpus)  # nothing is made twice
    assert before == {path: path.stat().st_mtime_ns for path in corpus.videos.iterdir()}
