import dataclasses

import numpy as np
import pytest
from corpus import write_corpus, write_lines

from clipbert.datasets.annotation_files import read_annotations
from clipbert.errors import AnnotationError, MissingHead
from clipbert.evaluation.evaluator_builder import build_evaluator
from clipbert.model.config import ClipBertConfig, HeadConfig


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), num_videos=10)


def test_what_a_file_lacks_for_its_task_is_said(corpus, tmp_path):
    config = dataclasses.replace(
        ClipBertConfig.preset("clipbert-tiny"), heads=(HeadConfig("retrieval", 2),), answers=()
    )
    unlabelled = {"image_id": "a", "question": "what?", "question_id": 1}
    vqa = read_annotations(write_lines(tmp_path / "vqa.jsonl", [unlabelled]), kind="vqa")
    captions = read_annotations(corpus.files["pretraining"])
    questions = read_annotations(corpus.files["msrvtt_qa"])

    with pytest.raises(AnnotationError, match=r"vqa\.jsonl:1: does not say what is right"):
        build_evaluator(vqa, config=config)
    with pytest.raises(AnnotationError, match="is for pretraining"):
        build_evaluator(captions, config=config)
    with pytest.raises(AnnotationError, match="no line of the split"):
        build_evaluator(captions, config=config, task="retrieval", split="test")
    with pytest.raises(MissingHead, match="qa"):
        build_evaluator(questions, config=config)
    assert build_evaluator(captions, config=config, task="retrieval").head == "retrieval"


def test_only_the_lines_of_a_split_are_evaluated(tmp_path):
    lines = [
        {"video": f"v{number}", "caption": "a dog", "split": "test" if number % 2 else "train"}
        for number in range(6)
    ]
    file = read_annotations(write_lines(tmp_path / "labels.jsonl", lines))

    evaluator = build_evaluator(
        file, config=ClipBertConfig.preset("clipbert-tiny"), split="test", limit=2
    )

    assert [each.video for each in evaluator.annotations] == ["v1", "v3"]


def test_a_trained_head_is_preferred_for_choices(corpus):
    config = dataclasses.replace(
        ClipBertConfig.preset("clipbert-tiny"), trained_heads=("retrieval",)
    )
    file = read_annotations(corpus.files["tgif_action"])

    assert build_evaluator(file, config=config).head == "retrieval"


def test_a_question_without_agreed_answers_is_asked_and_scores_nothing(tmp_path):
    def line(number, labels):
        return {"image_id": number, "question": "what?", "question_id": number, "labels": labels}

    file = read_annotations(
        write_lines(tmp_path / "vqa.jsonl", [line(1, {"yes": 1.0}), line(2, {})]), kind="vqa"
    )

    evaluator = build_evaluator(file, config=ClipBertConfig.preset("clipbert-tiny"))

    videos = sorted(each.video for each in file.annotations)
    measured = evaluator.measure({video: np.array([0]) for video in videos})  # "yes"
    assert measured.overall == 50.0
