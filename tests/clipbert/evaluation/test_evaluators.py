"""What is kept of made-up logits, and what comes out of it."""

import numpy as np
import pytest
import torch

from clipbert.datasets.annotation_files import Annotation
from clipbert.evaluation.evaluators import (
    AnswerEvaluator,
    ChoiceEvaluator,
    CountEvaluator,
    RetrievalEvaluator,
)


def logits(*clips):
    """Logits (K, Q, C) with the same numbers for a single class, or lists of them."""
    return torch.tensor(clips, dtype=torch.float32).reshape(len(clips), len(clips[0]), -1)


def test_each_question_of_a_video_has_its_own_choices():
    questions = [
        Annotation(1, "v", "which?", choices=("a", "b"), right_choice=1, answer_type="x"),
        Annotation(2, "w", "which?", choices=("a", "b"), right_choice=0),
        Annotation(3, "v", "what?", choices=("c", "d", "e"), right_choice=0, answer_type="y"),
        Annotation(4, "v", "who?", choices=("f", "g"), right_choice=0, answer_type="x"),
    ]
    evaluator = ChoiceEvaluator(questions, how="mean", head="multiple_choice")

    texts = evaluator.texts("v")
    kept = evaluator.keep(logits([0, 1, 5, 2, 3, 1, 1], [0, 1, 1, 2, 3, 1, 1]))
    metrics = evaluator.measure({"v": kept})

    assert texts == ["which? a", "which? b", "what? c", "what? d", "what? e", "who? f", "who? g"]
    assert kept.tolist() == [0, 1, 3, 2, 3, 1, 1]
    # Of two equal choices the first is taken: the last two questions are right by that.
    assert metrics.overall == 100
    assert metrics.num_by_type == {"x": 2, "y": 1}


def test_choices_without_a_question_are_texts_of_their_own():
    evaluator = ChoiceEvaluator(
        [Annotation(1, "v", "", choices=("a dog", "a cat"), right_choice=0)],
        how="lse",
        head="retrieval",
    )

    kept = evaluator.keep(logits([[0, 2], [3, 0]]))

    assert evaluator.texts("v") == ["a dog", "a cat"]
    assert kept == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(3))])


def test_an_answer_is_right_to_the_letter_and_an_unknown_one_never():
    questions = [
        Annotation(1, "v", "who?", answer="dog"),
        Annotation(2, "v", "who?", answer="Dog"),
        Annotation(3, "v", "who?", answer_scores={"cat": 0.3, "mouse": 1.0}),
        Annotation(4, "v", "who?", answer_scores={"mouse": 1.0}),
    ]
    evaluator = AnswerEvaluator(questions, how="max", answers=("cat", "dog"))

    kept = evaluator.keep(
        logits([[0, 1], [0, 1], [3, 3], [1, 0]], [[0, 2], [0, 0], [2, 2], [0, 0]])
    )
    metrics = evaluator.measure({"v": kept})

    assert kept.tolist() == [1, 1, 0, 0]  # of equal ones the first
    assert metrics.overall == pytest.approx(100 * (1 + 0 + 0.3 + 0) / 4)
    assert evaluator.num_unknown_answers == 2


def test_numbers_are_aggregated_by_the_mean_where_the_model_adds_exponentials():
    questions = [Annotation(1, "v", "how many?", count=3), Annotation(2, "v", "?", count=9)]
    clips = logits([2, 20], [4, 10])

    def kept(how):
        return CountEvaluator(questions, how=how).keep(clips).tolist()

    assert kept("lse") == kept("mean") == [3, 15]
    assert kept("max") == [4, 20]
    metrics = CountEvaluator(questions, how="mean").measure({"v": np.array([3.0, 15.0])})
    assert (metrics.accuracy, metrics.mean_squared_error) == (50, 0.5)
    assert metrics.raw_mean_squared_error == 18


def test_captions_of_videos_that_were_not_looked_at_are_not_ranked():
    captions = [
        Annotation(1, "b", "one"),
        Annotation(2, "a", "two"),
        Annotation(3, "c", "three"),
        Annotation(4, "a", "four"),
    ]
    evaluator = RetrievalEvaluator(captions, how="lse", authors_rounding=False)

    # P(match) of the four captions with each video.
    report = evaluator.measure(
        {"b": np.array([0.9, 0.2, 1.0, 0.1]), "a": np.array([0.3, 0.1, 1.0, 0.8])}
    )

    # Ranked by video: "one" b first; "two" b before a; "four" a first.
    assert report.text_to_video.num_queries == 3
    assert report.text_to_video.mean_rank == pytest.approx((1 + 2 + 1) / 3)
    # Ranked by caption, without "three": "four" is first for a, "one" for b.
    assert report.video_to_text.num_queries == 2
    assert report.video_to_text.mean_rank == 1
